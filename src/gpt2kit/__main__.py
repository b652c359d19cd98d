"""`python -m gpt2kit` is `gpt2`."""

from __future__ import annotations

import sys

from gpt2kit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
