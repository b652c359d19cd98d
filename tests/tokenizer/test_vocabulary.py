import json
import re

import pytest
from tokenizers import Tokenizer

from gpt2kit.errors import FormatError
from gpt2kit.tokenizer.byte_level import ByteLevelBPE
from gpt2kit.tokenizer.vocabulary import read_vocabulary, vocabulary_files

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def files(golden):
    """A vocabulary of 320 tokens in all its files, written by transformers."""
    directory = golden / "hf-safetensors"
    return {name: (directory / name).read_bytes() for name in ("vocab.json", "merges.txt", "tokenizer.json")}


@pytest.fixture(scope="module")
def ids(files):
    return json.loads(files["vocab.json"])


@pytest.fixture
def whole(files):
    """The content of tokenizer.json, to be damaged."""
    return json.loads(files["tokenizer.json"])


def old_pair(ids, merges):
    return {"vocab.json": json.dumps(ids).encode(), "merges.txt": merges}


def one_file(whole):
    return {"tokenizer.json": json.dumps(whole).encode()}


def openai_layout(files):
    return {"encoder.json": files["vocab.json"], "vocab.bpe": files["merges.txt"]}


def hugging_face_layout(files):
    return {name: files[name] for name in ("vocab.json", "merges.txt")}


def single_file_layout(files):
    return {"tokenizer.json": files["tokenizer.json"]}


def older_single_file_layout(files):
    """Before tokenizers 0.20 a merge was one text."""
    whole = json.loads(files["tokenizer.json"])
    whole["model"]["merges"] = [" ".join(merge) for merge in whole["model"]["merges"]]
    return one_file(whole)


LAYOUTS = [openai_layout, hugging_face_layout, single_file_layout, older_single_file_layout]


# --- reading ---


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_holds_the_same_tokens(files, ids, layout):
    assert read_vocabulary(layout(files), "here").ids == ids


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_encodes_alike(golden, files, layout):
    tokenizer = ByteLevelBPE(read_vocabulary(layout(files), "here"))
    expected = json.loads((golden / "hf-safetensors" / "encodings.json").read_text("utf-8"))
    assert [tokenizer.encode(case["text"], special=True) for case in expected] == [case["ids"] for case in expected]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_knows_the_end_token(files, layout):
    assert read_vocabulary(layout(files), "here").end_id == 319


def test_the_tokenizer_of_transformers_5_is_read(golden, ids):
    content = (golden / "hf-v5" / "tokenizer.json").read_bytes()
    assert read_vocabulary({"tokenizer.json": content}, "hf-v5").ids == ids


def test_a_vocabulary_written_for_people_to_read_is_the_same(files, ids):
    pretty = json.dumps(ids, indent=2, ensure_ascii=False).encode()
    assert read_vocabulary({"encoder.json": pretty, "vocab.bpe": files["merges.txt"]}, "here").ids == ids


def test_merges_without_a_version_line_lose_none(files):
    version, _, rest = files["merges.txt"].partition(b"\n")
    assert version.startswith(b"#version")
    with_version = read_vocabulary(hugging_face_layout(files), "here").merges
    assert read_vocabulary({"vocab.json": files["vocab.json"], "merges.txt": rest}, "here").merges == with_version


def test_tokens_added_later_are_encoded_as_by_hugging_face(whole):
    whole["added_tokens"].append({**whole["added_tokens"][0], "id": 320, "content": "<|startoftext|>"})
    tokenizer, judge = ByteLevelBPE(read_vocabulary(one_file(whole), "here")), Tokenizer.from_str(json.dumps(whole))
    text = "<|startoftext|>Hello<|startoftext|><|endoftext|>"
    assert tokenizer.encode(text, special=True) == judge.encode(text).ids


def test_the_longest_added_token_wins_as_with_hugging_face(whole):
    pattern = whole["added_tokens"][0]
    whole["added_tokens"] += [{**pattern, "id": 320, "content": "<|a"}, {**pattern, "id": 321, "content": "<|a|>"}]
    tokenizer, judge = ByteLevelBPE(read_vocabulary(one_file(whole), "here")), Tokenizer.from_str(json.dumps(whole))
    assert tokenizer.encode("b<|a|>b", special=True) == judge.encode("b<|a|>b").ids


# --- refusing the old pair ---


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("tok_duplicate_ids", r"encoder\.json: tokens .* share the id 11$"),
        ("tok_vocab_bpe_bad_merge", r"vocab\.bpe: merge \d+ \(notoken alsonot\) needs the token 'notoken'"),
    ],
)
def test_damaged_files_are_refused(shared, case, problem):
    damaged = {name: (shared / "fixtures/bad" / case / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    with pytest.raises(FormatError, match=problem):
        read_vocabulary(damaged, case)


@pytest.mark.parametrize(
    "names",
    [(), ("vocab.json",), ("merges.txt",), ("vocab.json", "vocab.bpe")],
    ids=["nothing", "no merges", "no ids", "halves of two"],
)
def test_half_a_vocabulary_is_none(files, names):
    halves = {name: files["merges.txt" if name == "vocab.bpe" else name] for name in names}
    with pytest.raises(
        FormatError, match=r"^here: no vocabulary; (expected|.*is missing beside) .*; copy it from the model"
    ):
        read_vocabulary(halves, "here")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b'{"a": 1'])
def test_what_is_not_json_is_refused(files, content):
    with pytest.raises(FormatError, match=r"^here/vocab\.json: not JSON: "):
        read_vocabulary({"vocab.json": content, "merges.txt": files["merges.txt"]}, "here")


def test_a_list_of_tokens_is_refused(files, ids):
    with pytest.raises(FormatError, match=r"^here/vocab\.json: a JSON list; expected an object$"):
        read_vocabulary(old_pair(list(ids), files["merges.txt"]), "here")


