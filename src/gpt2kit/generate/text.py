"""From token ids to pieces of text: half characters are held back, and so is what may become a stop string."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from gpt2kit.tokenizer.protocol import Tokenizer

LONGEST_WORD = 128  # characters; of a longer one only the end is looked at
# Where a sentence ends, read from left to right; what the first branch takes is no end, nor is the dot in 3.14.
# Rows of marks are bounded: without, a thousand dots cost the square of their number.
SENTENCE_END = re.compile(
    r"""
    \b(?: [A-Z\xc0-\xde] | Mr | Mrs | Ms | Dr | Prof | St | Jr | Sr | Gen | Col | Capt | Lt | Sgt | Rev
        | vs | cf | etc | e\.g | i\.e | a\.m | p\.m ) \.
    | (?P<end> [.!?\u2026]{1,32} ["')\]}\u2019\u201c\u201d\xbb]{0,32} ) (?=\s)
    | (?P<cjk>  # full stop, ! and ?; then quotes, brackets
        [\u3002\uff01\uff1f]{1,32} [\u300d\u300f\u201d\u2019\uff09\u300b]{0,32} )
        (?= [^\u3002\uff01\uff1f\u300d\u300f\u201d\u2019\uff09\u300b] )
    """,
    re.VERBOSE,
)


class TextStream:
    """The text of one sequence as it grows. The pieces joined are the whole text, up to where it stops.

    It stops before the first stop string, or with `keep_stop` behind it, and with `until_sentence` after the first
    sentence, which is known as soon as the next character is there. Nothing stops it within the text of the first
    `min_tokens` tokens: a stop string counts if it begins behind that text, a sentence if it ends with it or behind it.
    A character that those tokens only begin is behind it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        until_sentence: bool = False,
        min_tokens: int = 0,
        keep_stop: bool = False,
    ) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._until_sentence, self._min_tokens, self._keep_stop = until_sentence, min_tokens, keep_stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._tokens = 0
        self._word = ""  # what was returned since the last white space: a sentence ends with a word
        self._held = ""
        self.stopped = False
        """The end was found; nothing more comes."""

    def push(self, token_id: int) -> str:
        """Take one more token. Returns the text that is now certain, often none."""
        self._tokens += 1
        return self._take(self._decoder.decode(self._tokenizer.bytes_of(token_id)))

    def finish(self) -> str:
        """Return what was held back, but no half of a character: a text is cut where a token ends, not a character."""
        rest, self._held = self._held, ""
        return rest

    def _take(self, text: str) -> str:
        if self.stopped:
            return ""
        if self._tokens <= self._min_tokens:
            return self._returned(text)
        text = self._held + text
        # Where each of them begins, and behind it: of those that begin together, the shortest was whole first.
        stops = [(at, at + len(stop)) for stop in self._stop if (at := text.find(stop)) >= 0]
        ends = stops + [(at, at) for at in self._sentence_ends(text)]
        self.stopped = bool(ends)
        certain = min(ends)[self._keep_stop] if ends else len(text) - self._possible_start(text)
        self._held = "" if ends else text[certain:]
        return self._returned(text[:certain])

    def _returned(self, text: str) -> str:
        if self._until_sentence:
            self._word = re.split(r"\s", self._word + text)[-1][-LONGEST_WORD:]
        return text

    def _sentence_ends(self, text: str) -> list[int]:
        """Where in `text`, which follows what was returned, sentences end."""
        if not self._until_sentence:
            return []
        found = SENTENCE_END.finditer(self._word + text)
        ends = [match.end() - len(self._word) for match in found if match.lastgroup]
        return [at for at in ends if at >= 0]

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that a stop string may begin with."""
        longest = min(len(text), max(map(len, self._stop), default=1) - 1)
        endings = range(longest, 0, -1)
        return next((n for n in endings if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)
