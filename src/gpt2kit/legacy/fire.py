"""Words as python-fire read them: --top_k 40, --top_k=40, --top-k 40, or values alone in the order of the flags."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")
HELP = {"-h", "--help"}


def flag(default: T, meaning: str) -> T:
    """A field of a dataclass that `parse` can read, with its help."""
    made: T = field(default=default, metadata={"help": meaning})
    return made


def parse(kind: type[T], program: str, words: Sequence[str]) -> T:
    """An instance of the dataclass `kind`, every field of which is a `flag`; the word None stands for the default.

    Exits as argparse does where the words are wrong or ask for help, which they did behind a --.
    """
    if "--" in words and HELP & set(words[words.index("--") :]):
        words = ["--help"]
    hints = get_type_hints(kind)
    flags = {each.name: (each, _reader(each, hints[each.name])) for each in fields(kind)}  # type: ignore[arg-type]
    parser = ArgumentParser(
        prog=program,
        usage="%(prog)s [--FLAG VALUE ...] [VALUE ...]",
        description=kind.__doc__,
        argument_default=SUPPRESS,
        allow_abbrev=False,
    )
    for name, (each, read) in flags.items():
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        meaning = f"{each.metadata['help']} (default: {each.default})"
        parser.add_argument(*spellings, type=read, metavar=name.upper(), help=meaning)
    parser.add_argument("values", nargs="*", help="values of the flags that are not named, in this order")
    given = vars(parser.parse_intermixed_args(words))
    values = given.pop("values", [])
    left = [name for name in flags if name not in given]
    if len(values) > len(left):
        parser.error(f"more values than flags: {' '.join(values[len(left) :])}")
    for name, word in zip(left, values, strict=False):
        try:
            given[name] = flags[name][1](word)
        except (ValueError, ArgumentTypeError):
            parser.error(f"argument --{name}: invalid value: {word!r}")
    return kind(**given)


def _reader(each: Field[Any], hint: Any) -> Callable[[str], Any]:
    kind = next((option for option in get_args(hint) if option is not type(None)), hint)

    def read(word: str) -> Any:
        return each.default if word == "None" else kind(word)

    read.__name__ = kind.__name__  # argparse names it where a word is wrong
    return read
