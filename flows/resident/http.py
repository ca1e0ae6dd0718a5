"""What a host answers over HTTP: whether it is ready, its metrics, and, to its own machine, its settings read anew."""

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import uvicorn
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flows.host import Host, StreamerHost, TeacherHost, log
from flows.playout_link import boot_now
from flows.teacher import webhook
from lectern import __version__, logs, notify
from lectern import health as healths
from lectern import metrics as lectern_metrics
from lectern.db import inbox, metrics
from lectern.decide.leases import Presence, listed
from lectern.ecs.transcode import check_ecs
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, msgid, packed
from lectern.model.facts import Usage
from lectern.settings import Change, Cost, Settings, StreamerSettings, TeacherSettings
from lectern.storage import disk

START_S = 10.0
ADDRESS_S, ADDRESS_AGAIN_S = 1.0, 5.0
"""Seconds for which a host that begins waits for its own address, and between two looks if that is not found."""

LATE_S = 60.0  # seconds without a round after which a loop counts as standing still
AWAY_S = 3.0  # seconds that the playout may be away: an upgrade takes less
OLD_S = 120.0
"""Seconds after which a message that is not handled is late: the slowest, with all its tries, takes a minute."""

LOOK_S = 5.0  # seconds that the database has to answer, the playout, and the folder of the backups
SCRAPE_S = 10.0  # seconds in which the rows must be counted for Prometheus, which by default gives up after as many
FRESH_S = 1.0  # seconds for which the findings of a health check are reused


