"""The interactive prompt: lines in, a growing text out. It knows no terminal: `interactive` gives it one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any, Self, TextIO

from gpt2kit.config.sampling import SamplingConfig, StopConfig
from gpt2kit.errors import ConfigError, Gpt2kitError, RequestError
from gpt2kit.jobs.writing import Answer, Writing, settings_of

LEAVING = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
QUOTES = '"""'
HELP = f"""\
What you type is added to the text, on a new line of it, and the model goes on.
  an empty line     the model goes on where the text ends
  {QUOTES}               begins an entry of several lines; {QUOTES} at the end of a line ends it
  //                begins an entry that begins with /
  /set NAME VALUE   change a setting: /set temperature 0.9, /set stop ["END", "\\n\\n"], /set seed none;
                    `gpt2 interactive --help` says what they mean
  /show             settings that are not the defaults, the last seed, the length of the text
  /show all         all settings
  /retry            another try at the last answer
  /undo             take back the last entry and its answer
  /text             print the whole text
  /save FILE        write the text to a file; /save! FILE also where there is one
  /new, /clear      begin a new text
  /help             this
  /quit             leave; so do /bye, /exit and {LEAVING}
Ctrl-C stops an answer; what was written stays.
"""


class Repl:
    """Takes entries and commands until there are no more.

    Args:
        writing: the text and its model.
        read: gives the next line, asked for with a prompt; raises EOFError at the end.
        out: where the text goes, and what is asked for.
        notes: where everything else goes, errors included.
        terminal: somebody types: there are prompts, and Ctrl-C stops an answer, not the program.
    """

    def __init__(
        self, writing: Writing, read: Callable[[str], str], out: TextIO, notes: TextIO, *, terminal: bool
    ) -> None:
        self._writing, self._read, self._out, self._notes, self._terminal = writing, read, out, notes, terminal
        self._commands: dict[str, Callable[[], None]] = {
            **{"retry": self._retry, "undo": self._undo, "text": self._text, "help": self._help},
            **dict.fromkeys(("new", "clear"), self._begin_anew),
            **dict.fromkeys(("quit", "bye", "exit"), self._quit),
        }
        self._with_words: dict[str, Callable[[str], None]] = {
            "set": self._set,
            "show": self._show,
            "save": self._save,
            "save!": self._save_over,
        }

    def run(self) -> None:
        """Serve until the input ends."""
        if self._terminal:
            origin = self._writing.generator.checkpoint.origin
            self._note(f"{origin}: what you type is continued; /help tells more, {LEAVING} leaves")
        while True:
            try:
                self._serve(self._line(">>> "))
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self._terminal:
                    raise
                self._note(f"\n({LEAVING} or /quit leaves)")

    def _line(self, prompt: str) -> str:
        try:
            return self._read(prompt if self._terminal else "")
        except EOFError:
            if self._terminal:
                self._note("")
            raise

    def _serve(self, line: str) -> None:
        entry = self._whole(line.removeprefix(QUOTES)) if line.startswith(QUOTES) else line.removeprefix("/")
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._obey(entry)
            else:
                self._stream(self._writing.go_on(entry))
        except Gpt2kitError as error:
            self._note(f"gpt2: {error}")
        except MemoryError:
            self._note("gpt2: out of memory; close other programs, or take a smaller model")

    def _whole(self, begun: str) -> str:
        """An entry of several lines. As in TOML, a line end right behind the first quotes does not count."""
        lines = [begun]
        try:
            while not lines[-1].endswith(QUOTES):
                lines.append(self._line("... "))
        except EOFError:
            lines[-1] += QUOTES
        return "\n".join(lines if begun else lines[1:]).removesuffix(QUOTES)

    def _obey(self, command: str) -> None:
        name, words = [*command.split(maxsplit=1), "", ""][:2]
        if name in self._with_words:
            self._with_words[name](words.strip())
        elif name in self._commands and words:
            raise RequestError(f"/{name} stands alone, without {words.strip()!r}")
        elif name in self._commands:
            self._commands[name]()
        else:
            near = get_close_matches(name, [*self._commands, *self._with_words], n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists them; // begins a text that begins with /"
            raise RequestError(f"no command /{name}; {hint}")

    def _stream(self, answer: Answer) -> None:
        shown, ctrl_c = "", _CtrlC()
        try:
            with closing(answer), ctrl_c if self._terminal else nullcontext():
                for piece in answer:
                    print(piece, end="", file=self._out, flush=True)
                    shown = piece or shown
                    if ctrl_c.pressed:
                        break
        finally:
            if shown and not shown.endswith("\n"):
                self._say("")
        if not shown and not ctrl_c.pressed:
            self._note("(an empty answer: the model ends the text here, or a stop string came first)")

    def _set(self, about: str) -> None:
        name, words = [*about.split(maxsplit=1), "", ""][:2]
        if not words:
            raise ConfigError("a setting has a name and a value, as in /set temperature 0.9; /show all lists them")
        key = self._writing.set(name, words)
        self._note(f"{key} = {_spelled(self._writing.settings()[key])}")

    def _show(self, about: str) -> None:
        if about not in ("", "all"):
            raise RequestError(f"there is /show and /show all, but no /show {about}")
        writing, defaults = self._writing, settings_of(SamplingConfig(), StopConfig())
        for name, value in writing.settings().items():
            if about or value != defaults[name]:
                self._say(f"{name} = {_spelled(value)}")
        tokens, window = writing.count_tokens(), writing.generator.checkpoint.config.window
        self._say(f"# the text: {tokens:,} tokens; the window: {window:,}")
        if last := writing.last:
            attempt = f", try {last.attempt + 1}" if last.attempt else ""
            self._say(f"# the last answer: seed {last.seed}{attempt}")

    def _retry(self) -> None:
        self._stream(self._writing.retry())

    def _undo(self) -> None:
        self._writing.undo()
        text = self._writing.text
        self._note(f"the text ends with {text[-60:]!r}" if text else "the text is empty")

    def _text(self) -> None:
        text = self._writing.text
        self._say(text.removesuffix("\n"))

    def _begin_anew(self) -> None:
        self._writing.begin_anew()
        self._note("the text is empty")

    def _save(self, name: str) -> None:
        if name and os.path.lexists(os.path.expanduser(name)):
            raise RequestError(f"{name} exists; /save! {name} replaces it")
        self._save_over(name)

    def _save_over(self, name: str) -> None:
        if not name:
            raise RequestError("name a file, as in /save story.txt")
        try:
            self._writing.save(Path(name).expanduser())
        except (OSError, RuntimeError, ValueError) as error:  # the latter two: no such home, a name with a null byte
            raise RequestError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
        self._note(f"saved {len(self._writing.text):,} characters to {name}")

    def _help(self) -> None:
        self._say(HELP)

    def _quit(self) -> None:
        raise EOFError

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)

    def _note(self, line: str) -> None:
        print(line, file=self._notes, flush=True)


class _CtrlC:
    """While the block lasts, the first Ctrl-C only asks, for an engine is best stopped between two tokens."""

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True


def _spelled(value: Any) -> str:
    """As /set takes it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {entry}" for key, entry in value.items()) + " }" if value else "none"
    return json.dumps(value, ensure_ascii=False)
