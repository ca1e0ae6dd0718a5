"""Renews the lease of a streamer's classes by heartbeats; asks others if Redis confirms none."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows import trouble
from flows.host import Streamer, log
from flows.playout import boot_now
from flows.streamer.witnesses import Witnesses
from lectern.decide import lease as decide
from lectern.effects.rows import airings, cache, leases
from lectern.settings import StreamerSettings

AGAIN_S = 1.0
FULL_S = 30.0
"""Seconds for which a disk counts as full after a failed write."""


class Keeper:
    """Keeps the lease of one streamer for as long as no other streamer can have its classes."""

    def __init__(self, host: Streamer) -> None:
        self._host = host
        self._session = ""
        host.claim = uuid4().hex
        self._ours = False  # whether the lease was ours at the last answered beat
        self._lease = decide.Lease()
        self._trouble = False
        self._was_held = False
        self._looking: asyncio.Task[None] | None = None
        self._fields: dict[str, Any] = {"used_bytes": 0, "on_air": 0}
        self._witnesses = Witnesses(host)
        self._why = ""  # why the classes go on, or end, while no beat is confirmed

    async def run(self) -> None:
        """Beat until cancelled."""
        await self._witnesses.remember()
        while True:
            self._host.rounds.come("lease")
            pause_s = await self._once()
            self._say_whether_held()
            await asyncio.sleep(pause_s)

    async def _once(self) -> float:
        """One beat; returns after how many seconds the next one is due."""
        settings = self._host.settings
        asked_at = boot_now()
        await self._look()
        if self._session == self._host.claim:
            # Never claim the current session again: it would be granted before we read the releases issued under it.
            self._host.claim = uuid4().hex
        asking = asyncio.create_task(self._ask()) if self._trouble else None
        claim = {"session": self._host.claim, "lease_s": settings.lease_s}
        fields = self._fields | self._witnesses.said
        try:
            async with asyncio.timeout(self._patience_s):
                beats = await self._host.bus.beat(settings.streamers_key, settings.name, self._session, fields, claim)
        except Exception as error:  # noqa: BLE001 (whatever it is, others may still keep the lease)
            if not isinstance(error, (RedisError, OSError)):
                await trouble.say(self._host, "lease", error, AGAIN_S)
            self._host.hears = False
            self._take(decide.Answer.NONE, asked_at)
            await (asking or self._ask())
            if not self._trouble:
                log.warning("redis: no heartbeat: %s", str(error) or "no answer in time")
            self._trouble = True
            return min(AGAIN_S, settings.heartbeat_interval_s)
        if isinstance(beats, Mapping):
            if asking is not None:
                asking.cancel()
            await self._confirmed(beats, asked_at)
            return settings.heartbeat_interval_s
        if asking is not None:
            asking.cancel()
        self._host.hears = False
        answer = decide.answer(beats, self._host.claim)
        self._refused(answer)
        if answer is not decide.Answer.TAKEN:
            await self._ask()
        return min(AGAIN_S, settings.heartbeat_interval_s)

    async def _confirmed(self, beats: Mapping[str, Mapping[str, Any]], asked_at: float) -> None:
        self._take(decide.Answer.OURS, asked_at)
        if self._why:
            log.info("lease: the control host is heard again")
        self._host.hears, self._ours, self._trouble, self._why = True, True, False, ""
        await self._witnesses.take_in(beats)

    @property
    def _patience_s(self) -> float:
        """Seconds that Redis may take for a heartbeat; in trouble, fewer than Prefect's answer remains valid."""
        if self._trouble:
            return decide.WITNESS_S / 4
        lease_s = self._host.settings.lease_s
        return min(5.0, lease_s / 4) if lease_s else 5.0

    async def _look(self) -> None:
        """Read what is sent with the heartbeat; a disk that hangs or is full stops no heartbeat."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._read())
        await asyncio.wait({self._looking}, timeout=AGAIN_S)
        if self._looking.done() and (error := self._looking.exception()) is not None:
            await trouble.say(self._host, "what a heartbeat says", error, AGAIN_S)

    async def _read(self) -> None:
        settings = self._host.settings
        self._fields |= {
            "max_bytes": settings.max_bytes,
            "full": self._is_full(),
            "address": self._host.address,
        }
        try:
            self._session, facts = await self._host.look(_facts, settings)
            self._fields |= facts
            if facts["drains"]:
                self._fields["full"] = True  # a teacher of an older release, too, then gives it no class
        except DBAPIError as error:
            log.error("database: cannot be read: %s", error.orig)

    def _is_full(self) -> bool:
        """Whether the disk takes nothing: then this streamer gets no classes, because it could not even refuse them."""
        since = self._host.no_room_at
        return since is not None and time.monotonic() - since < FULL_S

    async def _ask(self) -> None:
        """Ask Prefect and the other streamers while Redis is away; classes go on if no other streamer can have them."""
        if not self._host.playout.held() or self._host.settings.lease_s == 0:
            return
        asked_at = boot_now()
        found = await self._witnesses.verdict(self._session, self._host.claim)
        lease = decide.Lease(self._host.playout.until, self._lease.answer)
        self._lease = lease.witnessed(asked_at, boot_now(), goes_on=found.goes_on)
        if self._lease != lease:
            self._host.playout.hold(self._lease.until)
        if found.why != self._why:
            self._why = found.why
            left_s = max(self._host.playout.until - boot_now(), 0.0)
            ends = "the classes go on" if found.goes_on else f"they end in {left_s:.0f} s"
            log.warning("lease: no heartbeat is confirmed: %s; %s", found.why, ends)

    def _refused(self, answer: decide.Answer) -> None:
        """Give up a lease that was taken, before anything else; the next beats claim a new session."""
        self._take(answer, boot_now())
        if self._ours:
            log.warning("lease: is not ours any more, a new one is asked for")
        self._ours, self._trouble = False, True

    def _take(self, answer: decide.Answer, asked_at: float) -> None:
        """Tell the playout when the lease ends after Redis' *answer*."""
        until = self._host.playout.until
        self._lease = decide.Lease(until, self._lease.answer).answered(
            answer, asked_at, boot_now(), self._host.settings.lease_s
        )
        if self._lease.until != until:
            self._host.playout.hold(self._lease.until)

    def _say_whether_held(self) -> None:
        held = self._host.playout.held()
        if held and not self._was_held:
            log.info("lease: held")
        elif self._was_held and not held:
            log.error("lease: has run out; nothing is pushed until it is held again")
        self._was_held = held


def _facts(connection: Connection, settings: StreamerSettings) -> tuple[str, dict[str, Any]]:
    session = leases.session(connection, settings.name)
    used_bytes = cache.used(connection, settings.video_root).size_bytes
    drains = leases.drained_since(connection, settings.name) is not None
    return session or "", {"used_bytes": used_bytes, "on_air": airings.on_air(connection), "drains": drains}
