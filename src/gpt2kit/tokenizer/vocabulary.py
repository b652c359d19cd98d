"""Vocabulary files: encoder.json + vocab.bpe (OpenAI), vocab.json + merges.txt or tokenizer.json (Hugging Face).

encoder.json = vocab.json   {"token": id}, tokens spelled in the byte alphabet, special tokens as they are
vocab.bpe = merges.txt      a version line, then one merge a line: "left right", most frequent first
tokenizer.json              {"model": {"type": "BPE", "vocab", "merges"}, "added_tokens", "pre_tokenizer", ...};
                            merges are "left right" (before tokenizers 0.20) or ["left", "right"]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from gpt2kit.errors import FormatError
from gpt2kit.json_object import parse_object
from gpt2kit.tokenizer.byte_alphabet import BYTE_OF, spelled_bytes

END = "<|endoftext|>"
# Two names for the same bytes, OpenAI's and Hugging Face's.
PAIRS = OPENAI_PAIR, HUGGING_FACE_PAIR = ("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and merges of a byte-level BPE, checked: `read_vocabulary` is the door."""

    ids: Mapping[str, int]
    """Every token as the files spell it, special ones included."""
    merges: tuple[tuple[str, str], ...]
    special: Mapping[str, int]

    @property
    def end_id(self) -> int:
        """The id of `<|endoftext|>`."""
        return self.special[END]

    @cached_property
    def sha256(self) -> str:
        """Of all that decides which ids a text gets: equal for equal vocabularies, whatever files they came in."""
        parts = [sorted(self.ids.items()), self.merges, sorted(self.special.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def mergeable(self) -> dict[bytes, int]:
        """The 256 bytes and every merged token, with their ids."""
        tokens = [*BYTE_OF, *(left + right for left, right in self.merges)]
        return {spelled_bytes(token): self.ids[token] for token in tokens}

    def bytes_by_id(self) -> dict[int, bytes]:
        """What each id stands for."""
        spelled = {id: spelled_bytes(token) for token, id in self.ids.items() if token not in self.special}
        return spelled | {id: token.encode() for token, id in self.special.items()}


def read_vocabulary(files: Mapping[str, bytes], origin: str) -> Vocabulary:
    """The vocabulary in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    for vocab_name, merges_name in PAIRS:
        if vocab_name in files and merges_name in files:
            place = f"{origin}/{vocab_name}"
            ids = parse_ids(parse_object(files[vocab_name], place), place)
            lines = files[merges_name].decode("utf-8", errors="replace").splitlines()
            first = 1 if lines and lines[0].startswith("#version") else 0
            pairs = ((number, line.split()) for number, line in enumerate(lines, 1) if number > first and line)
            special = _added_beside(files, origin) | ({END: ids[END]} if END in ids else {})
            return _checked(ids, _parse_merges(pairs, ids, f"{origin}/{merges_name}"), special, origin)
    if TOKENIZER in files:
        return _from_tokenizer_json(files[TOKENIZER], f"{origin}/{TOKENIZER}")
    halves = [(here, other) for pair in PAIRS for here, other in (pair, pair[::-1]) if here in files]
    missing = "; ".join(f"{other} is missing beside {here}" for here, other in halves)
    expected = "expected encoder.json and vocab.bpe, vocab.json and merges.txt, tokenizer.json, or BERT's vocab.txt"
    raise FormatError(
        origin,
        None,
        f"no vocabulary; {missing or expected}; copy it from the model that the weights were trained from; GPT-2's own "
        "comes with: gpt2 download 124M",
    )


def vocabulary_files(files: Mapping[str, bytes], origin: str) -> tuple[bytes, bytes]:
    """The vocabulary in `files` as encoder.json (vocab.json) and vocab.bpe (merges.txt), byte for byte where stored so.

    OpenAI's reader drops the first line of vocab.bpe and what follows the last line break, so both are put there if
    missing. Raises FormatError.
    """
    vocabulary = read_vocabulary(files, origin)
    stored = next(((files[a], files[b]) for a, b in PAIRS if a in files and b in files), None)
    ids, merges = stored or (b"{}", "".join(f"{left} {right}\n" for left, right in vocabulary.merges).encode())
    if len(parse_object(ids, origin)) < len(vocabulary.ids):  # others, the end token perhaps, are noted elsewhere
        ids = json.dumps(dict(vocabulary.ids)).encode()
    version = b"" if merges.startswith(b"#version") else b"#version: 0.2\n"
    return ids, version + merges + (b"" if merges.endswith(b"\n") else b"\n")


def _from_tokenizer_json(content: bytes, origin: str) -> Vocabulary:
    whole = parse_object(content, origin)
    model = whole.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise FormatError(origin, None, f"the tokenizer's model is {kind!r:.80}; expected 'BPE', GPT-2's")
    splitter = whole.get("pre_tokenizer")
    settings = splitter if isinstance(splitter, dict) else {}
    spaced, whole_words = settings.get("add_prefix_space"), settings.get("use_regex") is False
    if settings.get("type") != "ByteLevel" or spaced or whole_words or whole.get("normalizer"):
        raise FormatError(origin, None, "the text is prepared otherwise than GPT-2's (plain ByteLevel, no normalizer)")
    ids = parse_ids(model.get("vocab"), origin)
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise FormatError(origin, None, f"the merges are {merges!r:.80}; expected a list")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return _checked(ids, _parse_merges(enumerate(pairs, 1), ids, origin), added_tokens(whole, origin), origin)


def _added_beside(files: Mapping[str, bytes], origin: str) -> dict[str, int]:
    """Tokens that were added to a vocabulary later, such as padding, wherever the files note them."""
    added: dict[str, int] = {}
    if "added_tokens.json" in files:
        place = f"{origin}/added_tokens.json"
        added |= parse_ids(parse_object(files["added_tokens.json"], place), place)
    if TOKENIZER in files:
        place = f"{origin}/{TOKENIZER}"
        added |= added_tokens(parse_object(files[TOKENIZER], place), place)
    return added


def added_tokens(tokenizer_json: Mapping[str, Any], origin: str) -> dict[str, int]:
    """Ids of the tokens that a tokenizer.json has beside those of its model. Raises FormatError."""
    entries = tokenizer_json.get("added_tokens", [])
    try:
        return parse_ids({entry["content"]: entry["id"] for entry in entries}, origin)
    except (TypeError, KeyError):
        raise FormatError(origin, None, "added_tokens: expected a list of objects with content and id") from None


def parse_ids(ids: Any, origin: str) -> dict[str, int]:
    """`ids`, as they came from a file. Raises FormatError unless every token has one of its own."""
    if not isinstance(ids, dict) or not all(type(id) is int and id >= 0 for id in ids.values()):
        raise FormatError(origin, None, "expected an object from tokens to ids, whole numbers from 0")
    tokens: dict[int, str] = {}
    for token, id in ids.items():
        if (other := tokens.setdefault(id, token)) != token:
            raise FormatError(origin, None, f"tokens {other!r} and {token!r} share the id {id}")
    return ids


def _parse_merges(
    numbered: Iterable[tuple[int, Any]], ids: Mapping[str, int], origin: str
) -> tuple[tuple[str, str], ...]:
    merges = []
    for number, parts in numbered:
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise FormatError(origin, None, f"merge {number} is {parts!r:.80}; expected two tokens")
        left, right = parts
        for token in (left, right, left + right):
            if token not in ids:
                raise FormatError(
                    origin, None, f"merge {number} ({left} {right}) needs the token {token!r}, not in the vocabulary"
                )
        merges.append((left, right))
    return tuple(merges)


def _checked(
    plain_ids: Mapping[str, int], merges: tuple[tuple[str, str], ...], special: Mapping[str, int], origin: str
) -> Vocabulary:
    ids = parse_ids({**plain_ids, **special}, origin)
    if missing := [byte for byte in BYTE_OF if byte not in ids]:
        raise FormatError(
            origin,
            None,
            f"{len(missing)} of the 256 byte tokens are missing from the vocabulary, such as {missing[0]!r}",
        )
    if END not in special:
        raise FormatError(origin, None, f"the vocabulary has no {END} token")
    for token in ids:
        if token not in special and not all(character in BYTE_OF for character in token):
            raise FormatError(
                origin, None, f"token {token!r} is not spelled in the byte alphabet and not declared special"
            )
    order = [ids[left + right] for left, right in merges]
    if any(before >= after for before, after in pairwise(order)):
        raise FormatError(
            origin, None, "the ids of merged tokens do not rise in the order of the merges, as GPT-2's do"
        )
    return Vocabulary(ids, merges, special)
