"""What a class on air outlives: its streamer's resident, the worker that sends it, a recording that is missing."""

import asyncio
import os
import signal
import time
from typing import Any

from lectern.playout.control_socket import asked
from town.faults import Fault
from town.platform import foreign_s
from town.table import SLACK_S, Row, Table

GAP_S = 0.6
"""The longest pause that a viewer may see, on a machine that starts a resident process beside it."""

LENGTH_S = 18
GONE_S, SLATE_S, SLATE_LENGTH_S = 8, 6, 24
"""Seconds before its class at which the recording is lost; until when the origin lacks it; seconds of the class."""


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
        os.kill((await asked(self.stack.playout_socket, "status"))["pid"], signal.SIGKILL)
        await self.aired(row, booking)
        self._without_gap(row)

    async def slate(self) -> None:
        """The recording is lost before its class, and its origin has it again only some seconds into it."""
        row = self.row("c-slate", "the recording is missing for a while", "slate, then back, alarm 326", "1010")
        length_s = SLATE_LENGTH_S * self.stack.slowness
        if self.stack.slowness > 1.0:
            await self.looped(1010, length_s + 2)  # it comes back as late as a download takes
        booking = self.booking(row.class_id, 1010, lead_s=20, length_s=length_s)
        await self.book(booking)
        await self.answer(row.class_id)
        await _at(booking, -GONE_S)  # later than any check that would take the class from its streamer
        # The playout opens the file 2 s before the class: the first answer comes when the class is on air.
        late = Fault("1010/*", status=404, delay_s=3.5, times=1)
        faults = [self.stack.origin.faults.add(one) for one in (late, Fault("1010/*", status=404))]
        (self.stack.root / "video" / "1010" / "1010.flv").unlink(missing_ok=True)
        await _at(booking, SLATE_S)
        self.stack.origin.faults.clear(*faults)
        await self.aired(row, booking)
        self._without_gap(row)
        taken = self.platform.received(row.class_id)
        source = self.stack.root / "origin" / "1010" / "1010.flv"
        if row.ok:
            slate_s = await asyncio.to_thread(foreign_s, source, self.platform.file(taken[0]))
            why, fault = f"{slate_s or 0.0:.1f} s of slate", ""
            if slate_s is None:
                fault = "no picture of the recording was received"
            elif slate_s < SLATE_S - SLACK_S:
                fault = f"only {why}, not {SLATE_S - SLACK_S:g} s"
            self.settle(row, fault or await self.comes(lambda: self.alarmed(326), "alarm 326", row.class_id), why)

    def _without_gap(self, row: Row) -> None:
        gap_s = max((one.largest_gap_s for one in self.platform.received(row.class_id)), default=0.0)
        if row.ok:
            why = f"the longest gap was {gap_s:.2f} s"
            self.settle(row, "" if gap_s < GAP_S else f"{why}, which is more than {GAP_S} s", why)


async def _at(booking: dict[str, Any], seconds: float) -> None:
    """Wait until this many seconds of the class are over."""
    await asyncio.sleep(max(0.0, booking["start_time"] + seconds - time.time()))
