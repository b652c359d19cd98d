"""How the next token is chosen, and when a text ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, get_args

from gpt2kit.config.limits import require, require_finite

Chain = Literal["standard", "openai", "nshepperd", "gpt2-ml"]
Overflow = Literal["slide", "stop", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen."""

    chain: Chain = "standard"
    """standard, or the rules of an old program; their top_p differs, and nshepperd's above 0 replaces top_k. A GPT2-ML
    takes gpt2-ml for standard: padding is never chosen, and an end before min_new_tokens is written, not banned."""
    temperature: float = 1.0
    """0 picks the likeliest token; 1 samples as trained; lower is safer, higher is wilder."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all. Ties with the k-th survive."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this total probability; 1 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest token's probability; 0 drops none."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is nearest to the average surprise, up to this total probability; 1 keeps all."""
    repetition_penalty: float = 1.0
    """Divide positive logits (multiply negative ones) of tokens seen before, prompt included; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Subtract this from the logit of every token generated before."""
    frequency_penalty: float = 0.0
    """Subtract this times the count from the logit of every token generated before."""
    no_repeat_ngram: int = 0
    """Forbid any sequence of this many tokens to occur twice, prompt included; 0 allows it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of these token ids."""
    banned_ids: tuple[int, ...] = ()
    """Token ids never chosen."""
    banned_words: tuple[str, ...] = ()
    """Strings the new text never holds, wherever tokens begin and end; " ass" with its blank spares "class"."""
    forced_ids: tuple[int, ...] = ()
    """Token ids the text starts with, whatever the model says and whatever is banned."""
    seed: int | None = None
    """The same seed gives the same text, alone or in a batch. None draws a fresh seed and reports it."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.chain in get_args(Chain), f"chain must be one of {', '.join(get_args(Chain))}, got {self.chain!r}")
        require(self.temperature >= 0, f"temperature must be 0 or more, got {self.temperature}")
        require(self.top_k >= 0, f"top_k must be 0 or more, got {self.top_k}")
        if self.chain == "standard":
            require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}; 1 switches it off")
        require(0 <= self.top_p <= 1, f"top_p must be in [0, 1], got {self.top_p}")
        unfiltered = self.chain == "nshepperd" and self.top_k > 0 and self.top_p == 1
        require(not unfiltered, "in the chain nshepperd any top_p above 0 replaces top_k; set top_p to 0")
        require(0 <= self.min_p <= 1, f"min_p must be in [0, 1], got {self.min_p}")
        require(0 < self.typical_p <= 1, f"typical_p must be in (0, 1], got {self.typical_p}; 1 switches it off")
        require(self.repetition_penalty > 0, f"repetition_penalty must be above 0, got {self.repetition_penalty}")
        biases = self.logit_bias.values()
        require(all(map(isfinite, biases)), "logit_bias holds finite numbers; to forbid a token use banned_ids")
        strengths = (*biases, self.presence_penalty, self.frequency_penalty)
        strengths += (self.repetition_penalty, 1 / self.repetition_penalty)
        require(
            max(map(abs, strengths)) <= 1e9, "logit_bias and penalties must be within 1e9; repetition_penalty from 1e-9"
        )
        require(self.no_repeat_ngram >= 0, f"no_repeat_ngram must be 0 or more, got {self.no_repeat_ngram}")
        _require_strings(self.banned_words, "banned_words", "a banned word")
        require(all(map(_is_text, self.banned_words)), "a banned word must be text; half a surrogate pair is none")
        seed = self.seed or 0
        require(0 <= seed < 2**64, f"seed must be in [0, 2**64), got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConfig:
    """When a text ends."""

    max_new_tokens: int = 100
    """Stop after this many tokens."""
    min_new_tokens: int = 0
    """Before this many tokens the end token and stop ids are banned, stop strings and sentence ends do not count."""
    stop: tuple[str, ...] = ()
    """Stop before any of these strings; they are not part of the text."""
    until_sentence: bool = False
    """Stop after the first whole sentence, once min_new_tokens are written."""
    stop_ids: tuple[int, ...] = ()
    """Stop before any of these token ids."""
    ignore_end: bool = False
    """Go on after <|endoftext|>, as the old programs did."""
    overflow: Overflow = "slide"
    """When the window is full: slide keeps its newest half, stop ends the text, error refuses what may not fit."""

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 1, f"max_new_tokens must be 1 or more, got {self.max_new_tokens}")
        require(self.min_new_tokens >= 0, f"min_new_tokens must be 0 or more, got {self.min_new_tokens}")
        overflows = get_args(Overflow)
        require(self.overflow in overflows, f"overflow must be one of {', '.join(overflows)}, got {self.overflow!r}")
        _require_strings(self.stop, "stop", "a stop string")


def _require_strings(strings: tuple[str, ...], name: str, one: str) -> None:
    require(not isinstance(strings, str), f"{name} must be a tuple of strings, got the string {strings!r}")
    require("" not in strings, f"{one} must not be empty")


def _is_text(word: str) -> bool:
    """Whether `word` can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in word)
