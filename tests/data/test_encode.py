import errno
import itertools
import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.config.reading import ReadingConfig
from gpt2kit.data import shard_writer
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.data.npz import encode_to_npz
from gpt2kit.data.shards import open_shards
from gpt2kit.errors import ConfigError, DataError, FormatError, RunLocked

END = "<|endoftext|>"


@pytest.fixture
def encode(here, tiny):
    """Encode inputs into the directory `out` with a vocabulary of 320 tokens."""

    def run(*inputs, into="out", workers=2, overwrite=False, report=lambda progress: None, **reading):
        return encode_to_shards(
            inputs,
            tiny,
            here / into,
            reading=ReadingConfig(**reading),
            workers=workers,
            overwrite=overwrite,
            report=report,
        )

    return run


@pytest.fixture
def prose(write):
    """Texts that fill several parcels and end anywhere."""
    write("prose/a.txt", "The cat sat on the mat.\n" * 30_000)
    write("prose/b.jsonl", "\n".join(json.dumps({"text": f"line {number}, 床前明月光"}) for number in range(5000)))
    write("prose/c.txt", " \n" * 50_000 + "x" * 300_000)
    return "prose"


def ids_of(shards):
    return shards.take(np.arange(shards.total)).tolist()


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def left_over(here):
    return sorted(path.name for path in here.iterdir() if path.name.startswith(".") or path.name == "out")


# --- what comes out ---


def test_the_end_token_stands_behind_every_document(encode, write, tiny):
    write("a.txt", "the cat")
    write("b.txt", "the dog")
    shards = encode("a.txt", "b.txt")
    assert ids_of(shards) == [*tiny.encode("the cat"), 319, *tiny.encode("the dog"), 319]
    assert shards.ends.tolist() == [len(tiny.encode("the cat")) + 1, shards.total]
    assert (shards.vocab_size, shards.end_id, shards.text_bytes) == (320, 319, 14)


@pytest.mark.parametrize("separator", ["", "\n\n", "<|startoftext|>"])
def test_another_separator_is_text(encode, write, tiny, separator):
    write("a.jsonl", '{"text": "one"}\n{"text": "two"}')
    between = tiny.encode(separator)
    assert ids_of(encode("a.jsonl", separator=separator)) == [
        *tiny.encode("one"),
        *between,
        *tiny.encode("two"),
        *between,
    ]


def test_an_end_token_written_in_a_text_stays_text(encode, write, tiny):
    write("a.txt", f"one{END}two")
    assert ids_of(encode("a.txt")) == [*tiny.encode(f"one{END}two"), 319]
    assert ids_of(encode("a.txt", into="cut", split_on=END)) == [*tiny.encode("one"), 319, *tiny.encode("two"), 319]


@pytest.mark.slow
def test_long_texts_are_encoded_as_in_one_go(encode, prose, here, tiny):
    texts = [(here / "prose/a.txt").read_text("utf-8")]
    texts += [json.loads(line)["text"] for line in (here / "prose/b.jsonl").read_text("utf-8").splitlines()]
    texts += [(here / "prose/c.txt").read_text("utf-8")]
    expected = [id for text in texts for id in (*tiny.encode(text), 319)]
    shards = encode(prose)
    assert ids_of(shards) == expected
    assert shards.ends.size == 5002


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_how_many_work_changes_nothing(encode, prose, here, workers):
    encode(prose)
    encode(prose, into="again", workers=workers)
    assert files_of(here / "out") == files_of(here / "again")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [4096, 65_536])
def test_a_full_shard_is_followed_by_the_next(encode, prose, monkeypatch, limit):
    whole = ids_of(encode(prose))
    monkeypatch.setattr(shard_writer, "SHARD_TOKENS", limit)
    shards = encode(prose, into="cut")
    assert [part.size for part in shards.parts[:-1]] == [limit] * (len(shards.parts) - 1)
    assert ids_of(shards) == whole


def test_a_last_shard_may_be_full(encode, write, monkeypatch, tiny):
    monkeypatch.setattr(shard_writer, "SHARD_TOKENS", 4)
    write("a.txt", "abc")
    assert len(tiny.encode("abc")) == 3
    assert [part.size for part in encode("a.txt").parts] == [4]


@pytest.mark.slow
def test_ids_are_as_narrow_as_the_vocabulary_allows(encode, write, openai, here):
    write("a.txt", "Hello world")
    assert encode("a.txt").parts[0].dtype == np.uint16
    shards = encode_to_shards(["a.txt"], openai, here / "openai")
    assert (shards.parts[0].dtype, ids_of(shards)) == (np.uint16, [15496, 995, 50256])


