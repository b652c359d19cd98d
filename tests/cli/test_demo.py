import re
import shlex
from dataclasses import replace

import pytest

from gpt2kit.cli.main import COMMANDS
from gpt2kit.jobs import demo as demo_module


@pytest.fixture
def shown(gpt2, monkeypatch):
    """What the demo prints after three steps of training, and what it prints when called again."""
    short = replace(demo_module.TRAINING, steps=3, batch_size=2, validate_every=3)
    monkeypatch.setattr(demo_module, "TRAINING", short)
    return [gpt2("demo")[:2] for _ in range(2)]


@pytest.mark.slow
def test_the_demo_shows_samples_figures_and_what_to_try_next(shown, gpt2, here):
    (status, first), (status_again, second) = shown
    assert (status, status_again) == (0, 0)
    assert re.findall(r"SAMPLE (\d)", first) == ["1", "2", "3"]
    assert re.search(r"^run +checkpoint/demo, step 3, validation loss \d\.\d{3}$", first, re.MULTILINE)
    assert re.search(r"perplexity [\d.]+ a token, \d\.\d{3} bits a byte", first)
    assert (here / "checkpoint" / "demo" / "loss.png").is_file()
    assert second.startswith("found a trained model in checkpoint/demo")
    assert second.partition("\n")[2] == first
    tries = [shlex.split(line)[1:] for line in first.splitlines() if line.startswith("  gpt2 ")]
    assert len(tries) == 3
    (here / "YOUR.txt").write_text("The cat sat on the mat. " * 50, encoding="utf-8")
    for words in tries:
        assert words[0] in COMMANDS
        shorter = {"generate": ["--max-new-tokens", "2"], "finetune": ["--steps", "1"]}.get(words[0], [])
        assert gpt2(*words, *shorter)[0] == 0, words
