"""What all settings have in common: a limit that is broken is a ConfigError."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gpt2kit.errors import ConfigError


def require(holds: bool, problem: str) -> None:
    """Raise ConfigError with `problem` unless `holds`."""
    if not holds:
        raise ConfigError(problem)


def require_finite(settings: Any) -> None:
    """Raise ConfigError if any number of this settings dataclass is NaN or infinite."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{field.name} must be a finite number, got {value}")


def require_known(settings: Any) -> None:
    """Raise ConfigError if a setting with a fixed choice of words has another value."""
    for name, hint in get_type_hints(type(settings)).items():
        if get_origin(hint) is Literal and (value := getattr(settings, name)) not in get_args(hint):
            raise ConfigError(f"{name} must be one of {', '.join(map(repr, get_args(hint)))}, got {value!r}")
