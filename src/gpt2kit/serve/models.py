"""The models that a server offers: opened, so that they can be told of and asked in; loaded only when asked."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2kit import __version__
from gpt2kit.checkpoint import Checkpoint
from gpt2kit.config.engine import EngineConfig
from gpt2kit.errors import ConfigError, FormatError
from gpt2kit.generate.engine import Engine
from gpt2kit.generate.select import open_engine, weight_bytes
from gpt2kit.generate.texts import Requests
from gpt2kit.resolve import open_checkpoint
from gpt2kit.serve.errors import HttpError
from gpt2kit.tokenizer.open import open_tokenizer
from gpt2kit.tokenizer.protocol import Tokenizer

OpenEngine = Callable[[Checkpoint, int], Engine]
"""Makes an engine of a checkpoint, with room for so many texts."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Model:
    """A model that can be asked for."""

    name: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    requests: Requests
    opened: int
    """In seconds since 1970."""
    ref: str | Path | None
    """What it is opened by, where it did not come open."""

    @property
    def window(self) -> int:
        """Tokens it sees at once."""
        return self.checkpoint.config.window

    def size_bytes(self, engine: EngineConfig | OpenEngine) -> int:
        """What its weights take in memory; 4 bytes each where that is not known."""
        if isinstance(engine, EngineConfig):
            return weight_bytes(self.checkpoint, engine)
        return 4 * self.checkpoint.parameter_count()

    @property
    def fingerprint(self) -> str:
        """Tells answers of one version, model and step from those of another."""
        parts = (__version__, self.name, self.checkpoint.origin, str(self.checkpoint.step))
        return "fp_" + hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]

    def load(self, engine: EngineConfig | OpenEngine, slots: int) -> Engine:
        """Read its weights; where a trainer has deleted the step that was open, of the newest one."""
        try:
            return self._load(engine, slots)
        except FormatError:
            if self.ref is None:
                raise
            self.checkpoint = self._opened_again(self.ref)
        loaded = self._load(engine, slots)
        log.info("%s was replaced since it was opened; %s is served now", self.name, self.checkpoint.origin)
        return loaded

    def _opened_again(self, ref: str | Path) -> Checkpoint:
        now, before = open_checkpoint(ref), self.checkpoint
        if (now.config, dict(now.tokenizer_files)) != (before.config, dict(before.tokenizer_files)):
            raise ConfigError(f"{now.origin}: another model than at the start; start the server again to serve it")
        return now

    def _load(self, engine: EngineConfig | OpenEngine, slots: int) -> Engine:
        if isinstance(engine, EngineConfig):
            return open_engine(self.checkpoint, engine, slots)
        return engine(self.checkpoint, slots)


class Models:
    """The models of one server by their names; the first is who answers when none is named."""

    def __init__(self, refs: Sequence[str | Path | Checkpoint]) -> None:
        """`refs` as for `load`. Raises what `open_checkpoint` raises, ConfigError for two of one name."""
        if not refs:
            raise ConfigError("no model to serve; name one, such as: gpt2 serve 124M")
        self._models: dict[str, Model] = {}
        for ref in refs:
            model = _open(ref)
            if model.name in self._models:
                raise ConfigError(
                    f"two models are called {model.name!r}, and callers could not tell them apart; name it once, or "
                    "rename the directory of one of them"
                )
            self._models[model.name] = model

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    @property
    def default(self) -> Model:
        """The first."""
        return next(iter(self))

    def find(self, name: str | None) -> Model:
        """The model of this name. Raises HttpError."""
        if not name:
            return self.default
        if name not in self._models:
            known = f"there {'are' if len(self._models) > 1 else 'is'} {', '.join(self._models)}"
            raise HttpError(
                404, f"no model {name!r:.100} is served here; {known}", code="model_not_found", param="model"
            )
        return self._models[name]


def _open(ref: str | Path | Checkpoint) -> Model:
    checkpoint = ref if isinstance(ref, Checkpoint) else open_checkpoint(ref)
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    name = _name(ref, checkpoint)
    requests, opened = Requests(checkpoint, tokenizer), int(time.time())
    return Model(name, checkpoint, tokenizer, requests, opened, None if isinstance(ref, Checkpoint) else ref)


def _name(ref: str | Path | Checkpoint, checkpoint: Checkpoint) -> str:
    """What callers call it: the name it was asked for by, of a path the last part; so for each adapter too."""
    if checkpoint.adapters and not isinstance(ref, Checkpoint):
        ref = str(ref).removesuffix(checkpoint.origin.removeprefix(checkpoint.base_origin))
    if isinstance(ref, Checkpoint):
        name = Path(checkpoint.base_origin).name
    else:
        name = Path(ref).resolve().name if isinstance(ref, Path) or Path(ref).exists() else ref
    name = "+".join([name, *(Path(adapter).resolve().name for adapter in checkpoint.adapters)])
    return name.encode("utf-8", "replace").decode()  # file names need not be text, JSON is
