"""Write one text together with a model: entries and answers in turn, each of which can be taken back or tried again."""

from __future__ import annotations

import secrets
import tomllib
from collections import abc
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from gpt2kit.atomic import replace_bytes
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.toml_file import from_table, to_toml
from gpt2kit.errors import ConfigError, RequestError
from gpt2kit.generate.generator import Generator

OLD_NAMES = {"length": "max_new_tokens"}
Answer = abc.Generator[str, None, None]
Settings = TypeVar("Settings", SamplingConfig, StopConfig)


@dataclass(frozen=True, slots=True)
class Turn:
    """What was entered, with the line end before it, and how the model went on."""

    entry: str
    answer: str
    seed: int
    attempt: int
    """The number of the sample: with the same seed, another number is other randomness."""


class Writing:
    """One growing text. `sampling` and `stop` hold for the next answer."""

    def __init__(self, generator: Generator, sampling: SamplingConfig, stop: StopConfig) -> None:
        self.generator, self.sampling, self.stop = generator, sampling, stop
        self._turns: tuple[Turn, ...] = ()

    @property
    def text(self) -> str:
        """All that was entered and answered."""
        return _joined(self._turns)

    @property
    def last(self) -> Turn | None:
        """The last entry and its answer."""
        return self._turns[-1] if self._turns else None

    def count_tokens(self) -> int:
        """How long the text is."""
        return len(self.generator.tokenizer.encode(self.text))

    def go_on(self, entry: str) -> Answer:
        """Add `entry` on a new line and let the model go on; an empty one lets it go on where the text ends.

        The answer comes piece by piece. Closing the iterator ends it, and what was written stays; after an error the
        text is as it was before the entry.
        """
        text = self.text
        line_end = "\n" if entry and text and not text.endswith("\n") else ""
        return self._answer(self._turns, line_end + entry, 0)

    def retry(self) -> Answer:
        """Write another answer in the place of the last one; as `go_on`."""
        before, last = self._parted()
        return self._answer(before, last.entry, last.attempt + 1)

    def undo(self) -> None:
        """Take back the last entry and its answer."""
        self._turns, _ = self._parted()

    def begin_anew(self) -> None:
        """Forget the text."""
        self._turns = ()

    def save(self, path: Path) -> None:
        """Put the text into a file, UTF-8."""
        replace_bytes(path, self.text.encode("utf-8"))

    def settings(self) -> dict[str, Any]:
        """Every setting by name."""
        return settings_of(self.sampling, self.stop)

    def set(self, name: str, words: str) -> str:
        """Give the setting `name` the value that `words` spell: TOML, a plain word, or "none". Returns its full name.

        Raises:
            ConfigError: there is no such setting or value; nothing has changed.
        """
        key = OLD_NAMES.get(name, name.replace("-", "_"))
        if key not in self.settings():
            near = get_close_matches(key, self.settings(), n=1)
            raise ConfigError(f"no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if hasattr(self.sampling, key):
            self.sampling = _changed(self.sampling, key, words)
        else:
            self.stop = _changed(self.stop, key, words)
        return key

    def _parted(self) -> tuple[tuple[Turn, ...], Turn]:
        """All turns but the last, and the last."""
        if not self._turns:
            raise RequestError("nothing has been written yet")
        return self._turns[:-1], self._turns[-1]

    def _answer(self, before: tuple[Turn, ...], entry: str, attempt: int) -> Answer:
        seed = self.sampling.seed
        if seed is None:
            seed, attempt = secrets.randbits(32), 0
        sampling, kept, answer = replace(self.sampling, seed=seed), self._turns, ""
        prompt = _joined(before) + entry
        try:
            for piece in self.generator.pieces(prompt, first_sample=attempt, sampling=sampling, stop=self.stop):
                answer += piece.text
                self._turns = (*before, Turn(entry, answer, seed, attempt))
                yield piece.text
        except Exception:  # neither Ctrl-C nor the closing of this iterator is one
            self._turns = kept
            raise


def settings_of(sampling: SamplingConfig, stop: StopConfig) -> dict[str, Any]:
    """Both as one table."""
    return {field.name: getattr(owner, field.name) for owner in (sampling, stop) for field in fields(owner)}


def _joined(turns: tuple[Turn, ...]) -> str:
    return "".join(turn.entry + turn.answer for turn in turns)


def _changed(settings: Settings, key: str, words: str) -> Settings:
    table, default = tomllib.loads(to_toml(settings).decode()), getattr(type(settings)(), key)
    if words == "none" and (default is None or default == () or default == {}):
        table.pop(key, None)
    else:
        value = _value(words)
        several = isinstance(default, tuple) and not isinstance(value, list)
        table[key] = [value] if several else value
    return from_table(type(settings), table, "settings", None)


def _value(words: str) -> Any:
    try:
        return tomllib.loads(f"value = {words}")["value"]
    except tomllib.TOMLDecodeError as error:
        if words.startswith(("[", "{", '"', "'")):
            raise ConfigError(f"{words}: not TOML: {error}") from None
        return words
