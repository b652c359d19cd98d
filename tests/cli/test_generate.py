import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.jobs.load import load

SEPARATOR = "=" * 40


@pytest.fixture
def generate(gpt2, model):
    """gpt2 generate on the golden model and the reference engine: status, standard output, standard error."""

    def run(*words):
        return gpt2("generate", *words, "--model", model, "--engine", "reference")

    return run


@pytest.fixture
def texts(model):
    """What the Python API writes for seed 7."""
    with load(model, engine="reference") as generator:
        stop = StopConfig(max_new_tokens=12)
        found = generator.generate("The cat", samples=3, sampling=SamplingConfig(seed=7), stop=stop)
    return [completion.text for completion in found]


SEEDED = ("The cat", "--seed", "7", "--max-new-tokens", "12")


def test_one_sample_is_printed_alone(generate, texts):
    assert generate(*SEEDED) == (0, f"{texts[0]}\n", "")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_several_samples_come_in_order_with_openais_separators(generate, texts, batch_size):
    _, out, _ = generate(*SEEDED, "--nsamples", "3", "--batch-size", batch_size)
    assert out == "".join(f"{SEPARATOR} SAMPLE {n} {SEPARATOR}\n{text}\n" for n, text in enumerate(texts, 1))


def test_a_seed_that_was_drawn_is_told_beside_the_text_and_gives_it_again(generate):
    _, out, err = generate("The cat", "--max-new-tokens", "12")
    seed = err.removeprefix("seed ").strip()
    assert generate("The cat", "--max-new-tokens", "12", "--seed", seed) == (0, out, "")


def test_without_randomness_there_is_no_seed_to_tell(generate):
    _, _, err = generate("The cat", "--temperature", "0", "--max-new-tokens", "3")
    assert err == ""


def test_top_k_1_is_greedy_however_it_is_spelled(generate):
    greedy = generate("The cat", "--temperature", "0", "--max-new-tokens", "12")
    assert generate("The cat", "--top_k", "1", *SEEDED[1:]) == greedy
    assert generate("The cat", "--top-k", "1", *SEEDED[1:]) == greedy


def test_a_dash_reads_the_prompt_from_standard_input(generate, texts, monkeypatch, here):
    (here / "prompt.txt").write_text("The cat", encoding="utf-8")
    with (here / "prompt.txt").open(encoding="utf-8") as prompt:
        monkeypatch.setattr(sys, "stdin", prompt)
        assert generate("-", *SEEDED[1:])[1] == f"{texts[0]}\n"


def test_a_stop_string_ends_the_text(generate, texts):
    stop = texts[0][4:7]
    assert generate(*SEEDED, "--stop", stop)[1] == f"{texts[0].partition(stop)[0]}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("x", "--batch-size", "0"), "batch_size must be 1 to 4,096, got 0"),
        (("x", "--nsamples", "-1"), "nsamples must be 0 or more, got -1"),
        (("x", "--length", "0"), "max_new_tokens must be 1 or more, got 0"),
        (("x", "--truncate", ""), "a stop string must not be empty"),
        (("x", "--prefix", "y"), "prompt and prefix say the same; give one of them"),
        (("x", "--prompts", "p.txt", "--out", "o"), "prompt and prompts say the same; give one of them"),
        (("--prompts", "p.txt"), "--prompts needs a file to write to: --out FILE.jsonl"),
        (("x", "--logprobs", "3"), "--logprobs needs a file to write to: --out FILE.jsonl"),
        (
            ("x", "--out", "o", "--nsamples", "0"),
            "with --out, nsamples must be 1 or more: the file is whole in the end",
        ),
        (("x", "--out", "o", "--logprobs", "-1"), "logprobs must be 0 or more, got -1"),
        (("x", "--out", "o", "--sample-delim", "-"), "--out writes JSON lines; --sample-delim has no place in them"),
        (
            ("x", "--out", "o", "--include-prefix", "true"),
            "--out writes JSON lines; --include-prefix has no place in them",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(generate, here, words, told):
    assert generate(*words) == (1, "", f"gpt2: {told}\n")
    assert not list(here.iterdir())


def test_a_prompt_that_may_not_slide_is_refused(generate):
    status, _, err = generate("The cat " * 50, "--overflow", "error")
    assert status == 1
    assert "window of 56" in err


@pytest.mark.parametrize(
    "words",
    [
        ("--banned-ids", "320"),
        ("--banned-ids", "-1"),
        ("--forced-ids", "320"),
        ("--logit-bias", "320", "1"),
        ("--stop-ids", "320", "--min-new-tokens", "1"),
    ],
    ids=" ".join,
)
def test_an_id_beyond_the_vocabulary_is_refused(generate, words):
    """The model has 320 tokens, 0 to 319."""
    status, out, err = generate(*SEEDED, *words)
    assert (status, out) == (1, "")
    assert "319" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [("a\udcff",), ("--prefix", "a\udcff"), ("x", "--truncate", "a\udcff")], ids=repr)
