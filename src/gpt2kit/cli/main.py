"""gpt2: find the command, run it, turn a Gpt2kitError into one line and exit status 1."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from gpt2kit import __version__
from gpt2kit.errors import ConfigError, Gpt2kitError

USER_ERROR, USAGE_ERROR, INTERRUPTED = 1, 2, 130
RIVALS = {"steps": "epochs", "epochs": "steps"}  # say the same thing: one of them drops the other where it comes before


@dataclass(frozen=True)
class Command:
    """Where a command lives. Nothing is imported before it is called."""

    module: str
    kind: str
    summary: str
    """The first line of the class's docstring: a test keeps them equal."""
    reads_its_words: bool = False
    """Whether the class takes the words that follow as they are."""


COMMANDS = {
    "download": Command("gpt2kit.cli.download", "Download", "Get the files of released models."),
    "demo": Command("gpt2kit.cli.demo", "DemoCommand", "Learn a vocabulary, train a small model and sample from it."),
    "tokenizer train": Command("gpt2kit.cli.tokenizer", "TokenizerTrain", "Learn a vocabulary from text files."),
    "init": Command("gpt2kit.cli.init", "Init", "Make a model that has learnt nothing yet."),
    "encode": Command("gpt2kit.cli.encode", "Encode", "Turn texts into token ids on disk."),
    "finetune": Command("gpt2kit.cli.finetune", "Finetune", "Train a model on text into a run, or go on with the run."),
    "generate": Command("gpt2kit.cli.generate", "Generate", "Continue a prompt, or start from nothing."),
    "interactive": Command("gpt2kit.cli.interactive", "Interactive", "Write a text in turns with a model."),
    "serve": Command("gpt2kit.cli.serve", "Serve", "Put models in front of a browser and of programs."),
    "evaluate": Command("gpt2kit.cli.evaluate", "Evaluate", "Measure how well a model predicts a text."),
    "score": Command("gpt2kit.cli.score", "Score", "Show how likely a model finds every token of a text."),
    "convert": Command("gpt2kit.cli.convert", "Convert", "Turn a model of one format into a model of another."),
    "inspect": Command("gpt2kit.cli.inspect", "Inspect", "Show what a checkpoint is made of, or how two differ."),
    "runs": Command("gpt2kit.cli.runs", "Runs", "List the runs in checkpoint/, the newest first."),
    "runs compare": Command("gpt2kit.cli.runs", "RunsCompare", "Draw runs in one picture, and tell how they differ."),
    "legacy": Command("gpt2kit.cli.legacy", "Legacy", "Run the call line of an old program.", reads_its_words=True),
    "bench": Command("gpt2kit.cli.bench", "Bench", "Measure how fast this machine writes."),
    "doctor": Command("gpt2kit.cli.doctor", "Doctor", "Show what this machine has, and the fix for what is missing."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv by default). Returns its exit status, as named above; 0 is success."""
    _speak_utf8()
    warnings.showwarning = _show_warning
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except Gpt2kitError as error:
        print(f"gpt2: {_harmless(str(error))}", file=sys.stderr)
        return USER_ERROR
    except MemoryError:
        print("gpt2: out of memory; take a smaller model, batch or window, or close other programs", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\ngpt2: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if _reader_has_gone(error):
            # `gpt2 ... | head`: end quietly, also in the interpreter's last flush.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        place = f"{error.filename}: " if error.filename else ""
        print(f"gpt2: {place}{error.strerror or error}", file=sys.stderr)
        return USER_ERROR


def gpt_2_simple() -> int:
    """The command that compat/gpt_2_simple installs: `gpt2 legacy gpt_2_simple`."""
    return main(["legacy", "gpt_2_simple", *sys.argv[1:]])


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if argv else USAGE_ERROR
    if argv[0] in ("-V", "--version"):
        return _print_version()
    words = 2 if " ".join(argv[:2]) in COMMANDS else 1
    name = " ".join(argv[:words])
    if name not in COMMANDS:
        return _reject(name)
    command = COMMANDS[name]
    kind = getattr(import_module(command.module), command.kind)
    rest = argv[words:]
    status: int = (kind(rest) if command.reads_its_words else parse(kind, f"gpt2 {name}", rest))()
    return status


def parse(kind: Any, program: str, arguments: list[str]) -> Any:
    """An instance of the command class `kind`: defaults < preset < the file of `--config` < options."""
    import tyro

    from gpt2kit.config.toml_file import from_table, read_toml

    path = _value_of("--config", arguments)
    table = read_toml(Path(path)) if path else {}
    if "preset" in kind.__dataclass_fields__ and (preset := _value_of("--preset", arguments) or table.get("preset")):
        training = table.get("training", {})
        if isinstance(training, dict):
            training = {**_without(_preset(preset), _with_rivals(training)), **training}
        table = {**table, "preset": preset, "training": training}
    if not table:
        return tyro.cli(kind, prog=program, args=arguments)
    named = _with_rivals(word for word in arguments if word.startswith("--"))
    default = from_table(kind, _without(table, named), path or "the preset", tyro.MISSING)
    return tyro.cli(kind, prog=program, args=arguments, default=default)


def _value_of(option: str, arguments: list[str]) -> str | None:
    """What the command line gives to `option`, if it names it."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option and (equals or place + 1 < len(arguments)):
            return value if equals else arguments[place + 1]
    return None


def _preset(name: Any) -> dict[str, Any]:
    from gpt2kit.config.training import PRESETS

    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def _with_rivals(names: Iterable[str]) -> set[str]:
    """The settings of these names, and those that they drop."""
    settings = {_setting(name) for name in names}
    return settings | {RIVALS[name] for name in settings & set(RIVALS)}


def _reader_has_gone(error: OSError) -> bool:
    windows = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or windows


def _setting(argument: str) -> str:
    return argument.partition("=")[0].lstrip("-").replace("-", "_")


def _without(table: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The tables of a file, less what the command line says: lists there replace lists here."""
    kept = {key: value for key, value in table.items() if _setting(key) not in names}
    return {key: _without(value, names) if isinstance(value, dict) else value for key, value in kept.items()}


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"gpt2kit {__version__}: GPT-2, whole: get it, train it, sample from it, convert it, measure it, serve it.",
            "",
            "usage: gpt2 COMMAND [OPTIONS]     gpt2 COMMAND --help tells every option",
            "",
            *lines,
            "",
            "New here? `gpt2 demo` shows it all in four minutes.",
        ]
    )


def _print_version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    from gpt2kit.generate.select import preferred_engine
    from gpt2kit.jobs.doctor import instruction_sets

    try:
        torch = f"torch {version('torch')}"
    except PackageNotFoundError:
        torch = "no torch"
    print(f"gpt2kit {__version__}, engine {preferred_engine()}, {torch}, {instruction_sets()}")
    return 0


def _reject(name: str) -> int:
    grouped = [known for known in COMMANDS if known.startswith(name)]
    near = grouped or get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean: gpt2 {near[0]}?" if near else "`gpt2 --help` lists them"
    print(f"gpt2: no command {name!r}; {hint}", file=sys.stderr)
    return USAGE_ERROR


def _speak_utf8() -> None:
    if sys.stderr is None:  # closed; what is said there must not come out on standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"gpt2: warning: {_harmless(str(message))}", file=sys.stderr)


def _harmless(message: str) -> str:
    """Without what would command the terminal: a message may hold names out of a hostile file."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in message)
