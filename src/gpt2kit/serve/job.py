"""One request on its way through the worker: pieces of text arrive in the event loop that asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVarTuple

from gpt2kit.errors import Gpt2kitError
from gpt2kit.generate.texts import Piece
from gpt2kit.serve.ordering import Order

Arrival = Piece | Gpt2kitError
Values = TypeVarTuple("Values")


class Job:
    """An order that was taken. Belongs to the event loop in which it was made."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.loop = asyncio.get_running_loop()
        self._unfinished = len(order.requests)
        self._arrived: list[Piece] = []
        self._error: Gpt2kitError | None = None
        self._news = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether every text is whole and has been taken."""
        return not (self._unfinished or self._arrived)

    def call(self, function: Callable[[*Values], object], *values: *Values) -> bool:
        """Have `function` called in its event loop, from any thread; False where that is closed."""
        try:
            self.loop.call_soon_threadsafe(function, *values)
        except RuntimeError:
            return False
        return True

    def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """Take in what the worker brings."""
        for arrival in arrivals:
            if isinstance(arrival, Gpt2kitError):
                self._error = arrival
            else:
                self._arrived.append(arrival)
                self._unfinished -= bool(arrival.completion)
        self._news.set()

    async def take(self) -> list[Piece]:
        """What has arrived since the last time; waits for it. Raises what ended the job."""
        await self._news.wait()
        pieces, self._arrived = self._arrived, []
        if not pieces and self._error:
            raise self._error
        if not self._error:  # else it is told the next time
            self._news.clear()
        return pieces
