"""Keeps downloads from what pushes need of the network: a governor shares out the rest, and downloads keep to it."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from flows.host import StreamerHost, log
from lectern import metrics
from lectern.db import airings, forecast
from lectern.decide import bandwidth as decide
from lectern.decide.bandwidth import Bounds, Download, Pushes, Shares
from lectern.errors import DOWNLOAD_FAILED, Refuse, TryAgain
from lectern.i18n import msgid
from lectern.model.facts import Needed
from lectern.model.views import Network
from lectern.storage import cache_dir, origin
from lectern.storage.origin import RemoteFile
from lectern.timing import comes, shielded

EVERY_S = 2.0  # seconds between two looks
READ_S = 30.0  # seconds between two looks at the rows of the classes that are on air, or soon will be
OLD_S = 30.0  # seconds after which a rate counts no more: DOWNLOAD_RATE is the only limit if there is no governor
LOOK_S, FIRST_S = 0.5, 0.05  # seconds between two looks of a download at its rate, and until it has one
ASK_S = 2.0
LOOKED_S = 60.0  # seconds for which a look at the origin counts: a signed URL may expire while its download waits

P = ParamSpec("P")
T = TypeVar("T")
ANSWERS_S = 20.0  # seconds that the disk has for a look at what came of downloads, or at its room
_looking = ThreadPoolExecutor(4, thread_name_prefix="downloads")
"""Threads of their own: a look at a disk that hangs is not to hold up those who read and write the database."""


async def looked(
    host: StreamerHost, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """As `host.read_tx`, for *work* that also looks at the disk; raises TryAgain if that does not answer in time."""
    try:
        async with asyncio.timeout(ANSWERS_S):
            return await host.read_tx_in(_looking, work, *args, **kwargs)
    except TimeoutError as error:
        text = msgid("{path}: not probed within {timeout_s:g} s; is the disk busy?")
        raise TryAgain(text, path=host.settings.video_root, timeout_s=ANSWERS_S) from error


class Governor:
    """Finds what the pushes need, and what each download may take."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._needed: list[Needed] = []
        self._read_at = -math.inf
        # What the last look began with, and how far a class was behind.
        self._last: tuple[Shares, float] = Shares(), 0.0

    async def run(self) -> None:
        """Share the network out until cancelled; what comes between two looks gets its share at once."""
        looked_at = -math.inf
        while True:
            self._host.watchdog.beat("bandwidth")
            self._host.unshared.clear()
            if looks := time.monotonic() - looked_at >= EVERY_S - LOOK_S:
                looked_at = time.monotonic()
            await self.step(looks=looks)
            await comes(self._host.unshared, EVERY_S)

    async def step(self, *, looks: bool = True) -> None:
        """Share out once; if it *looks*, by how far classes are behind now: downloads are cut, or rise, by the look."""
        host, now = self._host, time.time()
        if time.monotonic() - self._read_at >= READ_S:
            self._needed = await host.read_tx(airings.needed, now, now + decide.AHEAD_S + READ_S)
            self._read_at = time.monotonic()
        need_bytes = decide.push_bytes(self._needed, now)
        bounds = Bounds.of(host.settings)
        await self._share_out(bounds, need_bytes, now, looks=looks)
        uses = {"push": need_bytes, "download": sum(host.shares.rates.values()), "bound": bounds.host_bytes}
        for use, each in uses.items():
            metrics.BANDWIDTH.labels(use).set(each if math.isfinite(each) else math.nan)
        finite = {use: each if math.isfinite(each) else None for use, each in uses.items()}
        host.network = Network(need_bytes, finite["download"], finite["bound"])

    async def _share_out(self, bounds: Bounds, need_bytes: float, now: float, *, looks: bool) -> None:
        host = self._host
        some = await under_way(host)
        if not some:
            host.shares, host.shared_at = Shares(), time.monotonic()
            return
        if looks:
            self._last = host.shares, await self._behind_s() if any(one.begun for one in some) else 0.0
        pushes, began = Pushes(need_bytes, self._last[1]), replace(self._last[0], urgent=host.shares.urgent)
        before, host.shares = host.shares, decide.shared_out(some, bounds, pushes, began, now)
        host.shared_at = time.monotonic()
        if (before.waiting, before.share < 1) != (host.shares.waiting, host.shares.share < 1):
            log.info(
                "bandwidth: %d of %d downloads wait, the others have %.0f %% of their share; a class is %.1f s behind",
                host.shares.waiting,
                len(host.shares.rates),
                100 * host.shares.share,
                pushes.behind_s,
            )

    async def _behind_s(self) -> float:
        """How far the class that is furthest behind the clock is behind; 0 if the playout does not say."""
        try:
            async with asyncio.timeout(ASK_S):
                status = await self._host.playout.ask("status", active=True)
        except (TryAgain, TimeoutError):
            return 0.0
        return max((float(each["behind_s"]) for each in status["classes"]), default=0.0)


async def under_way(host: StreamerHost) -> list[Download]:
    """The downloads that are begun, or to be begun."""
    coming = await looked(host, forecast.downloads, host.settings)
    return [replace(one, begun=one.stem in host.in_progress) for one in coming.values()]


def rate(host: StreamerHost, stem: str) -> float:
    """Bytes a second that the download of *stem* may take now; 0 if it is to wait."""
    each = host.settings.download_rate_bytes
    is_old = time.monotonic() - host.shared_at > OLD_S
    return each if is_old else min(host.shares.rates.get(stem, 0.0), each)


async def download(
    host: StreamerHost, stem: str, size_bytes: int, remote: RemoteFile, on_progress: Callable[[int], None]
) -> bool:
    """Download *remote*, at the rates that *stem* may take; returns whether it was begun anew for another rate.

    Raises what `origin.download` raises, and TryAgain for what is refused when the look that found *remote* is old. The
    time that it waits does not count.
    """
    settings, left_s, begun = host.settings, host.settings.download_timeout_s, 0
    part, looked_at = cache_dir.part_path(settings.video_root, stem), time.monotonic()
    host.unshared.set()
    while True:
        if (now := rate(host, stem)) <= 0:
            await asyncio.sleep(LOOK_S if stem in host.shares.rates else FIRST_S)
            continue
        begun, at = begun + 1, time.monotonic()
        text = settings.download_rate if now == settings.download_rate_bytes else f"{now if now < math.inf else 0:.0f}"
        limits = origin.WgetLimits(text, max(left_s, 1.0), size_bytes)
        download = asyncio.ensure_future(origin.download(settings.wget_path, remote, part, limits, on_progress))
        try:
            while not download.done() and not decide.takes(now, rate(host, stem), time.monotonic() - at):
                await asyncio.wait({download}, timeout=LOOK_S)
        finally:
            download.cancel()
            await shielded(asyncio.wait({download}))
        if not download.cancelled():
            refused = download.exception()
            if isinstance(refused, Refuse) and refused.code is DOWNLOAD_FAILED and at - looked_at > LOOKED_S:
                raise TryAgain(refused.message, DOWNLOAD_FAILED) from refused  # the next try looks at the origin first
            download.result()
            return begun > 1
        left_s -= time.monotonic() - at
