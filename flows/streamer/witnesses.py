"""Asks Prefect and other streamers about a streamer's classes while it does not hear the control host."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError

from flows.host import Streamer, log
from lectern.decide import control_lost
from lectern.decide.control_lost import Peer, Peers, Verdict, Word
from lectern.effects import health
from lectern.effects.rows import leases
from lectern.errors import TryAgain

ASK_S = 4.0
"""Seconds that Prefect has to answer before it counts as away; fewer if the lease is short, to ask again in time."""

LOOK_S = 2.0
"""Seconds that another streamer has to answer."""


class Witnesses:
    """Knows the other streamers by their last beats, and asks them.

    Their names are on the disk before a beat reports them: the teacher moves classes only to streamers that this one
    reported, and this one asks all of those, also after its restart.
    """

    def __init__(self, host: Streamer) -> None:
        self._host = host
        self._known: dict[str, str] | None = None  # addresses of the others by name; None until a beat names them
        self._say: list[str] | None = None  # the names that the next beat reports

    async def remember(self) -> None:
        """Read which streamers the process before this one knew; a disk that cannot be read ends no heartbeat."""
        try:
            self._known = await self._host.look(leases.peers, self._host.settings.name)
        except DBAPIError as error:
            log.error("database: cannot be read: %s", error.orig)

    @property
    def said(self) -> dict[str, Any]:
        """The field of a beat that names the other streamers."""
        says = control_lost.says(self._host.settings.on_control_lost, self._named)
        return {} if says is None else {"peers": says}

    @property
    def _named(self) -> list[str]:
        return list(self._known or ()) if self._say is None else self._say

    async def take_in(self, beats: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the streamers of *beats*, and keep those that our last beat named."""
        name = self._host.settings.name
        found = control_lost.others(beats, name)
        named = {one: address for one, address in (self._known or {}).items() if one in self._named}
        if (known := named | found) != self._known:
            try:
                await self._host.commit(leases.note_peers, name, known)
            except DBAPIError as error:
                log.error("database: the other streamers cannot be written down: %s", error.orig)
                return
        self._known, self._say = known, sorted(found)

    async def verdict(self, session: str, claim: str) -> Verdict:
        """Whether the classes of the running lease of *session* go on; *claim* may have been granted meanwhile."""
        policy = self._host.settings.on_control_lost
        asks = policy == "ask peers"
        word, peers = await asyncio.gather(self._prefect(session, claim), self._peers() if asks else _nobody())
        return control_lost.verdict(policy, word, peers)

    async def _prefect(self, *sessions: str) -> Word:
        name = self._host.settings.name
        try:
            async with asyncio.timeout(min(ASK_S, self._host.settings.lease_s / 4)):
                taken = [await self._host.runs.is_taken_from(name, session) for session in sessions]
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
