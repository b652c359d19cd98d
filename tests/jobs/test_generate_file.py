import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError, DataError, PromptTooLong, RequestError, RunLocked
from gpt2kit.jobs.generate_file import Asked, generate_file, read_prompts
from gpt2kit.jobs.load import load
from gpt2kit.progress import silent

SEEDED, SHORT = SamplingConfig(seed=7), StopConfig(max_new_tokens=6)
PROMPTS = ["The cat", "A", "Some day we will all be there, and then", "月", "The dog and the cat"]


@pytest.fixture(scope="session")
def model(golden):
    return golden / "hf-safetensors"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def answer(model, out):
    """Answer PROMPTS on the reference engine."""

    def run(prompts=None, **settings):
        asked = [Asked(prompt) for prompt in (PROMPTS if prompts is None else prompts)]
        known = {"sampling": SEEDED, "stop": SHORT, "engine": "reference"} | settings
        return generate_file(model, asked, out, **known)

    return run


@pytest.fixture(scope="session")
def alone(model):
    """What the model writes to a prompt that is alone."""

    def write(prompt, samples=1, sampling=SEEDED, stop=SHORT):
        with load(model, engine="reference", slots=1) as generator:
            return generator.generate(prompt, samples=samples, sampling=sampling, stop=stop)

    return write


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- what is written ---


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_every_prompt_gets_the_text_it_gets_alone_in_the_order_of_the_prompts(answer, alone, out, batch_size):
    answer(batch_size=batch_size)
    assert [(line["prompt"], line["text"]) for line in lines_of(out)] == [
        (prompt, alone(prompt)[0].text) for prompt in PROMPTS
    ]


