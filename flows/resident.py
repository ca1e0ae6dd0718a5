"""The one process a host runs: the bus comes in, runs are executed inside, SIGTERM drains it."""

import asyncio
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from flows import (
    alarms,
    api,
    deployments,
    ecs,
    executor,
    guard,
    http,
    lease,
    readiness,
    reconcile,
    run_log,
    streamers,
    sweep,
    transcode_api,
    trouble,
)
from flows.host import Host, tell
from flows.intake import TAKE_BACK, Intake, backoff_s
from flows.queue_lock import QueueLock
from flows.runs import ResidentRuns
from lectern.effects import inbox, renditions, schema
from lectern.effects.bus import Bus
from lectern.effects.tables import streamer as streamer_tables
from lectern.effects.tables import teacher as teacher_tables
from lectern.effects.tables.engine import open_database
from lectern.errors import LecternError, TryAgain
from lectern.settings import Settings, StreamerSettings, TeacherSettings

log = logging.getLogger("lectern")
Work = Callable[[], Coroutine[Any, Any, None]]
STEADY_S = 60.0

TEACHER_GROUPS = {
    "order": "booking",
    "cancel": "booking",
    "transcoding": "settle",
    "prepared": "report",
    "ended": "report",
}
STREAMER_GROUPS = {"prepare": "prepare", "release": TAKE_BACK, "grant": TAKE_BACK}


def serve(settings: Settings) -> int:
    """Run the host's process until SIGTERM or SIGINT; returns its exit code.

    The loop runs in a thread of its own, for Prefect's engine raises on SIGTERM in the main thread.
    """
    resident = Resident(settings)
    thread = threading.Thread(target=resident.run, name="resident", daemon=True)
    thread.start()
    if asked_to_end(thread):
        log.info("%s: asked to stop, draining", settings.name)
        resident.stop()
    thread.join(settings.drain_timeout_s + 30)
    return resident.exit_code


def asked_to_end(thread: threading.Thread) -> bool:
    """Wait for SIGTERM or SIGINT, or for the end of *thread*; whether it was a signal.

    The handler takes no lock: it runs in the middle of whatever this thread does, which may hold that very lock.
    """
    asked: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, _: asked.append(number))
    while thread.is_alive() and not asked:
        thread.join(0.2)
    return bool(asked)