def test_encoded_texts_are_inputs_too(encode, write, tiny):
    write("a.txt", "the cat")
    write("b.txt", "the dog")
    np.savez("c.npz", np.array([5, 6]), np.array([7]))
    encode("a.txt", into="made")
    shards = encode("made", "b.txt", "c.npz")
    assert ids_of(shards) == [*tiny.encode("the cat"), 319, *tiny.encode("the dog"), 319, 5, 6, 7]
    assert shards.ends.tolist()[-2:] == [shards.total - 1, shards.total]
    assert shards.text_bytes == 7


def test_texts_encoded_with_another_vocabulary_are_refused(encode, write, openai, here):
    write("a.txt", "the cat")
    encode_to_shards(["a.txt"], openai, here / "made")
    with pytest.raises(DataError, match="made: encoded with another vocabulary"):
        encode("made")
    assert left_over(here) == []


def test_progress_is_told_in_bytes_of_the_inputs(encode, prose, here):
    reports = []
    shards = encode(prose, report=reports.append)
    size = sum(path.stat().st_size for path in (here / prose).iterdir())
    assert {(report.task, report.unit, report.total) for report in reports} == {("encode", "byte", size)}
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert (reports[-1].done, reports[-1].values["tokens"]) == (size, shards.total)
    assert reports[-1].values["megabytes_per_second"] > 0


def test_ids_that_were_stored_are_read_to_the_last_byte(encode, here):
    np.savez("c.npz", np.arange(300), np.arange(7))
    reports = []
    encode("c.npz", report=reports.append)
    assert reports[-1].done == reports[-1].total == (here / "c.npz").stat().st_size


@pytest.mark.parametrize("arrays", [1, 3])
def test_arrays_without_ids_are_no_text(encode, here, arrays):
    np.savez("a.npz", *[np.empty(0, np.int64)] * arrays)
    with pytest.raises(DataError, match=r"^a\.npz: the file is empty$"):
        encode("a.npz")
    assert left_over(here) == []


def test_empty_arrays_beside_others_are_passed_over(encode, here):
    np.savez("a.npz", np.empty(0, np.int64), np.arange(5), np.empty(0, np.int64))
    assert ids_of(encode("a.npz")) == [0, 1, 2, 3, 4]


# --- texts joined as encode.py joined them ---

TEXTS = st.text(st.sampled_from("ab \n中<|"), min_size=1, max_size=40)


@pytest.mark.slow
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), combine=st.integers(1, 60), data=st.data())
def test_shards_hold_what_an_npz_holds(tmp_path_factory, tiny, texts, combine, data):
    """Files and .npz in any order; arrays that come amid a text that is pending stand behind it in shards."""
    place, reading = tmp_path_factory.mktemp("combined"), ReadingConfig(combine=combine)
    for number, text in enumerate(texts):
        if stored := data.draw(st.lists(st.integers(0, 300), max_size=3)):
            np.savez(place / f"in{number}a.npz", np.array(stored))
        kind, content = data.draw(st.sampled_from([("txt", text), ("csv", f'head\n"{text}"\n')]))
        (place / f"in{number}b.{kind}").write_text(content, encoding="utf-8")
    inputs = sorted(place.iterdir())
    encode_to_npz(inputs, tiny, place / "out.npz", reading=reading)
    shards = encode_to_shards(inputs, tiny, place / "out", reading=reading)
    documents = [shards.take(np.arange(*span)).tolist() for span in itertools.pairwise([0, *shards.ends])]
    with np.load(place / "out.npz") as stored:
        arrays = [stored[name].tolist() for name in stored.files]
    assert sorted(documents) == sorted(arrays)
    if not any(path.suffix == ".npz" for path in inputs):
        assert documents == arrays


def test_stored_arrays_wait_for_the_text_that_is_pending(encode, write, tiny):
    write("a.txt", "the cat")
    np.savez("b.npz", np.array([5, 6]))
    write("c.txt", "sat on it")
    joined = tiny.encode(f"the cat{END}sat on it{END}")
    assert ids_of(encode("b.npz", "a.txt", "b.npz", "c.txt", combine=100)) == [5, 6, *joined, 5, 6]
    assert ids_of(encode("a.txt", "b.npz", "c.txt", combine=5, into="cut")) == [
        *tiny.encode("the cat"),
        *(5, 6),
        *tiny.encode("sat on it"),
    ]


def test_shards_are_no_part_of_an_npz(encode, write, tiny, here):
    write("a.txt", "the cat")
    encode("a.txt", into="made")
    with pytest.raises(DataError, match=r"made: is encoded already; for an \.npz, name the text"):
        encode_to_npz(["made"], tiny, here / "out.npz")


# --- once more ---


