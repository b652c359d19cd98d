"""Vocabulary files: encoder.json + vocab.bpe (OpenAI), vocab.json + merges.txt or tokenizer.json (Hugging Face).

encoder.json = vocab.json   {"token": id}, tokens spelled in the byte alphabet, special tokens as they are
vocab.bpe = merges.txt      a version line, then one merge a line: "left right", most frequent first
tokenizer.json              {"model": {"type": "BPE", "vocab", "merges"}, "added_tokens", "pre_tokenizer", ...};
                            merges are "left right" (before tokenizers 0.20) or ["left", "right"]
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpt2kit.errors import FormatError
from gpt2kit.tokenizer.byte_alphabet import BYTE_OF, spelled_bytes

END = "<|endoftext|>"
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


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

    def mergeable(self) -> dict[bytes, int]:
        """The 256 bytes and every merged token, with their ids."""
        tokens = [*BYTE_OF, *(left + right for left, right in self.merges)]
        return {spelled_bytes(token): self.ids[token] for token in tokens}

    def bytes_by_id(self) -> dict[int, bytes]:
        """What each id stands for."""
        spelled = {id: spelled_bytes(token) for token, id in self.ids.items() if token not in self.special}
        return spelled | {id: token.encode() for token, id in self.special.items()}


def holds_vocabulary(files: Collection[str]) -> bool:
    """Whether these file names include a vocabulary that `read_vocabulary` can read."""
    return "tokenizer.json" in files or any(set(pair) <= set(files) for pair in PAIRS)


def read_vocabulary(files: Mapping[str, bytes], origin: str) -> Vocabulary:
    """The vocabulary in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    for vocab_name, merges_name in PAIRS:
        if vocab_name in files and merges_name in files:
            ids = _parse_ids(_parse_json(files[vocab_name], f"{origin}/{vocab_name}"), f"{origin}/{vocab_name}")
            lines = files[merges_name].decode("utf-8", errors="replace").splitlines()
            first = 1 if lines and lines[0].startswith("#version") else 0
            pairs = ((number, tuple(line.split())) for number, line in enumerate(lines, 1) if number > first and line)
            special = {END: ids[END]} if END in ids else {}
            return _checked(ids, _parse_merges(pairs, ids, f"{origin}/{merges_name}"), special, origin)
    if "tokenizer.json" in files:
        return _from_tokenizer_json(files["tokenizer.json"], f"{origin}/tokenizer.json")
    raise FormatError(
        origin,
        None,
        "no vocabulary found; expected encoder.json and vocab.bpe, vocab.json and merges.txt, or tokenizer.json",
    )


def _from_tokenizer_json(content: bytes, origin: str) -> Vocabulary:
    whole = _parse_json(content, origin)
    model = whole.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise FormatError(origin, None, f"the tokenizer's model is {kind!r}; expected 'BPE', GPT-2's")
    splitter = whole.get("pre_tokenizer") or {}
    if splitter.get("type") != "ByteLevel" or splitter.get("add_prefix_space") or whole.get("normalizer"):
        raise FormatError(
            origin, None, "the text is prepared otherwise than for GPT-2 (plain ByteLevel, no normalizer)"
        )
    ids = _parse_ids(model.get("vocab"), origin)
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", [])}
    pairs = (tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model.get("merges", []))
    merges = _parse_merges(enumerate(pairs, 1), ids, origin)
    return _checked(_parse_ids(dict(ids) | added, origin), merges, added, origin)


def _parse_json(content: bytes, origin: str) -> Any:
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise FormatError(origin, None, f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise FormatError(origin, None, f"a JSON {type(parsed).__name__} where an object is expected")
    return parsed


def _parse_ids(ids: Any, origin: str) -> dict[str, int]:
    if not isinstance(ids, dict) or not all(type(id) is int and id >= 0 for id in ids.values()):
        raise FormatError(origin, None, "expected an object from tokens to ids, whole numbers from 0")
    tokens: dict[int, str] = {}
    for token, id in ids.items():
        if (other := tokens.setdefault(id, token)) != token:
            raise FormatError(origin, None, f"tokens {other!r} and {token!r} share the id {id}")
    return ids


def _parse_merges(
    numbered: Iterable[tuple[int, tuple[str, ...]]], ids: Mapping[str, int], origin: str
) -> tuple[tuple[str, str], ...]:
    merges = []
    for number, parts in numbered:
        if len(parts) != 2:
            raise FormatError(origin, None, f"merge {number} is {' '.join(parts)!r}; expected two tokens")
        left, right = parts
        for token in (left, right, left + right):
            if token not in ids:
                raise FormatError(
                    origin, None, f"merge {number} ({left} {right}) needs the token {token!r}, not in the vocabulary"
                )
        merges.append((left, right))
    return tuple(merges)


def _checked(
    ids: dict[str, int], merges: tuple[tuple[str, str], ...], special: Mapping[str, int], origin: str
) -> Vocabulary:
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