class Resident:
    """One host at work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exit_code = 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._lock = QueueLock(settings)
        self._health = http.Health(settings)

    def run(self) -> None:
        """The thread's body."""
        try:
            asyncio.run(self._main())
            self.exit_code = 0
        except* LecternError as group:
            for error in group.exceptions:
                log.error("%s: %s", self.settings.name, error)
        except* Exception:
            log.exception("%s: stopped by an error nobody expected", self.settings.name)

    def stop(self) -> None:
        """Drain and end; may be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if sys.version_info < (3, 12):  # else a thread a child
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(self._loop)
            asyncio.set_child_watcher(watcher)
        teaching = isinstance(self.settings, TeacherSettings)
        if isinstance(self.settings, TeacherSettings):
            ecs.check(self.settings)
        engine = open_database(self.settings.database_url)
        await asyncio.to_thread(schema.check, engine, "teacher" if teaching else "streamer")
        bus = Bus.open(self.settings.redis_url.get_secret_value())
        run_log.set_up()
        async with api.connected() as client:
            runs = ResidentRuns(client, deployments.of(self.settings))
            journal = teacher_tables.journal if teaching else streamer_tables.journal
            host: Host[Any] = Host(self.settings, engine, journal, bus, runs)
            host.slots = asyncio.Semaphore(_slots(self.settings))
            runs.host = host
            if not await self._lock.take(bus, self._stop):
                await bus.close()
                return
            try:
                waiting = await host.commit(inbox.free_all, journal)
                log.info("%s: up, %d messages wait", self.settings.name, waiting)
                more = transcode_api.routes(host, runs) if teaching else []
                async with http.served(host, self._health, more):
                    await self._work(host, runs)
            finally:
                await self._leave(host)
                engine.dispose()

    async def _work(self, host: Host[Any], runs: ResidentRuns) -> None:
        streams = isinstance(host.settings, StreamerSettings)
        works: dict[str, Work] = {
            "intake": self._intake(host).run,
            "sweeps": lambda: self._sweeps(host, runs),
            "runs": lambda: executor.serve(host.settings, runs),
            "lock": lambda: self._lock.keep(host.bus),
            "alarms": lambda: alarms.watch(host, runs.client),
        }
        if streams:
            works |= {
                "guard": lambda: guard.guard(host),
                "timetable": lambda: guard.timetable(host),
                "plan": lambda: guard.plan(host),
                "readiness": readiness.Readiness(host, runs.client).run,
            }
        else:
            works |= {
                "streamers": streamers.Roll(host).run,
                "readiness": lambda: readiness.teacher_checks(host, runs.client),
            }
        async with asyncio.TaskGroup() as group:
            tasks: dict[str, asyncio.Task[None]] = {}
            if streams:  # first of all: until the disk is looked through, nobody shall take us for lost
                tasks["lease"] = group.create_task(self._again(host, "lease", lease.Keeper(host).run))
                await reconcile.reconciled(host)
            tasks |= {name: group.create_task(self._again(host, name, work)) for name, work in works.items()}
            stopping = group.create_task(self._stop.wait())
            gc.collect()
            gc.freeze()  # what is there now stays: to look through it again and again took a third of a storm
            self._health.ready = True
            await asyncio.wait({stopping, *tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
            for begins_runs in ("intake", "sweeps"):  # what is not taken now, is taken after the start
                tasks[begins_runs].cancel()
            self._health.ready = False
            await runs.drain(host.settings.drain_timeout_s)
            for task in (*tasks.values(), stopping):
                task.cancel()

    async def _again(self, host: Host[Any], name: str, work: Work) -> None:
        """Do *work* again where the disk or the database gave way: what is on air must not end with it."""
        tries = 0
        while True:
            began = time.monotonic()
            try:
                return await work()
            except* (DBAPIError, OSError) as group:
                tries = 0 if time.monotonic() - began > STEADY_S else tries + 1
                await trouble.cry(host, name, group)
            await asyncio.sleep(backoff_s(tries))

    async def _leave(self, host: Host[Any]) -> None:
        with suppress(RedisError, OSError):
            await tell(host)
            if isinstance(host.settings, StreamerSettings):
                await host.bus.part(host.settings.streamers_key, host.settings.name)
            await self._lock.let_go(host.bus)
        await host.bus.close()

    # -- what runs side by side ------------------------------------------------------------------------------------

    def _intake(self, host: Host[Any]) -> Intake:
        settings = host.settings
        if not isinstance(settings, TeacherSettings):
            stream = settings.streamer_stream.format(name=settings.name)
            return Intake(host, {**STREAMER_GROUPS, stream: "prepare"}, [], [stream])
        channels = [settings.order_channel, settings.cancel_channel, settings.transcoding_channel]
        groups = {
            **TEACHER_GROUPS,
            settings.order_channel: "booking",
            settings.cancel_channel: "booking",
            settings.transcoding_channel: "settle",
            settings.report_stream: "report",
        }
        return Intake(host, groups, channels, [*channels, settings.report_stream])

    async def _sweeps(self, host: Host[Any], runs: ResidentRuns) -> None:
        while True:
            await asyncio.sleep(await self._until_sweep(host))
            if not await sweep.due(host):
                continue
            try:
                await runs.start("sweep", {}, name=f"sweep {host.settings.name}")
            except TryAgain as error:
                log.warning("sweep: without a run: %s", error.message)
                await tell(host)
                await asyncio.sleep(host.settings.sweep_interval_s)

    async def _until_sweep(self, host: Host[Any]) -> float:
        if not isinstance(host.settings, TeacherSettings):
            return float(host.settings.sweep_interval_s)
        deadline = await host.commit(renditions.next_deadline)
        left = host.settings.sweep_interval_s if deadline is None else deadline - time.time() + 0.05
        return float(min(max(left, 1.0), host.settings.sweep_interval_s))


def _slots(settings: Settings) -> int:
    return settings.max_ecs_jobs if isinstance(settings, TeacherSettings) else settings.max_downloads
