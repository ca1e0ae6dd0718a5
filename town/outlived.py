"""What a class on air outlives: its streamer's resident, the worker that sends it, a recording that is missing."""

import asyncio
import os
import signal
import time
from typing import Any

from town import playout
from town.table import Row, Table

GAP_S = 0.6
"""The longest pause that a viewer may see, on a machine that starts a resident process beside it."""

LENGTH_S = 18


class Outlived(Table):
    """These paths, one a method."""

    async def resident_killed(self) -> None:
        """The streamer's resident is killed in class, and started again."""
        row = self.row("c-resident", "the streamer's resident is killed in class", "no gap, one session", "1007")
        booking = self.booking(row.class_id, 1007, lead_s=20, length_s=LENGTH_S)
        await self.book(booking)
        await _at(booking, 4)
        resident = self.stack.children["streamer"]
        resident.process.kill()
        await resident.process.wait()
        await self.stack.serve("streamer")
        await self.aired(row, booking)
        self._without_gap(row)

    async def worker_killed(self) -> None:
        """The process that sends the class is killed."""
        row = self.row("c-worker", "the playout's worker is killed in class", "the same session goes on", "1007")
        booking = self.booking(row.class_id, 1007, lead_s=20, length_s=LENGTH_S)
        await self.book(booking)
        await _at(booking, 8)
        os.kill((await playout.asked(self.stack.playout_socket))["pid"], signal.SIGKILL)
        await self.aired(row, booking)
        self._without_gap(row)

    async def slate(self) -> None:
        """The recording is missing when its class begins, and is there some seconds later."""
        row = self.row("c-slate", "the recording is missing for a while", "slate, then back, alarm 326", "1010")
        booking = self.booking(row.class_id, 1010, lead_s=20, length_s=LENGTH_S)
        await self.book(booking)
        await self.answer(row.class_id, booking["start_time"])
        file = self.stack.root / "video" / "1010" / "1010.flv"
        aside = file.rename(self.stack.root / "aside.flv")
        await _at(booking, 6)
        aside.rename(file)
        await _at(booking, 12)
        told = await playout.asked(self.stack.playout_socket)
        (mine,) = [one for one in told["classes"] if one["class_id"] == row.class_id]
        await self.aired(row, booking)
        self._without_gap(row)
        sources = [one["source"] for one in mine["as_run"]]
        if row.ok and sources != ["slate", "recording"]:
            row.ok, row.why = False, f"was sent: {', '.join(sources)}"
        if row.ok and not any(one["code"] == 326 for one in self.platform.alarms):
            row.ok, row.why = False, "no alarm 326 came"

    def _without_gap(self, row: Row) -> None:
        gap_s = max((one.largest_gap_s for one in self.platform.received(row.class_id)), default=0.0)
        if row.ok:
            row.ok, row.why = gap_s < GAP_S, f"the longest gap was {gap_s:.2f} s"


async def _at(booking: dict[str, Any], seconds: float) -> None:
    """Wait until this many seconds of the class are over."""
    await asyncio.sleep(max(0.0, booking["start_time"] + seconds - time.time()))
