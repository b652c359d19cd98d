"""BERT's WordPiece, the tokenizer of GPT2-ML and of most Chinese GPT-2s: a dictionary word by word, no merges.

vocab.txt               a token a line, its id the number of the line, from 0; "##" before what goes on a word
tokenizer_config.json   optional: do_lower_case (true), strip_accents (as do_lower_case), tokenize_chinese_chars (true)
tokenizer.json          in place of vocab.txt, as transformers 5 saves it: {"model": {"type": "WordPiece", "vocab",
                        "max_input_chars_per_word"}, "added_tokens", "normalizer": {"type": "BertNormalizer",
                        "lowercase", "strip_accents", "handle_chinese_chars"}, "pre_tokenizer": {"type":
                        "BertPreTokenizer"}}; where tokenizer_config.json says otherwise, that counts

Text to words: control characters (Cc, Cf), U+0000 and U+FFFD are dropped; white space ends a word; a Chinese character
or a mark is a word by itself; in lower case, without accents. Words to tokens: the longest token that the rest of the
word begins with, again and again; a word that cannot be spelled so, or has over 200 characters, is [UNK]. Spaces and
line ends are lost. [CLS] and [SEP] are not added.
Source: tokenization.py of github.com/google-research/bert, as github.com/imcaspar/gpt2-ml has it. Hugging Face's
tokenizers, which counts where one of its two files is there, drops private characters (Co) too, and a word may have 100
characters.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpt2kit.errors import FormatError
from gpt2kit.json_object import parse_object
from gpt2kit.tokenizer.protocol import joined, unknown_id
from gpt2kit.tokenizer.vocabulary import END, TOKENIZER, added_tokens, parse_ids

VOCABULARY, SETTINGS = "vocab.txt", "tokenizer_config.json"
UNKNOWN, SEPARATOR = "[UNK]", "[SEP]"
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", SEPARATOR, "[MASK]")
GOES_ON = "##"
MOST_TOKENS = 1 << 20
LONGEST = "max_input_chars_per_word"
WORDS_KEPT = 1 << 16  # texts repeat their words; each is looked up once
CHINESE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f"
)
IS_CHINESE = re.compile(f"[{CHINESE}]")
SPACE = " \t\n\r\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
SPACES = re.compile(f"[{SPACE}]")


@dataclass(frozen=True, slots=True)
class WordPieceSettings:
    """How text becomes words."""

    lower_case: bool
    strip_accents: bool
    split_chinese: bool
    dropped: tuple[str, ...]
    """The Unicode categories whose characters stand for nothing."""
    longest_word: int
    """In characters."""


def read_wordpiece(files: Mapping[str, bytes], origin: str) -> WordPiece:
    """The tokenizer in `files` (name to content); `origin` names their place in errors. Raises FormatError."""
    if VOCABULARY in files:
        place, told = f"{origin}/{VOCABULARY}", dict[str, Any]()
        tokens = _tokens_in_lines(files[VOCABULARY], place)
    else:
        place = f"{origin}/{TOKENIZER}"
        tokens, told = _from_tokenizer_json(parse_object(files[TOKENIZER], place), place)
    for needed in (UNKNOWN, SEPARATOR):
        if needed not in tokens:
            raise FormatError(place, None, f"{len(tokens):,} tokens, none of them {needed}; expected BERT's vocabulary")
    is_plain = files.keys().isdisjoint({SETTINGS, TOKENIZER})
    longest = told.get(LONGEST, 200 if is_plain else 100)
    if SETTINGS in files:
        told |= parse_object(files[SETTINGS], f"{origin}/{SETTINGS}")
    lower, strip = told.get("do_lower_case") is not False, told.get("strip_accents")
    settings = WordPieceSettings(
        lower_case=lower,
        strip_accents=strip if isinstance(strip, bool) else lower,
        split_chinese=told.get("tokenize_chinese_chars") is not False,
        dropped=("Cc", "Cf") if is_plain else ("Cc", "Cf", "Co"),
        longest_word=longest,
    )
    return WordPiece(tokens, settings)


def _tokens_in_lines(content: bytes, place: str) -> list[str]:
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(place, error.start, "not UTF-8; expected a token a line") from None
    return [line.strip() for line in (lines if lines[-1] else lines[:-1])]


def _from_tokenizer_json(whole: Mapping[str, Any], place: str) -> tuple[list[str], dict[str, Any]]:
    """Tokens in the order of their ids, "" for those that no token has, and what tokenizer_config.json would say."""
    model, normalizer, splitter = (
        part if isinstance(part := whole.get(name), dict) else {} for name in ("model", "normalizer", "pre_tokenizer")
    )
    for name, found, expected in (
        ("unk_token", model.get("unk_token"), UNKNOWN),
        ("continuing_subword_prefix", model.get("continuing_subword_prefix"), GOES_ON),
        ("normalizer", normalizer.get("type"), "BertNormalizer"),
        ("clean_text", normalizer.get("clean_text"), True),
        ("pre_tokenizer", splitter.get("type"), "BertPreTokenizer"),
    ):
        if found != expected:
            raise FormatError(place, None, f"{name} is {found!r:.80}; expected {expected!r}, BERT's")
    longest = model.get(LONGEST)
    if type(longest) is not int or longest < 1:
        raise FormatError(place, None, f"{LONGEST} is {longest!r:.80}; expected a whole number above 0")
    ids = parse_ids({**parse_ids(model.get("vocab"), place), **added_tokens(whole, place)}, place)
    if (last := max(ids.values(), default=-1)) >= MOST_TOKENS:
        raise FormatError(place, None, f"a token has the id {last}; expected ids below {MOST_TOKENS:,}")
    tokens = [""] * (last + 1)
    for token, id in ids.items():
        tokens[id] = token
    return tokens, {
        "do_lower_case": normalizer.get("lowercase"),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
        LONGEST: longest,
    }


class WordPiece:
    """BERT's tokenizer. The end token is [SEP]; `<|endoftext|>`, where it is special, is another name for it."""

    def __init__(self, tokens: Sequence[str], settings: WordPieceSettings) -> None:
        """`tokens` in the order of their ids; of equal ones the last is used, empty ones stand for nothing."""
        self._tokens, self._settings = tuple(tokens), settings
        self._id_of = {token: id for id, token in enumerate(tokens)}
        self._longest = max(map(len, tokens))
        self._unknown = self._id_of[UNKNOWN]
        self._special = {token: self._id_of[token] for token in SPECIAL if token in self._id_of}
        self.vocab_size = len(tokens)
        self.begin_id = self.end_id = self._id_of[SEPARATOR]
        self._special[END] = self.end_id
        self._cleaned = _Cleaned(settings)
        self._ids_of_word: dict[str, tuple[int, ...]] = {}

    @property
    def ids(self) -> Collection[int]:
        """Those that stand for something."""
        return [id for id, token in enumerate(self._tokens) if token]

    @cached_property
    def sha256(self) -> str:
        """Of all that decides which ids a text gets."""
        return hashlib.sha256(json.dumps([self._tokens, asdict(self._settings)]).encode()).hexdigest()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of `text`. "[SEP]" and `<|endoftext|>` written in the text stay text unless `special`."""
        ids: list[int] = []
        # Odd segments are special tokens.
        for number, segment in enumerate(self._special_pattern.split(text) if special else [text]):
            if number % 2:
                ids.append(self._special[segment])
                continue
            for word in segment.translate(self._cleaned).split():
                ids += self._ids_of_word.get(word) or self._looked_up(word)
        return ids

    def encode_joined(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of all `texts`, uint32, the end token between one and the next."""
        return joined(map(self.encode, texts), self.end_id)

    def find_border(self, text: str, start: int) -> int | None:
        """The first place from `start` (at least 1) on where `text` can be cut without a change of its ids."""
        found = self._border.search(text, start)
        return found.start() if found else None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, joined without spaces; [UNK] has none."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8")

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes one token stands for: without its "##", and none for [UNK], as GPT2-ML's demo prints them."""
        if not 0 <= int(token_id) < len(self._tokens):
            raise unknown_id(token_id, self.vocab_size)
        token = self._tokens[int(token_id)]
        if token == UNKNOWN:
            return b""
        return (token.removeprefix(GOES_ON) or token).encode()

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        return re.compile(f"({'|'.join(map(re.escape, self._special))})")

    @cached_property
    def _border(self) -> re.Pattern[str]:
        return re.compile(f"[{SPACE}{CHINESE if self._settings.split_chinese else ''}]")

    def _looked_up(self, word: str) -> tuple[int, ...]:
        """Ids of what white space or Chinese characters stand around."""
        ids = tuple(id for part in self._parts(word) for id in self._pieces(part))
        if len(word) <= self._settings.longest_word:
            if len(self._ids_of_word) >= WORDS_KEPT:
                self._ids_of_word = {}
            self._ids_of_word[word] = ids
        return ids

    def _parts(self, word: str) -> Iterator[str]:
        """The word in the wanted case, cut before and behind every mark."""
        word = word.lower() if self._settings.lower_case else word
        if self._settings.strip_accents:
            apart = unicodedata.normalize("NFD", word)
            word = "".join(character for character in apart if unicodedata.category(character) != "Mn")
        start = 0
        for at, character in enumerate(word):
            if _is_mark(character):
                yield from filter(None, (word[start:at], character))
                start = at + 1
        if start < len(word):
            yield word[start:]

    def _pieces(self, part: str) -> list[int]:
        if len(part) > self._settings.longest_word:
            return [self._unknown]
        ids: list[int] = []
        start = 0
        while start < len(part):
            prefix = GOES_ON if start else ""
            for end in range(min(len(part), start + self._longest), start, -1):
                if (id := self._id_of.get(prefix + part[start:end])) is not None:
                    break
            else:
                return [self._unknown]
            ids.append(id)
            start = end
        return ids


class _Cleaned(dict[int, str]):
    """For `str.translate`: what each character becomes before words are cut; filled as characters come."""

    def __init__(self, settings: WordPieceSettings) -> None:
        self._settings = settings

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if SPACES.match(character):
            cleaned = " "
        elif character == "\ufffd" or unicodedata.category(character) in self._settings.dropped:
            cleaned = ""
        else:
            cleaned = f" {character} " if self._settings.split_chinese and IS_CHINESE.match(character) else character
        self[code] = cleaned
        return cleaned


def _is_mark(character: str) -> bool:
    """Whether BERT takes it for punctuation: Unicode's, and whatever of ASCII is no letter, digit or space."""
    ascii_mark = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_mark or unicodedata.category(character).startswith("P")
