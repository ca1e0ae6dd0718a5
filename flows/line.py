"""Who waits for a place at work: a place that gets free goes to whoever is needed first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Line:
    """Downloads that wait for their turn, and when the first class of each begins (epoch seconds)."""

    def __init__(self) -> None:
        self._needed_at: dict[str, float] = {}
        self._turns: dict[str, asyncio.Future[None]] = {}
        self._at_work = 0

    def sooner(self, stem: str, needed_at: float) -> None:
        """Another class needs a rendition that waits here."""
        if stem in self._needed_at:
            self._needed_at[stem] = min(needed_at, self._needed_at[stem])

    @asynccontextmanager
    async def place(self, stem: str, needed_at: float, places: int) -> AsyncIterator[None]:
        """Wait for one of *places*, and hold it."""
        if self._at_work < places:
            self._at_work += 1
        else:
            await self._turn(stem, needed_at)
        try:
            yield
        finally:
            self._give_on()

    async def _turn(self, stem: str, needed_at: float) -> None:
        turn = self._turns[stem] = asyncio.get_running_loop().create_future()
        self._needed_at[stem] = needed_at
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had its place already
                self._give_on()
            raise
        finally:
            del self._turns[stem], self._needed_at[stem]

    def _give_on(self) -> None:
        waiting = [stem for stem, turn in self._turns.items() if not turn.done()]
        if waiting:
            self._turns[min(waiting, key=lambda stem: self._needed_at[stem])].set_result(None)
        else:
            self._at_work -= 1
