"""The pushes of one class: each an ffmpeg from the clock's position on, the first one loaded before its second."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from flows import show
from flows.host import log
from lectern.decide.broadcast import Push
from lectern.effects.media import ffmpeg
from lectern.effects.rows import cache
from lectern.effects.rows.airings import Airing
from lectern.errors import TryAgain

WARM_S, SPREAD_S = 8.0, 4.0
"""So long before a class its ffmpeg is loaded, and so far apart those of classes that begin in the same second: fifty
take two processors a second and a half, and would all be late by that."""

SLACK_S = 10.0
"""A push may run so much longer than its length before it is ended: ffmpeg ends by itself."""

SHORT_S = 2.0
"""A push that ended by itself and sent so much less than its length has run out of recording."""


@dataclass(frozen=True)
class Sent:
    """What became of a push: how many seconds it sent, and whether the recording ended before the push should."""

    seconds: float
    complete: bool = False
    ran_out: bool = False


class Pushes:
    """The pushes of *one*, whose recording is *row*."""

    def __init__(self, one: Airing, row: cache.Cached, bar: show.Progress, duration_s: float) -> None:
        self._one, self._bar, self._duration_s = one, bar, duration_s
        self._path = Path(row.site or "")
        self._warm: asyncio.Task[Sent] | None = None
        self._unused: list[asyncio.Task[Sent]] = []
        self._go = asyncio.Event()

    async def wait_for(self, push: Push) -> None:
        """Wait for the second of the first push, with an ffmpeg that is ready for it."""
        before_s = WARM_S + random.uniform(0, SPREAD_S)  # noqa: S311 (no secret)
        await asyncio.sleep(push.at - before_s - time.time())
        if self._warm is None:
            self._go = asyncio.Event()
            self._warm = asyncio.create_task(self._push(push, self._go))
        await asyncio.sleep(push.at - time.time())

    def begin(self, push: Push) -> asyncio.Task[Sent]:
        """Push now."""
        warm, self._warm = self._warm, None
        if warm is not None and push.position_s == 0 and not warm.done():
            self._go.set()
            return warm
        if warm is not None:
            self._unused.append(warm)  # it would begin too early in the recording, or was ended while it waited
            warm.cancel()
        return asyncio.create_task(self._push(push))

    async def close(self) -> None:
        """Nothing waits any more; why one of them failed, the push after it has said."""
        if self._warm is not None:
            self._warm.cancel()
            self._unused.append(self._warm)
        await asyncio.gather(*self._unused, return_exceptions=True)

    async def _push(self, push: Push, go: asyncio.Event | None = None) -> Sent:
        sent_s = 0.0

        def on_progress(progress: ffmpeg.Progress) -> None:
            nonlocal sent_s
            sent_s = max(sent_s, progress.out_time_s)
            self._bar.set(100 * (push.position_s + sent_s) / max(self._duration_s, 1.0))

        waits_s = max(0.0, push.at - time.time())
        try:
            finished = await ffmpeg.push(
                ffmpeg.executable(),
                self._path,
                self._one.push_url,
                position_s=push.position_s,
                length_s=push.length_s,
                timeout_s=waits_s + push.length_s + SLACK_S,
                on_progress=on_progress,
                go=go,
            )
        except TryAgain as error:
            log.warning("%s: push ended: %s", self._one.class_id, error.message)
            return Sent(sent_s)
        if finished.returncode != 0:
            log.warning("%s: push ended (%s): %s", self._one.class_id, finished.returncode, finished.last_words)
            return Sent(sent_s)
        short = sent_s < push.length_s - SHORT_S
        return Sent(sent_s, complete=not short, ran_out=short)
