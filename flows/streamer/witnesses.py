"""Asks Prefect and other streamers about a streamer's classes while it does not hear the control host."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError

from flows.host import log
from lectern.decide import control_lost
from lectern.decide.control_lost import Peer, Peers, Verdict, Word
from lectern.effects import health
from lectern.errors import TryAgain
from lectern.settings import StreamerSettings

ASK_S = 4.0
"""Seconds that Prefect has to answer before it counts as away; fewer if the lease is short, to ask again in time."""

LOOK_S = 2.0
"""Seconds that another streamer has to answer."""

IsTaken = Callable[[str, str], Awaitable[bool]]
"""Asks Prefect whether the classes of a streamer, by the session of its lease, are taken; raises TryAgain."""


class Witnesses:
    """Knows the other streamers by their last beats, and asks them.

    Their names are on the disk before a beat reports them: the teacher moves classes only to streamers that this one
    reported, and this one asks all of those, also after its restart. *known* are those that the disk has (addresses by
    name); None if no beat ever named them. *note* writes them down.
    """

    def __init__(
        self,
        settings: StreamerSettings,
        known: dict[str, str] | None,
        note: Callable[[Mapping[str, str]], Awaitable[None]],
    ) -> None:
        self._settings, self._known, self._note = settings, known, note
        self._say: list[str] | None = None  # the names that the next beat reports
        self._noting: asyncio.Task[None] | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The field of a beat that names the other streamers."""
        says = control_lost.says(self._settings.on_control_lost, self._named)
        return {} if says is None else {"peers": says}

    @property
    def _named(self) -> list[str]:
        return list(self._known or ()) if self._say is None else self._say

    def take_in(self, beats: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the streamers of *beats*, and those that our last beat named; no beat waits for the disk."""
        found = control_lost.others(beats, self._settings.name)
        known = {one: address for one, address in (self._known or {}).items() if one in self._named} | found
        if known == self._known:
            self._say = sorted(found)
        elif self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._note_down(known, sorted(found)))

    async def _note_down(self, known: dict[str, str], found: list[str]) -> None:
        try:
            await self._note(known)
        except DBAPIError as error:
            log.error("database: the other streamers cannot be written down: %s", error.orig)
            return
        self._known, self._say = known, found

    async def verdict(self, is_taken: IsTaken, session: str, claim: str) -> Verdict:
        """Whether the classes of the running lease of *session* go on; *claim* may have been granted meanwhile."""
        policy = self._settings.on_control_lost
        peers = self._peers() if policy == "ask peers" else _nobody()
        word, others = await asyncio.gather(self._prefect(is_taken, session, claim), peers)
        return control_lost.verdict(policy, word, others)

    async def _prefect(self, is_taken: IsTaken, *sessions: str) -> Word:
        try:
            async with asyncio.timeout(min(ASK_S, self._settings.lease_s / 4)):
                taken = [await is_taken(self._settings.name, session) for session in sessions]
        except (TryAgain, TimeoutError) as error:
            log.debug("prefect: cannot be asked for the lease: %r", error)
            return Word.AWAY
        return Word.TAKEN if any(taken) else Word.FREE

    async def _peers(self) -> Peers:
        if self._known is None:
            return Peers.SILENT  # no heartbeat has told yet who the others are
        looks = await asyncio.gather(*(_look(*one) for one in self._known.items()))
        for name, look in zip(self._known, looks, strict=True):
            log.debug("%s: %s", name, look)
        return control_lost.together(looks)


async def _nobody() -> Peers:
    return Peers.SILENT


async def _look(name: str, address: str) -> Peer:
    return control_lost.look(await health.of(address, LOOK_S) if address else None, name)
