"""Reads the settings anew while the process is at work: all of them are taken over, or, if one is wrong, none."""

import asyncio
import ipaddress
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flows.host import StreamerHost, TeacherHost, log
from flows.teacher import webhook
from flows.teacher.ecs import transcode as ecs
from lectern import logs, notify
from lectern.db import cache
from lectern.errors import LecternError
from lectern.i18n import Text, joined, msgid, packed
from lectern.settings import Change, Cost, Settings, StreamerSettings, TeacherSettings

_PASSED_ON = "forwarded", "x-forwarded-for", "x-real-ip", "origin"
"""Headers of a request that comes from elsewhere, by a proxy or a page in a browser of this machine."""


@dataclass(frozen=True)
class Taken:
    """What a reload has changed, and what people should know of it, by setting."""

    changes: list[Change]
    notes: dict[str, str]

    def lines(self) -> list[str]:
        """A sentence for each change."""
        notes = [[self.notes[change.name]] if change.name in self.notes else [] for change in self.changes]
        return [
            joined([str(change), *note], msgid("{first}, {second}"))
            for change, note in zip(self.changes, notes, strict=True)
        ]


class Reload:
    """``POST /reload``, from this host only, and SIGHUP."""

    def __init__(self, host: TeacherHost | StreamerHost) -> None:
        self._host: Any = host  # of either role, as its settings are
        self._one_at_a_time = asyncio.Lock()

    async def when(self, asked: asyncio.Event) -> None:
        """Read the settings each time that *asked* is set, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            with suppress(LecternError):  # it is logged
                await self.read()

    async def answer(self, request: Request) -> Response:
        """200 with the changes; 403 if it comes from elsewhere; 422 if a setting is wrong, so that none is changed."""
        if not _is_from_here(request):
            return JSONResponse({"error": "settings are read anew for a request of this host only"}, 403)
        try:
            taken = await self.read()
        except LecternError as error:
            return JSONResponse({"error": error.message}, 422)
        changes = [asdict(change) for change in taken.changes]
        lines = taken.lines()
        fields = {"said": lines, "sentences": [packed(line) for line in lines]}
        return JSONResponse({"changes": changes, **fields, "digest": self._host.settings.digest})

    async def read(self) -> Taken:
        """Read, check and take over the settings; raises LecternError, and changes nothing, if one is wrong."""
        host = self._host
        async with self._one_at_a_time:
            try:
                new = await asyncio.to_thread(_checked, host.settings)
                taken = Taken(host.settings.changes(new), await self._notes(new))
            except LecternError as error:
                log.error("settings: nothing is changed: %s", error.message)
                raise
            self._take(new, taken.changes)
        for line in taken.lines():
            log.info("settings: %s", line)
        return taken

    def _take(self, new: Settings, changes: list[Change]) -> None:
        """Go by *new* from now on, all at once: nothing else is at work in this thread meanwhile."""
        host, before = self._host, self._host.settings
        host.settings = now = before.taking(new)
        host.settings_read_at = time.time()
        host.settings_wait = tuple(change.name for change in changes if change.cost is Cost.RESTART)
        if (before.log_format, before.log_level) != (now.log_format, now.log_level):
            logs.set_up(now.log_format, now.log_level)
        if isinstance(host, TeacherHost):
            host.webhook_off &= getattr(before, "event_webhook_url", None) == host.settings.event_webhook_url
        else:
            host.unfetched.set()
            host.playout.wanted.set()

    async def _notes(self, new: Settings) -> dict[str, str]:
        """What the bounds of the cache mean for what is cached."""
        if not isinstance(self._host, StreamerHost) or not isinstance(new, StreamerSettings):
            return {}
        used = await self._host.read_tx(cache.used, self._host.settings.video_root)
        many, much = used.num - new.max_video_num, used.size_bytes - new.max_bytes
        notes: dict[str, str] = {}
        if many > 0:
            notes["MAX_VIDEO_NUM"] = Text.many(
                "{n:,} rendition too many, evicted when room is needed",
                "{n:,} renditions too many, evicted when room is needed",
                n=many,
            )
        if much > 0:
            notes["MAX_VIDEO_SIZE"] = Text("{size:size} too many, evicted when room is needed", size=much)
        return notes


def _checked(before: Settings) -> Settings:
    """The settings as their sources have them now; raises Misuse if one of them is wrong, or lacks another."""
    new = before.reread()
    notify.services(new.alarm_services)
    if isinstance(new, TeacherSettings):
        ecs.check(new)
        webhook.check(new)
    return new


def _is_from_here(request: Request) -> bool:
    """Whether a program of this machine has sent *request* itself."""
    client, server = request.client, request.scope.get("server")
    if client is None or any(name in request.headers for name in _PASSED_ON):
        return False
    with suppress(ValueError):
        if ipaddress.ip_address(client.host).is_loopback:
            return True
    return server is not None and client.host == server[0]  # it listens at an address of the network
