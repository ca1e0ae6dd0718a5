"""What is done for each request on the control socket."""

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from lectern.playout import journal, kernel, release, trial
from lectern.playout.airing import Airing
from lectern.playout.control import PROTOCOL, Do
from lectern.playout.kept import Kept
from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.url import target
from lectern.playout.station import Now
from lectern.playout.timetable import FORGET_S, BadRequest, Entry, lesson, networks

if TYPE_CHECKING:
    from lectern.playout.worker import Worker

SAVE_EVERY_S = 10.0
TRY_S = 5.0
MAX_CLASSES = 10_000
_CHECK_S = 1.0


class Desk:
    """Answers requests for a worker, and keeps its timetable on the disk."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._saved = Kept("the timetable", worker.file.path, self._timetable, is_synced=True)
        self.does: dict[str, Do] = {
            "hello": self._hello,
            "air": self._air,
            "cancel": self._cancel,
            "status": self._status,
            "try": self._try,
            "upgrade": self._upgrade,
        }

    async def save_for_ever(self) -> None:
        """Save the timetable when a session began or a class ended, and every 10 s on air; forget classes long over."""
        saved_at, saved = time.monotonic(), (0, 0)
        while True:
            await asyncio.sleep(_CHECK_S)
            airings = self._worker.airings
            over = {one.class_id for one in airings.values() if one.entry.ended is not None}
            is_sending = any(one.state == "on_air" for one in airings.values())
            known = len(over), sum(one.row_count for one in airings.values())
            if known != saved or (is_sending and time.monotonic() - saved_at >= SAVE_EVERY_S):
                saved_at, saved = time.monotonic(), known
                await self._saved.write()
            for class_id in over & airings.keys():
                if airings[class_id].entry.lesson.end + FORGET_S < time.time():
                    del airings[class_id]

    def _timetable(self) -> str:
        airings = self._worker.airings.values()
        for airing in airings:
            airing.write_down()
        return self._worker.file.text({one.class_id: one.entry for one in airings})

    async def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        until = self._worker.shared.lease_until
        return {
            "release": release.name(),
            "protocol": PROTOCOL,
            "journal": journal.VERSION,
            "pid": os.getpid(),
            "holder_pid": self._worker.terms.holder,
            "hand_over": kernel.HAND_OVER,
            "lease_until": until,
            "boot_now": kernel.boot_now(),
        }

    async def _air(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted, now = lesson(request), Now.read()
        airings = self._worker.airings
        known = airings.get(wanted.class_id)
        if known is not None and known.entry.lesson == wanted:
            change = "same"
        elif known is not None:
            change = "changed"
            known.change(wanted, now)
        elif len(airings) >= MAX_CLASSES:
            raise BadRequest(f"the timetable has {MAX_CLASSES} classes already, which is all it takes")
        else:
            change = "new"
            airings[wanted.class_id] = Airing(Entry(wanted), self._worker.station)
        problem = await self._saved.write() if change != "same" or self._saved.problem else None
        return {"change": change, "durable": problem is None, **({"why": problem} if problem else {})}

    async def _cancel(self, request: dict[str, Any]) -> dict[str, Any]:
        airing = self._worker.airings.pop(str(request.get("class_id")), None)
        if airing is None:
            return {"was": None}
        was = airing.state
        if was != "ended":
            airing.end("it was cancelled", Now.read())
        problem = await self._saved.write()
        return {"was": was, "durable": problem is None, **({"why": problem} if problem else {})}

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        now, worker = Now.read(), self._worker
        wanted = request.get("class_id")
        airings = [one for one in worker.airings.values() if wanted in (None, one.class_id)]
        classes = [one.status(now) for one in airings]
        totals = worker.station.totals
        told = {
            "since": worker.since,
            "lateness_s": round(max(worker.lateness.values(), default=0.0), 4),
            "bytes": totals.bytes,
            "reconnects": totals.reconnects,
            "slate_s": round(sum(one.sums(now)["slate_s"] for one in worker.airings.values()), 3),
            "classes_on_air": sum(one.state == "on_air" for one in worker.airings.values()),
            "taken_over": worker.taken_over,
        }
        return {**await self._hello(request), "worker": told, "classes": classes}

    async def _try(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            where = target(str(request.get("url")))
        except NotRtmp as error:
            raise BadRequest(f"url: {error}") from error
        allowed = networks(request)
        try:
            trusted = self._worker.station.trusted if where.secure else None
            return {"refused": await asyncio.wait_for(trial.refusal(where, trusted, allowed), TRY_S)}
        except TimeoutError:
            return {"refused": f"the server does not answer within {TRY_S:g} s"}
        except OSError as error:
            return {"refused": str(error)}

    async def _upgrade(self, _: dict[str, Any]) -> dict[str, Any]:
        worker = self._worker
        if worker.upgrading is not None and not worker.upgrading.done():
            raise BadRequest("an upgrade is under way")
        worker.upgrading = asyncio.get_running_loop().create_future()
        await self._saved.write()
        worker.pipe.say("upgrade")
        raise BadRequest(await worker.upgrading)
