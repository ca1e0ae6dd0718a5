"""Airs a class that the playout cannot air by an ffmpeg, which ends with this process and begins anew in the next."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from flows.host import Streamer, log
from lectern.effects import process
from lectern.effects.media import ffmpeg
from lectern.errors import LecternError
from lectern.facts import Airing

if TYPE_CHECKING:
    from flows.streamer.following import Following

LOOK_S = 0.25
GOOD_S = 1.5
"""Seconds after which a push counts as accepted by its receiver."""

AGAIN_S = 1.0
SLACK_S = 10.0


def begin(host: Streamer, one: Airing, wanted: dict[str, Any], following: "Following") -> None:
    """Air a class by ffmpeg; if ffmpeg airs it already, begin again with what is *wanted* now."""
    before = host.playout.children.get(one.class_id)
    task = asyncio.create_task(_ByFfmpeg(host, one, wanted, following).run(before))
    host.playout.children[one.class_id] = task


class _ByFfmpeg:
    """Airs one class, and reports it by the same events as the playout."""

    def __init__(self, host: Streamer, one: Airing, wanted: dict[str, Any], following: "Following") -> None:
        self._host, self._wanted, self._following = host, wanted, following
        self._class_id = one.class_id
        self._rows = host.playout.pushed.setdefault(one.class_id, [])

    async def run(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            before.cancel()
            await asyncio.wait({before})
        end = self._wanted["end"]
        try:
            await asyncio.sleep(self._wanted["start"] - time.time())
            while (now := time.time()) < end - 1:
                if self._host.playout.held() and await self._pushed(now):
                    break
                await asyncio.sleep(AGAIN_S)
            await self._tell("ended", why="its end has come", as_run=self._rows, **self._sums())
        except LecternError as error:
            log.error("%s: %s", self._class_id, error.message)
        finally:
            if self._host.playout.children.get(self._class_id) is asyncio.current_task():
                del self._host.playout.children[self._class_id]
                self._host.playout.pushed.pop(self._class_id, None)

    async def _pushed(self, began: float) -> bool:
        """Push once; returns whether ffmpeg came to its end by itself and well."""
        position_s = began - self._wanted["start"]
        session = len(self._rows) + 1
        row = {
            "url": 0,
            "session": session,
            "source": "recording",
            "from": began,
            "to": began,
            "sent_s": 0.0,
            "position_s": position_s,
            "open": True,
        }
        pushing = asyncio.create_task(self._push(position_s, self._wanted["end"] - began))
        is_good = False
        try:
            while not pushing.done() and self._host.playout.held():
                await asyncio.wait({pushing}, timeout=LOOK_S)
                now = time.time()
                if now - began >= GOOD_S:
                    if not is_good:
                        self._rows.append(row)
                        await self._tell("on_air", session=session, position_s=position_s)
                    is_good = True
                    row |= {"to": min(now, self._wanted["end"]), "sent_s": now - began}
        finally:
            pushing.cancel()
            await asyncio.wait({pushing})
        why = "the lease is over"
        try:
            finished = pushing.result()
            if finished.returncode == 0:
                return True
            why = finished.last_words
        except asyncio.CancelledError:
            pass  # we cancelled it
        except LecternError as error:  # also one that needs a person: who installs ffmpeg finds the class on air
            why = error.message
        await self._tell("broke_off", session=session, why=why, was_on_air=is_good, retry_in_s=AGAIN_S)
        return False

    async def _push(self, position_s: float, length_s: float) -> process.Finished:
        argv = ffmpeg.push_argv(self._wanted["file"], self._wanted["push_urls"][0], position_s, length_s)
        return await process.run(argv, timeout_s=length_s + SLACK_S)

    def _sums(self) -> dict[str, float]:
        sent_s = sum(row["to"] - row["from"] for row in self._rows)
        length_s = self._wanted["end"] - self._wanted["start"]
        return {"sent_s": sent_s, "slate_s": 0.0, "gap_s": max(0.0, length_s - sent_s), "sessions": len(self._rows)}

    async def _tell(self, event: str, **more: Any) -> None:  # noqa: ANN401 (whatever the event has)
        await self._following.take({"event": event, "class_id": self._class_id, "at": time.time(), "url": 0, **more})