def test_several_samples_of_a_prompt_follow_each_other(answer, alone, out):
    answer(samples=3)
    lines = lines_of(out)
    assert [(line["index"], line["sample"]) for line in lines] == [(n // 3, n % 3) for n in range(15)]
    assert [line["text"] for line in lines[3:6]] == [completion.text for completion in alone(PROMPTS[1], samples=3)]


def test_a_line_says_all_that_is_needed_to_write_it_again(answer, alone, out):
    answer(sampling=SamplingConfig())
    line = lines_of(out)[2]
    (again,) = alone(line["prompt"], sampling=SamplingConfig(seed=line["seed"]))
    assert (line["text"], line["reason"], line["tokens"]) == (again.text, again.reason, len(again.ids))


def test_log_probabilities_come_where_asked_for(answer, alone, out, model):
    answer(logprobs=2)
    told, (expected,) = lines_of(out)[0]["logprobs"], alone(PROMPTS[0])
    with load(model, engine="reference", slots=1) as generator:
        decode = generator.tokenizer.decode
    assert [entry["id"] for entry in told] == list(expected.ids)
    np.testing.assert_allclose([entry["logprob"] for entry in told], expected.logprobs)
    assert all(entry["token"] == decode([entry["id"]]) for entry in told)
    assert [len(entry["top"]) for entry in told] == [2] * len(told)


def test_log_probabilities_can_come_without_alternatives(answer, out):
    answer(logprobs=0)
    assert set(lines_of(out)[0]["logprobs"][0]) == {"id", "token", "logprob"}


def test_without_being_asked_for_there_are_none(answer, out):
    answer()
    assert "logprobs" not in lines_of(out)[0]


def test_long_prompts_come_first_inside(answer, out, monkeypatch):
    """Which shows in the journal that a kill leaves."""
    with pytest.raises(KeyboardInterrupt):
        answer(batch_size=1, report=interrupting_after(2))
    left = lines_of(out.with_name("out.jsonl.part"))
    assert [line["prompt"] for line in left[1:]] == [PROMPTS[2], PROMPTS[4]]


def test_progress_is_told(answer):
    heard = []
    answer(report=heard.append)
    assert [(progress.done, progress.total) for progress in heard] == [(n, 5) for n in range(1, 6)]


# --- going on ---


def interrupting_after(count):
    def report(progress):
        if progress.done == count:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("done", range(1, 6))
def test_an_interrupted_call_goes_on_and_writes_the_same_file(answer, out, tmp_path, done):
    answer(samples=1, batch_size=2)
    whole = out.read_bytes()
    out.unlink()
    with pytest.raises(KeyboardInterrupt):
        answer(batch_size=2, report=interrupting_after(done))
    assert not out.exists()
    written = answer(batch_size=2)
    assert out.read_bytes() == whole
    assert (written.texts, written.found) == (5, done)
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_seed_that_was_drawn_is_kept_when_going_on(answer, out):
    with pytest.raises(KeyboardInterrupt):
        answer(sampling=SamplingConfig(), report=interrupting_after(1))
    written = answer(sampling=SamplingConfig())
    assert {line["seed"] for line in lines_of(out)} == {written.seed}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sampling": SamplingConfig(seed=8)}, "seed 7, now it is 8"),
        ({"sampling": SamplingConfig(seed=7, top_k=3)}, "top_k 0, now it is 3"),
        ({"stop": StopConfig(max_new_tokens=7)}, "max_new_tokens 6, now it is 7"),
        ({"samples": 2}, "samples 1, now it is 2"),
        ({"prompts": ["another"]}, "prompts"),
        ({"logprobs": 0}, "logprobs None, now it is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_do_not_mix_with_those_it_was_begun_with(answer, out, changed, named):
    with pytest.raises(KeyboardInterrupt):
        answer(report=interrupting_after(2))
    before = out.with_name("out.jsonl.part").read_bytes()
    with pytest.raises(DataError, match=named):
        answer(**changed)
    assert out.with_name("out.jsonl.part").read_bytes() == before


def test_another_batch_size_is_no_other_setting(answer):
    with pytest.raises(KeyboardInterrupt):
        answer(report=interrupting_after(2))
    assert answer(batch_size=1).texts == 5


def test_what_is_finished_is_not_overwritten(answer, out):
    answer()
    with pytest.raises(DataError, match="is there already"):
        answer()


def test_another_model_of_the_same_name_is_noticed(model, out, tmp_path):
    """The shape, the vocabulary and the names of all tensors stay; one bias changes."""
    place = tmp_path / "story"
    shutil.copytree(model, place, ignore=shutil.ignore_patterns("*_*", "sharded"))

    def answer(report=silent):
        asked = [Asked(prompt) for prompt in PROMPTS]
        generate_file(place, asked, out, sampling=SEEDED, stop=SHORT, engine="reference", report=report)

    with pytest.raises(KeyboardInterrupt):
        answer(interrupting_after(2))
    tensors = safetensors.numpy.load_file(place / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("h.1.mlp.c_fc.bias"))
    safetensors.numpy.save_file(tensors | {name: tensors[name] + 1e-3}, place / "model.safetensors")
    with pytest.raises(DataError, match=r"was begun with model \(sha256\)"):
        answer()
    safetensors.numpy.save_file(tensors, place / "model.safetensors")
    answer()
    assert len(lines_of(out)) == len(PROMPTS)


def test_another_adapter_of_the_same_name_is_noticed(model, golden, out, tmp_path):
    """An adapter leaves biases as they are, which tell other models apart."""
    place = shutil.copytree(golden / "peft" / "c_attn", tmp_path / "poet")

    def answer(report=silent):
        asked = [Asked(prompt) for prompt in PROMPTS]
        generate_file(f"{model}+{place}", asked, out, sampling=SEEDED, stop=SHORT, engine="reference", report=report)

    with pytest.raises(KeyboardInterrupt):
        answer(interrupting_after(2))
    file = place / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({name: tensor * 2 for name, tensor in tensors.items()}, file)
    with pytest.raises(DataError, match=r"was begun with model \(sha256\)"):
        answer()
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    answer()
    assert len(lines_of(out)) == len(PROMPTS)


def test_the_same_model_in_another_place_goes_on(model, answer, out, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        answer(report=interrupting_after(2))
    place = shutil.copytree(model, tmp_path / "moved")
    asked = [Asked(prompt) for prompt in PROMPTS]
    assert generate_file(place, asked, out, sampling=SEEDED, stop=SHORT, engine="reference").found == 2


def test_a_mistake_that_only_the_model_finds_leaves_nothing_behind(answer, out, tmp_path):
    with pytest.raises(RequestError, match="no token id 320"):
        answer(sampling=SamplingConfig(seed=7, banned_ids=(320,)))
    assert os.listdir(tmp_path) == []
    assert answer().texts == len(PROMPTS)


@pytest.mark.slow
def test_kills_at_any_moment_lose_no_finished_text(model, out, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"{number} and the" for number in range(400)), encoding="utf-8")
    words = ("--prompts", prompts, "--model", model, "--engine", "reference", "--seed", "1", "--length", "12")
    command = [sys.executable, "-m", "gpt2kit", "generate", *map(str, words), "--out"]
    part = out.with_name("out.jsonl.part")
    finished = 0
    for wait in (0.05, 0.2, 0.4):
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL)
        while process.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") <= finished + 1):
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not out.exists():
            before, finished = finished, part.read_bytes().count(b"\n")
            assert finished > before
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "whole.jsonl")], check=True, capture_output=True)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_two_at_once_are_refused(answer):
    def second_call(progress):
        if progress.done == 1:
            with pytest.raises(RunLocked, match="another process"):
                answer()

    answer(report=second_call)


