"""From token ids to pieces of text: half characters are held back, and so is what may become a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from gpt2kit.tokenizer.protocol import Tokenizer


class TextStream:
    """The text of one sequence as it grows. The pieces joined are the whole text, up to the first stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        """A stop string was found; nothing more comes."""

    def push(self, token_id: int) -> str:
        """Take one more token. Returns the text that is now certain, often none."""
        return self._take(self._decoder.decode(self._tokenizer.bytes_of(token_id)))

    def finish(self) -> str:
        """Return what was held back; a character cut in the middle becomes U+FFFD."""
        rest = self._take(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return rest

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        certain = len(text) - self._possible_start(text)
        self._held = text[certain:]
        return text[:certain]

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string may begin with."""
        longest = min(len(text), max(map(len, self._stop), default=1) - 1)
        endings = range(longest, 0, -1)
        return next((n for n in endings if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)