def test_a_word_that_is_no_text_is_refused(generate, words):
    """Python gives bytes that are not UTF-8 this form."""
    status, out, err = generate(*words)
    assert (status, out) == (1, "")
    assert "is not UTF-8 text from character 2 on" in err


def test_the_word_none_is_a_prompt_like_any_other(generate):
    assert generate("None", *SEEDED[1:]) != generate(*SEEDED[1:])


def test_a_closed_standard_input_is_told(generate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert generate("-") == (1, "", "gpt2: standard input is closed; give the prompt on the command line\n")


# --- the options of the old tools, by their old names ---


def test_prefix_is_the_prompt(generate, texts):
    assert generate("--prefix", "The cat", *SEEDED[1:]) == (0, f"{texts[0]}\n", "")


def test_models_and_runs_are_found_where_the_old_options_say(gpt2, texts, model, here):
    shutil.copytree(model, here / "old" / "models" / "124M")
    words = (*SEEDED, "--engine", "reference")
    for old in ("--models_dir", "--model_dir"):
        assert gpt2("generate", *words, "--model_name", "124M", old, "old/models")[1] == f"{texts[0]}\n"
    status, _, err = gpt2("generate", *words, "--run_name", "run1", "--checkpoint_dir", "old/runs")
    assert (status, "no run of that name in old/runs/" in err) == (1, True)


def test_length_is_max_new_tokens(generate, texts):
    assert generate("The cat", "--seed", "7", "--length", "12")[1] == f"{texts[0]}\n"


def test_a_text_is_truncated_at_a_string(generate, texts):
    stop = texts[0][4:7]
    assert generate(*SEEDED, "--truncate", stop)[1] == f"{texts[0].partition(stop)[0]}\n"


@pytest.mark.parametrize(("word", "begins"), [("true", "The cat"), ("True", "The cat"), ("false", "")])
def test_the_prompt_can_be_part_of_the_text(generate, texts, word, begins):
    assert generate(*SEEDED, "--include_prefix", word)[1] == f"{begins}{texts[0]}\n"


def test_a_delimiter_can_follow_every_text_instead(generate, texts):
    _, out, _ = generate(*SEEDED, "--nsamples", "2", "--batch_size", "2", "--sample_delim", r"---\n")
    assert out == f"{texts[0]}\n---\n{texts[1]}\n---\n"


def test_one_text_has_no_delimiter(generate, texts):
    assert generate(*SEEDED, "--sample_delim", "---")[1] == f"{texts[0]}\n"


def test_texts_go_to_a_file_as_gpt_2_simple_wrote_them(generate, texts, here):
    told = "generate 1/2 texts\ngenerate 2/2 texts\n"
    assert generate(*SEEDED, "--nsamples", "2", "--destination_path", "gen.txt") == (0, "", told)
    assert (here / "gen.txt").read_text(encoding="utf-8") == "".join(f"{text}\n{'=' * 20}\n" for text in texts[:2])


def test_a_model_that_is_missing_leaves_the_file_as_it_was(gpt2, here):
    (here / "gen.txt").write_text("precious", encoding="utf-8")
    assert gpt2("generate", "x", "--model", "nowhere", "--destination_path", "gen.txt")[0] == 1
    assert (here / "gen.txt").read_text(encoding="utf-8") == "precious"


def test_a_request_that_is_refused_leaves_the_file_as_it_was(generate, here):
    (here / "gen.txt").write_text("precious", encoding="utf-8")
    assert generate("x", "--banned-ids", "320", "--destination_path", "gen.txt")[0] == 1
    assert (here / "gen.txt").read_text(encoding="utf-8") == "precious"


def test_a_file_of_prompts_is_never_its_own_output(generate, here):
    (here / "a.part").write_text("precious", encoding="utf-8")
    assert generate("--prompts", "a.part", "--out", "a.part")[0] == 1
    assert generate("--prompts", "a.part", "--out", "a")[0] == 1
    assert (here / "a.part").read_text(encoding="utf-8") == "precious"


def test_a_file_of_prompts_becomes_a_file_of_texts(generate, texts, here):
    (here / "prompts.txt").write_text("The cat\nA dog\n", encoding="utf-8")
    status, out, err = generate("--prompts", "prompts.txt", "--out", "texts.jsonl", *SEEDED[1:])
    lines = [json.loads(line) for line in (here / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == ["The cat", "A dog"]
    assert lines[0]["text"] == texts[0]
    assert (status, out) == (0, "")
    assert err.splitlines()[-1] == "texts.jsonl: 2 texts; seed 7"


def test_one_prompt_can_be_written_as_json_too(generate, texts, here):
    generate(*SEEDED, "--nsamples", "3", "--out", "texts.jsonl", "--logprobs", "1")
    lines = [json.loads(line) for line in (here / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == texts
    assert all(entry["top"] for line in lines for entry in line["logprobs"])


# --- as a program ---


@pytest.mark.slow
def test_nsamples_0_writes_until_it_is_interrupted_and_then_tells_the_seed(start, model):
    words = ("generate", "The cat", "--model", model, "--engine", "reference", "--length", "3", "--nsamples", "0")
    process = start(*words, "--batch-size", "3")
    lines = [process.stdout.readline() for _ in range(60)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert sum(line.endswith(f"SAMPLE 9 {SEPARATOR}\n".encode()) for line in lines) == 1
    assert err.decode().splitlines()[0].startswith("seed ")


@pytest.mark.slow
def test_a_file_that_is_interrupted_tells_the_next_step(start, model, here):
    (here / "prompts.txt").write_text("The cat\n" * 5000, encoding="utf-8")
    process = start("generate", "--prompts", "prompts.txt", "--out", "texts.jsonl", "--model", model)
    assert process.stderr.readline().startswith(b"generate 1/5,000 texts")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"texts.jsonl.part keeps what is finished; the same command goes on from there" in err


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(start, model):
    """As `gpt2 generate ... | head -1` does."""
    process = start(
        *("generate", "The cat", "--model", model, "--engine", "reference", "--ignore-end"),
        *("--nsamples", "200", "--batch-size", "1", "--seed", "1", "--max-new-tokens", "3"),
    )
    assert process.stdout.readline().endswith(b"SAMPLE 1 " + SEPARATOR.encode() + b"\n")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""


@pytest.mark.slow
def test_text_is_utf8_whatever_the_locale(start, model, transformers):
    ids = transformers.AutoTokenizer.from_pretrained(model)("猫🙂").input_ids
    forced = [word for id in ids for word in ("--forced-ids", id)]
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    process = start(
        *("generate", "x", "--model", model, "--engine", "reference", "--seed", "1"),
        *("--max-new-tokens", len(ids), *forced),
        **plain,
    )
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("猫🙂\n".encode(), b"")


@pytest.mark.slow
def test_a_prompt_on_standard_input_is_utf8_whatever_the_locale(model, texts, here):
    """The prompt is the same seven bytes both times, so the text is the same."""
    words = ("generate", "-", "--model", model, "--engine", "reference", "--seed", "7", "--max-new-tokens", "12")
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "gpt2kit", *words],
            input="猫 sat".encode(),
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
        ).stdout
        for encoding in ("latin-1", "utf-8")
    ]
    assert outputs[0] == outputs[1]


@pytest.mark.slow
def test_the_reference_engine_needs_no_torch(model, here):
    program = (
        "import sys\n"
        "from gpt2kit.cli.main import main\n"
        "status = main(['generate', 'x', '--model', sys.argv[1], '--engine', 'reference', '--max-new-tokens', '2'])\n"
        "print(status, sorted({'torch', 'tokenizers', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, encoding="utf-8")
    assert done.stderr.splitlines()[-1] == "0 []"


def test_an_adapter_writes_what_the_merged_model_writes(generate, gpt2, here, model, golden):
    """Peft's own merge is held against in tests/formats."""
    poet = golden / "peft" / "patterns"
    gpt2("convert", f"{model}+{poet}", "merged")
    _, merged, _ = gpt2("generate", *SEEDED, "--model", "merged", "--engine", "reference")
    assert generate(*SEEDED, "--adapter", poet) == (0, merged, "")
    assert merged != generate(*SEEDED)[1]


def test_two_adapters_are_both_added(generate, gpt2, model, golden):
    first, second = golden / "peft" / "patterns", golden / "peft" / "one_layer"
    _, both, _ = generate(*SEEDED, "--adapter", first, "--adapter", second)
    named = ("--model", f"{model}+{first}+{second}", "--engine", "reference")
    assert gpt2("generate", *SEEDED, *named) == (0, both, "")
    assert both != generate(*SEEDED, "--adapter", second)[1]


def test_an_adapter_that_is_not_there_is_named(generate, here):
    status, _, said = generate(*SEEDED, "--adapter", "nowhere")
    assert (status, said.count("\n")) == (1, 1)
    assert "nowhere: no adapter of PEFT, which is a directory with adapter_config.json and adapter_model" in said