# --- what is asked ---


def test_a_text_file_holds_a_prompt_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes('\ufeffThe cat \r\n\n  \n{"prompt": 1}\n月'.encode())
    found = read_prompts(path)
    assert [asked.prompt for asked in found] == ["The cat ", '{"prompt": 1}', "月"]


def test_a_jsonl_file_holds_an_object_a_line_and_other_fields_are_kept(tmp_path, model, out):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "x", "prompt": "two\\nlines"}\n\n{"prompt": "", "n": [1]}\n', encoding="utf-8")
    found = read_prompts(path)
    assert [(asked.prompt, asked.beside) for asked in found] == [("two\nlines", {"id": "x"}), ("", {"n": [1]})]
    generate_file(model, found, out, sampling=SEEDED, stop=SHORT, engine="reference")
    assert [(line.get("id"), line.get("n")) for line in lines_of(out)] == [("x", None), (None, [1])]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.txt", b"\n \n", "holds no prompt"),
        ("p.txt", b"caf\xe9", "UTF-8"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": ', "line 2: not JSON"),
        ("p.jsonl", b'["a"]', "line 1: expected an object"),
        ("p.jsonl", b'{"text": "a"}', 'line 1: expected an object with a text "prompt"'),
        ("p.jsonl", b'{"prompt": 3}', 'line 1: expected an object with a text "prompt"'),
        ("p.jsonl", b'{"prompt": "\\ud83d"}', "line 1: half a character"),
        ("p.jsonl", b'{"prompt": "a", "\\ud83d": 1}', "line 1: half a character"),
        ("p.jsonl", b'{"prompt": "a", "n": NaN}', "line 1: not JSON"),
        ("p.jsonl", b'{"prompt": "a", "n": 1e999}', "line 1: not JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("p.jsonl", b'{"prompt": "a", "text": "b"}', "line 1: the field 'text' is one that the output has"),
    ],
)
def test_prompts_that_are_none_are_refused_where_they_stand(tmp_path, name, content, named):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=named):
        read_prompts(tmp_path / name)


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"nowhere.txt: cannot be read: No such file"):
        read_prompts(Path("nowhere.txt"))


def test_a_prompt_that_does_not_fit_is_found_before_anything_is_written(model, tmp_path, out):
    path = tmp_path / "prompts.txt"
    path.write_text("short\n\n" + "long " * 60, encoding="utf-8")
    with pytest.raises(PromptTooLong, match=r"line 3: .* window of 56"):
        generate_file(
            model, read_prompts(path), out, stop=StopConfig(overflow="error", max_new_tokens=9), engine="reference"
        )
    assert os.listdir(tmp_path) == ["prompts.txt"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 to 4,096, got 0"),
        ({"batch_size": 10**11}, "batch_size must be 1 to 4,096, got 100,000,000,000"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_out_is_refused(answer, changed, told):
    with pytest.raises(ConfigError, match=told):
        answer(**changed)
