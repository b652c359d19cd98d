"""The lines, defaults and errors of OpenAI's three programs. What stands between is the library's own text."""

import io
import signal
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError, ModelNotFound
from gpt2kit.hub.catalogue import KnownFile, KnownModel
from gpt2kit.jobs.load import load
from gpt2kit.legacy.openai import download_model, generate_unconditional_samples, interactive_conditional_samples

FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001"),
    *("model.ckpt.index", "model.ckpt.meta", "vocab.bpe"),
)
CATALOGUE = (KnownModel("355M", "maker/tiny", ("345M",), 103_344, tuple(map(KnownFile, FILES))),)
PROMPT = "Model prompt >>> "


def header(number):
    return "=" * 40 + f" SAMPLE {number} " + "=" * 40 + "\n"


@pytest.fixture
def texts(have):
    """What the Python API writes with models/124M, for seed 7 and by OpenAI's rules."""
    place = have("124M")

    def texts(prompt, samples, tokens, **settings):
        with load(place) as generator:
            sampling = SamplingConfig(chain="openai", seed=7, **settings)
            stop = StopConfig(max_new_tokens=tokens, ignore_end=True)
            return [made.text for made in generator.generate(prompt, samples=samples, sampling=sampling, stop=stop)]

    return texts


@pytest.fixture
def unconditional(capsys):
    """Standard output of generate_unconditional_samples.py."""

    def run(*words):
        assert generate_unconditional_samples(words) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def interactive(capsys, monkeypatch):
    """Standard output of interactive_conditional_samples.py, with this typed."""

    def run(*words, typed):
        with io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert interactive_conditional_samples(words) == 0
        return capsys.readouterr().out

    return run


# --- generate_unconditional_samples.py ---


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_samples_are_numbered_from_1_whatever_the_batch(unconditional, texts, batch_size):
    """There, batches of 2 made half of the samples, numbered 2 and 4."""
    written = texts(None, 4, 5)
    out = unconditional("--nsamples", "4", "--batch_size", str(batch_size), "--length=5", "--seed", "7")
    assert out == "".join(f"{header(number)}{text}\n" for number, text in enumerate(written, 1))


def test_without_a_length_a_sample_fills_the_window(unconditional, texts):
    """The window is 64."""
    (written,) = texts(None, 1, 64)
    assert unconditional("--nsamples", "1", "--seed", "7") == f"{header(1)}{written}\n"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--top_k", "3"], {"top_k": 3}),
        (["--top_p", "0.5", "--top_k", "9"], {"top_p": 0.5, "top_k": 9}),
        (["--temperature", "0"], {"temperature": 0.0}),
        (["--temperature", "0.7"], {"temperature": 0.7}),
    ],
    ids=" ".join,
)
def test_the_flags_of_sampling_are_openais(unconditional, texts, words, settings):
    (written,) = texts(None, 1, 9, **settings)
    assert unconditional("--nsamples", "1", "--length", "9", "--seed", "7", *words) == f"{header(1)}{written}\n"


def test_a_longer_sample_than_the_window_is_refused_with_the_old_words(have):
    have("124M")
    with pytest.raises(ConfigError, match=r"^Can't get samples longer than window size: 64$"):
        generate_unconditional_samples(["--nsamples", "1", "--length", "65"])


@pytest.mark.parametrize("words", [["--nsamples", "-1"], ["--batch_size", "0"], ["--length", "0"]], ids=" ".join)
def test_impossible_numbers_are_refused(have, words):
    have("124M")
    with pytest.raises(ConfigError, match=words[0].removeprefix("--")):
        generate_unconditional_samples(words)


def test_models_dir_may_name_a_variable(unconditional, have, here, monkeypatch):
    have("117M")
    (here / "models").rename(here / "kept")
    monkeypatch.setenv("KEPT", str(here / "kept"))
    words = ("--nsamples", "1", "--length", "3")
    assert unconditional(*words, "--models_dir", "$KEPT", "--model_name", "117M").startswith(header(1))


def test_a_run_is_written_with_as_it_is(unconditional, have, here):
    """There, its files had to be renamed and to take the place of the model's."""
    place = have("124M")
    (here / "checkpoint").mkdir()
    place.rename(here / "checkpoint" / "run1")
    assert unconditional("--nsamples", "1", "--length", "3", "--model_name", "run1").startswith(header(1))