class HealthReport:
    """What ``GET /health`` says of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = time.time()
        self._new_until = time.monotonic() + LATE_S
        self._host: Host[Any] | None = None
        self._ending: str | None = None
        self._found: tuple[float, list[str]] = (0.0, [])  # until when it is reused, monotonic, and what is wrong
        self._has_held = self._has_aired = False

    def begins(self, host: Host[Any]) -> None:
        """Note that the services of *host* have begun."""
        self._host = host

    def ends(self, why: BaseException | None) -> None:
        """Note that the process takes no more messages and runs, and *why* it ends."""
        self._ending = f"it ends: {why}" if why else "it ends, and takes nothing new"

    async def answer(self, _request: Request) -> Response:
        """200 if messages are taken and handled, and classes may be aired; else 503, and in words what is wrong."""
        wrong, host = await self._wrong(), self._host
        settings, read_at, waits = self._settings, self._since, list[str]()
        if host is not None:
            settings, read_at, waits = host.settings, host.settings_read_at, list(host.settings_wait)
        body = {
            "version": __version__,
            "role": self._settings.role,
            "name": self._settings.name,
            "ready": not wrong,
            "wrong": wrong,
            "since": self._since,
            "settings": {"digest": settings.digest, "read_at": read_at, "wait": waits},
            **self._lease(),
        }
        return JSONResponse(body, 503 if wrong else 200)

    def _lease(self) -> dict[str, object]:
        """A streamer's lease, and whether it hears the control host; streamers that do not hear that host ask for this.

        If this one is cut off as well, they keep their classes for a while; so it notes when it last answered that.
        """
        host = self._host
        if not isinstance(host, StreamerHost):
            return {}
        if not host.control_connected:
            host.partitioned_at = boot_now()
        left_s = round(max(host.playout.until - boot_now(), 0.0), 1)
        return {"hears": host.control_connected, "lease_left_s": left_s, "lease": host.playout.held()}

    async def _wrong(self) -> list[str]:
        if self._ending is not None:
            return [self._ending]
        if self._host is None:
            return ["it begins"]
        until, wrong = self._found
        if time.monotonic() >= until:
            wrong = [*self._standing_still(self._host), *await self._old(self._host), *self._unaired(self._host)]
            self._found = time.monotonic() + FRESH_S, wrong
        return wrong

    @staticmethod
    def _standing_still(host: Host[Any]) -> list[str]:
        late = host.watchdog.stalled(max(LATE_S, 3 * host.settings.heartbeat_interval_s))
        failing = host.watchdog.failing(LATE_S)
        return [
            *(f"{loop}: stands still since {seconds:.0f} s" for loop, seconds in late.items()),
            *(f"{loop}: fails since {seconds:.0f} s, as its log says" for loop, seconds in failing.items()),
        ]

    @staticmethod
    async def _old(host: Host[Any]) -> list[str]:
        try:
            async with asyncio.timeout(LOOK_S):
                oldest = await host.read_tx(inbox.oldest)
        except (DBAPIError, TimeoutError) as error:
            return [_unreadable(error)]
        waits_s = time.time() - oldest if oldest is not None else 0.0
        return [f"inbox: a message waits since {waits_s:.0f} s"] if waits_s > OLD_S else []

    def _unaired(self, host: Host[Any]) -> list[str]:
        """Why a streamer airs nothing; after its start it has LATE_S seconds to get its lease and its playout."""
        if not isinstance(host, StreamerHost):
            return []
        wrong, is_new = [], time.monotonic() < self._new_until
        if host.playout.held():
            self._has_held = True
        elif self._has_held or not is_new:
            wrong.append("lease: is not held, so nothing is pushed; does the teacher run?")
        if host.playout.why is None:
            self._has_aired = True
        elif host.playout.away_s() > AWAY_S and (self._has_aired or not is_new):
            wrong.append(f"playout: is not there, so nothing is aired: {host.playout.why}")
        return wrong


def _unreadable(error: Exception) -> str:
    return f"database: cannot be read: {error.orig if isinstance(error, DBAPIError) else 'no answer in time'}"


async def _refused(_request: Request, error: Exception) -> Response:
    """The answer to what needs the database, while that cannot be read: Prometheus takes this host for down."""
    return PlainTextResponse(_unreadable(error), 503)


async def exposition(host: Host[Any], request: Request) -> Response:
    """What ``GET /metrics`` says, for Prometheus; the rows are counted again for each request."""
    ages_s = await _backup_ages_s(host.settings)
    try:
        async with asyncio.timeout(SCRAPE_S):
            text = await host.read_tx(_of_rows, host.settings, ages_s)
    except TimeoutError as error:  # a request that waits counts among those of which uvicorn takes 300
        return await _refused(request, error)
    left_s = max(host.playout.until - boot_now(), 0.0) if isinstance(host, StreamerHost) else None
    states: Mapping[str, int] | None = None
    if isinstance(host, TeacherHost) and not host.redis_away:  # without Redis, nobody knows who is there
        known = listed(host.beats, time.time(), host.settings.streamer_lost_after_s)
        states = dict.fromkeys(map(str, Presence), 0) | Counter(str(state) for state, _ in known.values())
    text += metrics.of_process({"redis": not host.redis_away, "prefect": not host.prefect_away}, left_s, states)
    if isinstance(host, StreamerHost):
        status: Mapping[str, Any] | None = None
        with suppress(LecternError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                status = await host.playout.ask("status", active=True)
        text += lectern_metrics.playout_exposition(status)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


_BACKUPS = ThreadPoolExecutor(1, thread_name_prefix="backups")
"""The thread that may hang with their folder, which can lie on another machine: those for transactions must not."""


async def _backup_ages_s(settings: Settings) -> Mapping[str, float]:
    """See `disk.backup_ages_s`; a folder that does not answer is one that cannot be read."""
    asked = settings.backup_dir, f"{settings.role}-{settings.name}", time.time()
    with suppress(OSError):  # that of the time that is over is one
        async with asyncio.timeout(LOOK_S):
            return await asyncio.get_running_loop().run_in_executor(_BACKUPS, disk.backup_ages_s, *asked)
    return {"here": math.inf}


def _of_rows(connection: Connection, settings: Settings, ages_s: Mapping[str, float]) -> bytes:
    bound = metrics.NO_BOUND
    if isinstance(settings, StreamerSettings):
        bound = Usage(settings.max_bytes, settings.max_video_num)
    return metrics.exposition(settings.role, settings.name, connection, bound, ages_s)


_PASSED_ON = "forwarded", "x-forwarded-for", "x-real-ip", "origin"
"""Headers of a request that comes from elsewhere, by a proxy or a page in a browser of this machine."""


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
            changes = await self.read()
        except LecternError as error:
            return JSONResponse({"error": error.message}, 422)
        lines = [str(change) for change in changes]
        fields = {"said": lines, "sentences": [packed(line) for line in lines]}
        changed = [asdict(change) for change in changes]
        return JSONResponse({"changes": changed, **fields, "digest": self._host.settings.digest})

    async def read(self) -> list[Change]:
        """Read, check and take over the settings; returns what has changed.

        Raises LecternError, and changes nothing, if one is wrong.
        """
        async with self._one_at_a_time:
            try:
                new = await asyncio.to_thread(_checked, self._host.settings)
            except LecternError as error:
                log.error("settings: nothing is changed: %s", error.message)
                raise
            changes: list[Change] = self._host.settings.changes(new)
            self._take(new, changes)
        for change in changes:
            log.info("settings: %s", change)
        return changes

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


def _checked(before: Settings) -> Settings:
    """The settings as their sources have them now; raises Misuse if one of them is wrong, or lacks another."""
    new = before.reread()
    notify.services(new.alarm_services)
    if isinstance(new, TeacherSettings):
        check_ecs(new)
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


@asynccontextmanager
async def served(host: Host[Any], health: HealthReport, app: Starlette, reload: Reload) -> AsyncIterator[None]:
    """Serve *app*, health, metrics and *reload* at the configured address in this context, if there is one.

    Raises Misuse if the address is taken.
    """
    settings: Settings = host.settings
    if not settings.bind:
        yield
        return
    app.exception_handlers.setdefault(DBAPIError, _refused)
    app.router.routes += [Route("/health", health.answer), Route("/metrics", partial(exposition, host))]
    app.router.routes.append(Route("/reload", reload.answer, methods=["POST"]))
    address, _, port = settings.bind.rpartition(":")
    config = uvicorn.Config(
        app,
        host=address.strip("[]"),
        port=int(port),
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=300,  # of which the teacher's API lets 100 wait
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(_serve(server, settings))
    try:
        async with asyncio.timeout(START_S):
            while not server.started:
                if serving.done():
                    serving.result()
                await asyncio.sleep(0.01)
        log.info("%s: answers at http://%s/health", settings.name, settings.bind)
        finding = asyncio.create_task(_find_address(host, server))
        try:
            await asyncio.wait([finding], timeout=ADDRESS_S)
            yield
        finally:
            finding.cancel()
    finally:
        server.should_exit = True
        await asyncio.wait([serving], timeout=START_S)


def _address(settings: Settings, server: uvicorn.Server) -> str:
    """Where other hosts reach it: where it listens, or, if that is everywhere, the address towards Redis."""
    listener = server.servers[0].sockets[0]
    host = settings.bind.rpartition(":")[0]
    if _is_everywhere(settings.bind):
        host = healths.own_address(settings.redis_url.get_secret_value(), listener.family) or host
    return f"{host}:{listener.getsockname()[1]}"


def _is_everywhere(address: str) -> bool:
    return address.rpartition(":")[0].strip("[]") in {"0.0.0.0", "::"}  # noqa: S104 (compared, not listened at)


async def _find_address(host: Host[Any], server: uvicorn.Server) -> None:
    """Look for the address of *host* until it is found: its process may begin before its network does.

    It looks in a thread: while no name server answers, classes on air wait for the lease of a streamer that begins.
    """
    while True:
        host.address = await asyncio.to_thread(_address, host.settings, server)
        if not _is_everywhere(host.address):
            return
        await asyncio.sleep(ADDRESS_AGAIN_S)


async def _serve(server: uvicorn.Server, settings: Settings) -> None:
    try:
        await server.serve()
    except SystemExit as error:  # raised by uvicorn if the address is taken
        text = msgid("{name}: cannot listen at {bind}. Is another process there? Set {setting} to another host:port.")
        setting = "API_BIND" if isinstance(settings, TeacherSettings) else "HEALTH_BIND"
        raise Misuse(Text(text, name=settings.name, bind=settings.bind, setting=setting)) from error
