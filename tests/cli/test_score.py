import json
import math
import re
import sys

import pytest

from gpt2kit.cli.score import BITS, SHADES
from gpt2kit.jobs.score import score

TEXT = "The cat 猫🙂\n\tsat.\n"
COLOURED = re.compile(r"\x1b\[38;5;(\d+);48;5;(\d+)m(.*?)\x1b\[0m")


@pytest.fixture
def run(gpt2, model, here):
    """gpt2 score on TEXT with the golden model: status, standard output, standard error."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8")

    def score_file(*words, file="text.txt"):
        return gpt2("score", file, "--model", model, "--engine", "reference", *words)

    return score_file


@pytest.fixture
def tokens(model):
    """What the job says of TEXT."""
    (chunk,) = score(model, TEXT, top=2, engine="reference")
    return chunk.tokens


# --- table ---


def test_the_table_has_a_line_a_token_and_the_figures_below(run, tokens):
    status, out, err = run()
    head, *lines, gap, figures = out.splitlines()
    assert (status, err, gap) == (0, "", "")
    assert head.split() == ["position", "id", "token", "probability", "logprob", "rank"]
    for line, token in zip(lines, tokens, strict=True):
        position, id, rest = line.split(maxsplit=2)
        assert (int(position), int(id)) == (token.position, token.id)
        shown, probability, logprob, rank = re.fullmatch(r"(b?'.*') +(\S+) +(\S+) +(\d+)", rest).groups()
        assert eval(shown) in (token.content, token.content.decode(errors="replace"))
        assert float(probability) == pytest.approx(token.probability, rel=0.05, abs=6e-5)
        assert (float(logprob), int(rank)) == (pytest.approx(token.logprob, abs=6e-4), token.rank)
    mean = sum(token.logprob for token in tokens) / len(tokens)
    assert figures.startswith(f"{len(tokens)} tokens  mean logprob {mean:.3f}  perplexity {math.exp(-mean):.2f}  ")


def test_the_table_fits_80_columns(run):
    assert max(map(len, run()[1].splitlines())) <= 80


def test_white_space_and_half_characters_are_visible(run):
    out = run()[1]
    assert "'\\n'" in out
    assert "b'\\xe7'" in out


def test_alternatives_stand_beside_each_token(run, tokens):
    head, *lines = run("--top", "2")[1].splitlines()
    assert head.split()[-4:] == ["top", "1", "top", "2"]
    for line, token in zip(lines, tokens, strict=False):
        assert [float(number) for number in re.findall(r"(\d\.\d{4})(?=  |$)", line)[-2:]] == [
            pytest.approx(other.probability, abs=6e-5) for other in token.top
        ]


# --- JSON lines ---


def test_json_lines_hold_all_that_is_known_and_nothing_else_is_on_standard_output(run, tokens):
    status, out, err = run("--format", "jsonl", "--top", "2")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert err.startswith(f"{len(tokens)} tokens")
    for line, token in zip(found, tokens, strict=True):
        assert (line["position"], line["id"], line["rank"]) == (token.position, token.id, token.rank)
        assert (line["logprob"], line["probability"]) == (token.logprob, token.probability)
        assert [other["id"] for other in line["top"]] == [other.id for other in token.top]
        assert bytes(line.get("bytes", line["token"].encode())) == token.content


# --- the text itself ---


def test_the_shaded_text_is_the_text(run):
    out = run("--format", "text")[1]
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    legend, gap, rest = plain.split("\n", 2)
    assert legend.startswith("surprise in bits:")
    assert gap == ""
    assert rest.startswith(TEXT)


def test_each_token_has_the_shade_of_its_surprise(run, tokens):
    body = run("--format", "text")[1].split("\n\n", 1)[1]
    found = [(text, back) for _, back, text in COLOURED.findall(body) if text]
    shades = [re.search(r"on color\((\d+)\)", shade)[1] for shade in SHADES]

    def shade(*parts):
        return shades[sum(max(token.bits for token in parts) >= edge for edge in BITS)]

    assert found[0] == ("T", shade(tokens[0]))
    cat = next(place for place, token in enumerate(tokens) if token.content == b"\xe7")
    assert ("猫", shade(*tokens[cat : cat + 3])) in found
    assert ("🙂", shade(*tokens[cat + 3 : cat + 7])) in found


def test_without_colour_it_says_that_nothing_is_to_be_seen(run, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = run("--format", "text")
    assert out.startswith(TEXT)
    assert "NO_COLOR is set" in err


def test_what_would_command_the_terminal_is_shown_as_a_sign(run, here):
    (here / "bad.txt").write_bytes(b"a\x1b[2Jb\x07")
    out = run("--format", "text", file="bad.txt")[1]
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "a␛[2Jb␇" in plain
    assert "\x1b" not in plain


# --- what is asked ---


def test_a_dash_reads_standard_input(run, here, monkeypatch):
    with (here / "text.txt").open(encoding="utf-8") as text:
        monkeypatch.setattr(sys, "stdin", text)
        assert run(file="-") == run()


@pytest.mark.parametrize(
    ("words", "content", "told"),
    [
        ((), b"", "the file is empty"),
        ((), b"caf\xe9", "UTF-8"),
        (("--format", "text", "--top", "1"), b"x", "format text has no place for top; take table or jsonl"),
        (("--top", "-1"), b"x", "top must be 0 or more, got -1"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(run, here, words, content, told):
    (here / "other.txt").write_bytes(content)
    status, out, err = run(*words, file="other.txt")
    assert (status, out) == (1, "")
    assert told in err
    assert err.count("\n") == 1


def test_a_long_text_shows_progress_beside_the_table(run, here):
    (here / "long.txt").write_text("the cat sat. " * 100, encoding="utf-8")
    _, out, err = run(file="long.txt")
    assert err.splitlines()[-1].startswith("score ")
    assert "score " not in out


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(start, model, here):
    (here / "long.txt").write_text("the cat sat. " * 3000, encoding="utf-8")
    process = start("score", "long.txt", "--model", model, "--engine", "reference")
    assert process.stdout.readline().startswith(b"position")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in process.stderr.read()
