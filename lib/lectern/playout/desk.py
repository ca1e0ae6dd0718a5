"""What is done for each request on the control socket."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lectern.playout import journal, kernel, release, trial
from lectern.playout.airing import Airing
from lectern.playout.client import PROTOCOL
from lectern.playout.control import Do, Lines
from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.url import target
from lectern.playout.slices import in_slices
from lectern.playout.station import Now
from lectern.playout.timetable import BadRequest, networks

if TYPE_CHECKING:
    from lectern.playout.worker import Worker

TAKE_S = 5.0
"""Seconds in which a timetable is taken over, or the answer names the one before; a client gives up after 10 s."""
TRY_S = 5.0


class Desk:
    """Answers requests for a worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._taking: asyncio.Task[None] | None = None
        self.does: dict[str, Do] = {
            "hello": self._hello,
            "timetable": self._timetable,
            "status": self._status,
            "try": self._try,
            "upgrade": self._upgrade,
        }

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
            "timetable": {"path": str(self._worker.path), "version": self._worker.schedule.version},
        }

    async def _timetable(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take over the timetable on the disk, unless the wanted version is in force; answers which one is by then."""
        worker, schedule = self._worker, self._worker.schedule
        wanted, path = request.get("version"), request.get("path")
        for _ in range(2):  # it may be taken over already, as it was before the wanted version was written
            if wanted == schedule.version:
                break
            if self._taking is None or self._taking.done():
                file = worker.path if path is None else Path(str(path))
                self._taking = asyncio.create_task(worker.take_over(file))
            done, _ = await asyncio.wait({self._taking}, timeout=TAKE_S / 2)
            for one in done:
                one.result()
        problem = worker.aired.saved.problem
        found = {"version": schedule.version, "refused": schedule.refused, "left_out": schedule.left_out}
        return {**found, "durable": problem is None, **({"why": problem} if problem else {})}

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        worker, schedule = self._worker, self._worker.schedule
        known = schedule.active if request.get("active") else schedule.airings
        wanted = [known.get(str(request["class_id"]))] if "class_id" in request else list(known.values())
        classes = Lines()
        await in_slices(_shown([one for one in wanted if one is not None], classes))
        totals, now = worker.station.totals, Now.read()
        known_slate_s = sum(one.slate_s(now) for one in (*schedule.active.values(), *schedule.over.values()))
        told = {
            "since": worker.since,
            "lateness_s": round(max(worker.lateness.values(), default=0.0), 4),
            "bytes": totals.bytes,
            "reconnects": totals.reconnects,
            "slate_s": round(known_slate_s, 3),
            "classes_on_air": sum(one.state == "on_air" for one in schedule.active.values()),
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
        await worker.aired.save(everything=True)
        worker.pipe.say("upgrade")
        raise BadRequest(await worker.upgrading)


def _shown(airings: list[Airing], classes: Lines) -> Iterator[None]:
    """Add the status of *airings* to *classes*, a class at each step."""
    for one in airings:
        classes.append(json.dumps(one.status(Now.read())))
        yield