def test_models_come_before_runs(unconditional, have, here):
    """As there: a name meant a directory of models/."""
    have("run1")
    (here / "checkpoint" / "run1").mkdir(parents=True)
    assert unconditional("--nsamples", "1", "--length", "3", "--model_name", "run1").startswith(header(1))


def test_a_missing_model_names_the_old_line_that_gets_it():
    with pytest.raises(ModelNotFound, match=r"^models/345M: .*: gpt2 legacy download_model\.py 345M$"):
        generate_unconditional_samples(["--model_name", "345M"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_samples_without_end_end_quietly_with_ctrl_c(have):
    have("124M")
    words = [sys.executable, "-m", "gpt2kit", "legacy", "generate_unconditional_samples.py", "--length", "3"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while header(3).encode() not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, b"gpt2: interrupted")


# --- interactive_conditional_samples.py ---


def test_prompts_are_answered_until_the_input_ends(interactive, texts):
    written = texts("The cat", 2, 5)
    out = interactive("--nsamples", "2", "--batch_size", "2", "--length", "5", "--seed", "7", typed="\nThe cat\n")
    answers = "".join(f"{header(number)}{text}\n" for number, text in enumerate(written, 1))
    assert out == f"{PROMPT}Prompt should not be empty!\n{PROMPT}{answers}{'=' * 80}\n{PROMPT}\n"


def test_without_a_length_an_answer_has_half_the_window(interactive, texts):
    (written,) = texts("The cat", 1, 32)
    assert f"{header(1)}{written}\n" in interactive("--seed", "7", typed="The cat\n")


def test_a_prompt_longer_than_the_window_is_no_crash(interactive, have):
    have("124M")
    assert "=" * 80 in interactive("--batch_size", "None", typed="The cat sat on the mat. " * 40 + "\n")


def test_uneven_batches_are_refused(have):
    have("124M")
    with pytest.raises(ConfigError, match="nsamples must be a multiple of batch_size, got 3 and 2"):
        interactive_conditional_samples(["--nsamples", "3", "--batch_size", "2"])


def test_an_answer_longer_than_the_window_is_refused_before_the_first_prompt(have, capsys):
    have("124M")
    with pytest.raises(ConfigError, match="Can't get samples longer than window size: 64"):
        interactive_conditional_samples(["--length", "65"])
    assert capsys.readouterr().out == ""


# --- download_model.py ---


class Silent(SimpleHTTPRequestHandler):
    """Static files, as any web server would serve them."""

    def log_message(self, *_):
        pass


@pytest.fixture
def store(have, here):
    """The address of a store that has the model 355M."""
    have("355M")
    (here / "store").mkdir()
    (here / "models").rename(here / "store" / "models")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=here / "store"))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["345M", "355M"])
def test_a_model_comes_as_seven_files_with_a_bar_for_each(store, here, capsys, name):
    assert download_model([name], catalogue=CATALOGUE, endpoint=store) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [file for file in FILES if f"Fetching {file}: 100%" in err] == list(FILES)
    assert sorted(path.name for path in (here / "models" / name).iterdir() if path.name[0] != ".") == sorted(FILES)


def test_what_is_there_is_not_fetched_again(store, capsys):
    download_model(["345M"], catalogue=CATALOGUE, endpoint=store)
    capsys.readouterr()
    assert download_model(["345M"], catalogue=CATALOGUE, endpoint="http://127.0.0.1:1") == 0
    assert capsys.readouterr().out == "models/345M: 7 files, all there; nothing fetched\n"


@pytest.mark.parametrize("words", [[], ["117M", "345M"]], ids=["none", "two"])
def test_one_name_is_wanted(words, here, capsys):
    assert download_model(words) == 1
    said = "You must enter the model name as a parameter, e.g.: download_model.py 124M\n"
    assert capsys.readouterr().out == said
    assert not (here / "models").exists()


def test_an_unknown_name_leaves_nothing(here):
    """There, the server's complaint was kept as the model's files."""
    with pytest.raises(ModelNotFound, match="no model is called '346M': did you mean '345M'"):
        download_model(["346M"])
    assert not (here / "models").exists()
