"""Write docs/cli.md and docs/config.md from the code; with --check, fail if they are out of date."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path

from gpt2kit.cli.main import COMMANDS, main
from gpt2kit.config.engine import EngineConfig
from gpt2kit.config.model import ModelConfig
from gpt2kit.config.reading import ReadingConfig
from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.config.serving import ServingConfig
from gpt2kit.config.training import TrainingConfig

DOCS = Path(__file__).parent
SECTIONS = {
    "reading": ReadingConfig,
    "training": TrainingConfig,
    "sampling": SamplingConfig,
    "stop": StopConfig,
    "serving": ServingConfig,
    "engine": EngineConfig,
    "model": ModelConfig,
}


def help_text(name: str) -> str:
    """What `gpt2 NAME --help` prints, 100 columns wide, without colours and frames."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    lines = (re.sub(r"[╭╮╰╯│]", "", line).replace("─", "").rstrip() for line in printed.getvalue().splitlines())
    return "\n".join(line.removeprefix(" ") for line in lines if not re.fullmatch("-{5,}", line)).strip()


def cli_page() -> str:
    """docs/cli.md."""
    parts = ["# The command line", "Made by `make docs` from the code. `--top_k` and `--top-k` are the same option."]
    for name, command in COMMANDS.items():
        parts.append(f"## gpt2 {name}\n\n{command.summary}\n\n```text\n{help_text(name)}\n```")
    return "\n\n".join(parts) + "\n"


def config_page() -> str:
    """docs/config.md."""
    parts = [
        "# Settings",
        "Made by `make docs` from the code. In a TOML file for `--config` the tables are `[reading]`, `[training]`, "
        "`[sampling]`, `[stop]`, `[serving]` and `[engine]`; the model's own settings are kept in its config.json "
        "under Hugging Face's names.",
    ]
    for section, kind in SECTIONS.items():
        rows = [f"| `{name}` | {default} | {text} |" for name, default, text in fields_of(kind)]
        table = "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])
        parts.append(f"## {section}\n\n{kind.__doc__}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def fields_of(kind: type) -> list[tuple[str, str, str]]:
    """Name, default and docstring of every field of a settings dataclass."""
    source = Path(import_module(kind.__module__).__file__ or "").read_text(encoding="utf-8")
    body = source[source.index(f"class {kind.__name__}") :]
    found = []
    for field in dataclasses.fields(kind):
        text = re.search(rf'^    {field.name}: [^\n]*\n    """(.*?)"""', body, re.MULTILINE | re.DOTALL)
        assert text, f"{kind.__name__}.{field.name} has no docstring"
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        found.append((field.name, default, " ".join(text[1].split()).replace("|", "\\|")))
    return found


if __name__ == "__main__":
    pages = {DOCS / "cli.md": cli_page(), DOCS / "config.md": config_page()}
    if "--check" in sys.argv:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`" if stale else 0)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8", newline="\n")