@pytest.mark.parametrize("id", [-1, 1.5, "5", None, True])
def test_an_id_that_is_no_whole_number_is_refused(files, ids, id):
    with pytest.raises(FormatError, match=r"expected an object from tokens to ids, whole numbers from 0$"):
        read_vocabulary(old_pair({**ids, "!": id}, files["merges.txt"]), "here")


def test_two_tokens_of_one_id_are_named(files, ids):
    with pytest.raises(FormatError, match=r"tokens '!' and '#' share the id 0$"):
        read_vocabulary(old_pair({**ids, "#": 0}, files["merges.txt"]), "here")


def test_a_missing_byte_is_named(files, ids):
    # U+0100 spells the byte 0.
    without = {token: id for token, id in ids.items() if token != "\u0100"}
    with pytest.raises(
        FormatError, match=r"^here: 1 of the 256 byte tokens are missing from the vocabulary, such as 'Ā'"
    ):
        read_vocabulary(old_pair(without, files["merges.txt"]), "here")


def test_a_vocabulary_without_an_end_token_is_refused(files, ids):
    without = {token: id for token, id in ids.items() if token != END}
    with pytest.raises(FormatError, match=r"^here: the vocabulary has no <\|endoftext\|> token$"):
        read_vocabulary(old_pair(without, files["merges.txt"]), "here")


def test_a_token_outside_the_byte_alphabet_is_refused(files, ids):
    with pytest.raises(FormatError, match="token '你' is not spelled in the byte alphabet and not declared special"):
        read_vocabulary(old_pair({**ids, "你": 400}, files["merges.txt"]), "here")


@pytest.mark.parametrize("line", ["alone", "Ġ t h"])
def test_a_merge_of_other_than_two_tokens_is_refused(files, ids, line):
    with pytest.raises(
        FormatError, match=rf"^here/merges\.txt: merge 2 is {re.escape(repr(line.split()))}; expected two tokens$"
    ):
        read_vocabulary(old_pair(ids, f"#version: 0.2\n{line}\n".encode()), "here")


def test_merges_whose_ids_do_not_rise_are_refused(files, ids):
    lines = files["merges.txt"].decode().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    with pytest.raises(FormatError, match="the ids of merged tokens do not rise in the order of the merges"):
        read_vocabulary(old_pair(ids, "\n".join(lines).encode()), "here")


# --- refusing the single file ---


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "WordLevel", None])
def test_another_kind_of_model_is_refused(whole, kind):
    whole["model"]["type"] = kind
    with pytest.raises(FormatError, match=f"the tokenizer's model is {kind!r}; expected 'BPE', GPT-2's"):
        read_vocabulary(one_file(whole), "here")


@pytest.mark.parametrize(
    "damage",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    ],
    ids=["normalised", "not split", "split otherwise", "with a space put before"],
)
def test_text_prepared_otherwise_is_refused(whole, damage):
    with pytest.raises(FormatError, match="the text is prepared otherwise than GPT-2's"):
        read_vocabulary(one_file({**whole, **damage}), "here")


def test_text_that_is_not_split_is_refused(whole):
    whole["pre_tokenizer"]["use_regex"] = False
    with pytest.raises(FormatError, match="the text is prepared otherwise than GPT-2's"):
        read_vocabulary(one_file(whole), "here")


@pytest.mark.parametrize(
    "damage",
    [
        {"pre_tokenizer": "ByteLevel"},
        {"added_tokens": None},
        {"added_tokens": ["<|endoftext|>"]},
        {"added_tokens": [{"content": END}]},
        {"added_tokens": [{"content": [END], "id": 319}]},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": None}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [5]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", ["a"]]]}},
    ],
    ids=str,
)
def test_parts_of_the_wrong_type_are_refused(whole, damage):
    with pytest.raises(FormatError):
        read_vocabulary(one_file({**whole, **damage}), "here")


def test_json_too_deep_to_read_is_refused(whole):
    with pytest.raises(FormatError):
        read_vocabulary({"tokenizer.json": b"[" * 100_000}, "here")


# --- as OpenAI's two files ---


@pytest.mark.parametrize("layout", [openai_layout, hugging_face_layout])
def test_stored_files_are_handed_on_byte_for_byte(files, layout):
    assert vocabulary_files(layout(files), "here") == (files["vocab.json"], files["merges.txt"])


@pytest.mark.parametrize("layout", [single_file_layout, older_single_file_layout])
def test_a_single_file_is_taken_apart_into_what_transformers_writes(files, layout):
    ids, merges = vocabulary_files(layout(files), "here")
    assert json.loads(ids) == json.loads(files["vocab.json"])
    assert merges.decode().splitlines()[1:] == files["merges.txt"].decode().splitlines()[1:]


@pytest.mark.parametrize("damage", [lambda text: text.rstrip(b"\n"), lambda text: text.split(b"\n", 1)[1]])
def test_openais_reader_finds_every_merge(files, damage):
    """It drops the first line, and what follows the last line break: github.com/openai/gpt-2/src/encoder.py."""
    merges = vocabulary_files(files | {"merges.txt": damage(files["merges.txt"])}, "here")[1].decode()
    assert merges.split("\n")[1:-1] == files["merges.txt"].decode().split("\n")[1:-1]


def test_an_end_token_that_was_noted_elsewhere_joins_the_vocabulary(files, ids):
    apart = {token: id for token, id in ids.items() if token != END}
    stored = {"vocab.json": json.dumps(apart).encode(), "merges.txt": files["merges.txt"]}
    stored["added_tokens.json"] = json.dumps({END: ids[END]}).encode()
    assert json.loads(vocabulary_files(stored, "here")[0]) == ids