def test_what_is_there_already_is_opened(encode, write, here):
    write("a.txt", "the cat")
    encode("a.txt")
    before = (here / "out").stat().st_mtime_ns
    reports = []
    assert encode("a.txt", report=reports.append, overwrite=True).total == encode("a.txt").total
    assert ((here / "out").stat().st_mtime_ns, reports) == (before, [])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda here: os.utime(here / "a.txt", ns=(1, 1)), "the inputs have changed, such as a.txt"),
        (lambda here: (here / "a.txt").write_bytes(b"the cow"), "the inputs have changed, such as a.txt"),
    ],
    ids=["time", "content"],
)
def test_another_encoding_is_replaced_only_when_asked(encode, write, here, tiny, change, problem):
    write("a.txt", "the cat")
    encode("a.txt")
    change(here)
    with pytest.raises(ConfigError, match=f"out: holds encoded text already, and {problem}; .* --overwrite"):
        encode("a.txt")
    assert ids_of(encode("a.txt", overwrite=True)) == [*tiny.encode((here / "a.txt").read_text("utf-8")), 319]
    assert left_over(here) == ["out"]


def test_an_encoding_made_before_an_option_was_known_is_recognised(encode, write, here):
    write("a.txt", "the cat")
    encode("a.txt")
    manifest = json.loads((here / "out/manifest.json").read_text("utf-8"))
    for name in ("combine", "encoding"):
        del manifest["recipe"]["reading"][name]
    (here / "out/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    reports = []
    assert encode("a.txt", report=reports.append).total
    assert reports == []
    with pytest.raises(ConfigError, match="the reading options are others"):
        encode("a.txt", combine=1)


def test_other_options_or_inputs_make_another_encoding(encode, write, openai, here):
    write("a.txt", "the cat")
    write("b.txt", "the dog")
    encode("a.txt", "b.txt")
    with pytest.raises(ConfigError, match="the reading options are others"):
        encode("a.txt", "b.txt", separator="")
    with pytest.raises(ConfigError, match="there were more inputs"):
        encode("a.txt")
    with pytest.raises(ConfigError, match="the vocabulary is another"):
        encode_to_shards(["a.txt", "b.txt"], openai, here / "out")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_encoding_is_never_replaced(encode, write, here, overwrite):
    write("a.txt", "the cat")
    write("out/thesis.txt", "ten years of work")
    with pytest.raises(ConfigError, match="holds something else than encoded text"):
        encode("a.txt", overwrite=overwrite)
    with pytest.raises(ConfigError, match="holds something else"):
        encode("a.txt", into="a.txt", overwrite=overwrite)
    assert (here / "out/thesis.txt").read_text("utf-8") == "ten years of work"


def test_an_encoding_may_lie_among_its_texts(encode, write):
    write("d/a.txt", "the cat")
    assert encode("d", into="d/out").total == encode("d", into="d/out").total


def test_no_worker_can_be_less_than_none(encode, write, here):
    write("a.txt", "the cat")
    with pytest.raises(ConfigError, match="workers must be 0 or more, got -1"):
        encode("a.txt", workers=-1)


def test_an_empty_directory_is_room_enough(encode, write, here):
    write("a.txt", "the cat")
    (here / "out").mkdir()
    assert encode("a.txt").total


def test_two_cannot_write_the_same_directory(encode, write, here):
    write("a.txt", "the cat")
    (here / ".out.partial").mkdir()
    with FileLock(here / ".out.partial" / "lock"), pytest.raises(RunLocked, match="out: another process is writing it"):
        encode("a.txt")
    assert encode("a.txt").total


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "empty"), (b"a\0", "binary"), (b"good " * 400_000 + b"\xff", "not UTF-8 at byte 2000000")],
    ids=["empty", "binary", "not UTF-8"],
)
def test_a_text_that_is_refused_leaves_nothing_behind(encode, write, here, content, problem):
    write("a.txt", "good")
    write("b.txt", content)
    with pytest.raises(DataError, match=rf"^b\.txt: .*{problem}"):
        encode("a.txt", "b.txt")
    assert left_over(here) == []


def test_a_damaged_npz_leaves_nothing_behind(encode, write, here):
    write("a.npz", b"PK")
    with pytest.raises(FormatError):
        encode("a.npz")
    assert left_over(here) == []


LIMITED = """
import resource, sys
from pathlib import Path
from gpt2kit.data.encode import encode_to_shards
from gpt2kit.errors import DiskFull
from gpt2kit.jobs.encode import open_vocabulary
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    encode_to_shards([sys.argv[1]], open_vocabulary(sys.argv[2]), Path("out"))
except DiskFull as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(write, here, golden):
    """The system refuses files above a megabyte, as a disk does that is full by then."""
    write("a.txt", "床前明月光" * 400_000)
    command = [sys.executable, "-c", LIMITED, "a.txt", str(golden / "hf-safetensors")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.strerror(errno.EFBIG) in done.stdout
    assert "name a place with more" in done.stdout
    assert left_over(here) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (1_000_000, 1_000_000)


def test_the_shards_open_again(encode, prose, here):
    made = encode(prose)
    assert ids_of(open_shards(here / "out")) == ids_of(made)
