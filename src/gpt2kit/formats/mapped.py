"""Values that stay in their file until they are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpt2kit.errors import FormatError

MAX_DIMS, MAX_ELEMENTS = 8, 2**48  # of one tensor: far beyond any GPT-2's, and no product overflows


def mapped(path: Path, dtype: Any, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """Read-only values at byte `offset`; none are read yet. Raises FormatError where the file is not what it was."""
    try:
        return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)
    except (ValueError, OSError) as error:
        raise FormatError(path, offset, f"gone or changed since it was opened: {error}") from None
