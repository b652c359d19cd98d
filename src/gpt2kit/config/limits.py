"""What all settings have in common: a limit that is broken is a ConfigError."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

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
