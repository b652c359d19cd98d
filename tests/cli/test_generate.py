import os
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


@pytest.mark.parametrize("option", ["--nsamples", "--batch-size"])
def test_no_samples_at_all_is_refused(generate, option):
    status, _, err = generate("x", option, "0")
    assert (status, err) == (1, f"gpt2: {option[2:].replace('-', '_')} must be 1 or more, got 0\n")


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


# --- as a program ---


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


def test_the_reference_engine_needs_no_torch(model, here):
    program = (
        "import sys\n"
        "from gpt2kit.cli.main import main\n"
        "status = main(['generate', 'x', '--model', sys.argv[1], '--engine', 'reference', '--max-new-tokens', '2'])\n"
        "print(status, sorted({'torch', 'tokenizers', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, encoding="utf-8")
    assert done.stderr.splitlines()[-1] == "0 []"
