"""The one process a host runs: the bus comes in, runs are executed inside, SIGTERM drains it."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import psutil
from prefect.exceptions import PrefectException
from redis.exceptions import RedisError

from flows import api, broadcast, deployments, ecs, heartbeats, http, reconcile, sweep
from flows.host import Host, tell
from flows.intake import Intake, backoff_s
from flows.worker import ResidentRuns, ResidentWorker
from lectern.effects import airings, cache, inbox, renditions, schema
from lectern.effects.bus import Bus
from lectern.effects.tables import streamer as streamer_tables
from lectern.effects.tables import teacher as teacher_tables
from lectern.effects.tables.engine import open_database
from lectern.errors import CallAPerson, LecternError, TryAgain
from lectern.settings import Settings, StreamerSettings, TeacherSettings

log = logging.getLogger("lectern")
LOCK_TTL_S = 15.0
LOCK_RENEW_S = 4.0
START_WAIT_S = 60.0
GUARD_EVERY_S = 1.0
TIMETABLE_EVERY_S = 3.0
GUARD_GRACE_S = 5.0
"""A class that should be on air for so long and has no run is aired without one."""

TEACHER_GROUPS = {
    "order": "booking",
    "cancel": "booking",
    "transcoding": "settle",
    "prepared": "report",
    "ended": "report",
}
STREAMER_GROUPS = {"prepare": "prepare", "release": "prepare"}


def serve(settings: Settings) -> int:
    """Run the host's process until SIGTERM or SIGINT; returns its exit code.

    The loop runs in a thread of its own, for Prefect's engine raises on SIGTERM in the main thread.
    """
    resident = Resident(settings)
    thread = threading.Thread(target=resident.run, name="resident", daemon=True)
    asked = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: asked.set())
    thread.start()
    while thread.is_alive() and not asked.wait(0.2):
        pass
    if asked.is_set():
        log.info("%s: asked to stop, draining", settings.name)
        resident.stop()
    thread.join(settings.drain_timeout_s + 30)
    return resident.exit_code


class Resident:
    """One host at work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exit_code = 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"
        self._lock = f"lectern:queue:{settings.name}"
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
        async with api.connected() as client:
            runs = ResidentRuns(client, deployments.of(self.settings))
            journal = teacher_tables.journal if teaching else streamer_tables.journal
            host: Host[Any] = Host(self.settings, engine, journal, bus, runs)
            host.slots = asyncio.Semaphore(_slots(self.settings))
            runs.host = host
            if not await self._take_lock(bus):
                await bus.close()
                return
            try:
                waiting = await host.commit(inbox.free_all, journal)
                log.info("%s: up, %d messages wait", self.settings.name, waiting)
                async with http.served(host, self._health):
                    await self._work(host, runs)
            finally:
                await self._leave(host)
                engine.dispose()

    async def _work(self, host: Host[Any], runs: ResidentRuns) -> None:
        if isinstance(host.settings, StreamerSettings):
            host.settings.video_root.mkdir(parents=True, exist_ok=True)
            await reconcile.reconciled(host)
        works: list[Callable[[Host[Any], ResidentRuns], Coroutine[Any, Any, None]]] = [
            self._intake,
            self._runs,
            self._sweeps,
            self._hold_lock,
        ]
        if isinstance(host.settings, StreamerSettings):
            works += [self._beats, self._guard, self._timetable]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(host, runs)) for work in works]
            stopping = group.create_task(self._stop.wait())
            self._health.ready = True
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for begins_runs in (0, 2):  # intake and sweeps: what is not taken now, is taken after the start
                tasks[begins_runs].cancel()
            self._health.ready = False
            await runs.drain(host.settings.drain_timeout_s)
            for task in (*tasks, stopping):
                task.cancel()

    async def _leave(self, host: Host[Any]) -> None:
        with suppress(RedisError, OSError):
            await tell(host)
            if isinstance(host.settings, StreamerSettings):
                await host.bus.part(host.settings.streamers_key, host.settings.name)
            await host.bus.let_go(self._lock, self._owner)
        await host.bus.close()

    # -- what runs side by side ------------------------------------------------------------------------------------

    async def _intake(self, host: Host[Any], _runs: ResidentRuns) -> None:
        settings = host.settings
        if isinstance(settings, TeacherSettings):
            channels = [settings.order_channel, settings.cancel_channel, settings.transcoding_channel]
            groups = {
                **TEACHER_GROUPS,
                settings.order_channel: "booking",
                settings.cancel_channel: "booking",
                settings.transcoding_channel: "settle",
                settings.report_stream: "report",
            }
            await Intake(host, groups, channels, [*channels, settings.report_stream]).run()
        else:
            stream = settings.streamer_stream.format(name=settings.name)
            await Intake(host, {**STREAMER_GROUPS, stream: "prepare"}, [], [stream]).run()

    async def _runs(self, host: Host[Any], runs: ResidentRuns) -> None:
        """Prefect's side: its deployments, the orphans of a crash, then the worker."""
        tries = 0
        while True:
            try:
                runs.know(await deployments.read(runs.client, host.settings))
                await runs.adopt_orphans(host.settings.work_pool, host.settings.name)
                break
            except (TryAgain, httpx.HTTPError, PrefectException) as error:
                tries += 1
                pause = backoff_s(tries)
                log.warning("prefect: away, again in %.1f s: %s", pause, error)
                await asyncio.sleep(pause)
        worker = ResidentWorker(
            runs,
            work_pool_name=host.settings.work_pool,
            work_queues=[host.settings.name],
            name=host.settings.name,
            prefetch_seconds=0,
            create_pool_if_not_found=False,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(runs.watch())
            group.create_task(heartbeats.beat(runs.client, runs.alive, host.settings.run_heartbeat_s))
            group.create_task(worker.start(printer=lambda said: log.info("%s", said)))

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

    async def _until_sweep(self, host: Host[Any]) -> float:
        if not isinstance(host.settings, TeacherSettings):
            return float(host.settings.sweep_interval_s)
        deadline = await host.commit(renditions.next_deadline)
        left = host.settings.sweep_interval_s if deadline is None else deadline - time.time() + 0.05
        return float(min(max(left, 1.0), host.settings.sweep_interval_s))

    async def _beats(self, host: Host[StreamerSettings], _runs: ResidentRuns) -> None:
        tries = 0
        while True:
            used = await host.commit(cache.usage, host.settings.video_root)
            fields = {"used_bytes": used.size_bytes, "max_bytes": host.settings.max_bytes, "on_air": len(host.busy)}
            try:
                await host.bus.beat(host.settings.streamers_key, host.settings.name, fields)
                tries = 0
            except (RedisError, OSError) as error:
                tries += 1
                log.warning("redis: no heartbeat: %s", error)
            await asyncio.sleep(max(host.settings.heartbeat_interval_s, backoff_s(tries) if tries else 0))

    async def _guard(self, host: Host[StreamerSettings], _runs: ResidentRuns) -> None:
        """Air what should be on air and has no run: Prefect may be away, a class may not."""
        while True:
            await asyncio.sleep(GUARD_EVERY_S)
            now = time.time()
            for one in await host.commit(airings.should_be_on_air, now - GUARD_GRACE_S, now):
                if one.class_id not in host.busy and one.class_id not in host.guarded:
                    log.warning("%s: should be on air and has no run; it is aired without one", one.class_id)
                    task = asyncio.create_task(broadcast.air(host, one))
                    host.guarded[one.class_id] = task
                    task.add_done_callback(_say_how(host.guarded, one.class_id))

    async def _timetable(self, host: Host[StreamerSettings], _runs: ResidentRuns) -> None:
        """A class that was cancelled in the UI before its time gives its citation back, and the guard leaves it."""
        while True:
            await asyncio.sleep(TIMETABLE_EVERY_S)
            try:
                await broadcast.honour_cancels(host)
            except (httpx.HTTPError, PrefectException) as error:
                log.warning("prefect: can not ask for cancelled broadcasts: %r", error)

    # -- one process a queue ---------------------------------------------------------------------------------------

    async def _take_lock(self, bus: Bus) -> bool:
        """Wait for the queue's lock; False where we are asked to stop meanwhile."""
        until = time.monotonic() + START_WAIT_S
        tries = 0
        while True:
            try:
                holder = await bus.holder(self._lock)
                if holder is not None and _dead(holder):
                    await bus.let_go(self._lock, holder)
                if await bus.hold(self._lock, self._owner, LOCK_TTL_S):
                    return True
                why = f"another process serves {self.settings.name}: {holder}"
            except (RedisError, OSError) as error:
                why = f"Redis does not answer: {error}"
            if time.monotonic() > until:
                raise CallAPerson(f"{self.settings.name}: {why}")
            tries += 1
            log.warning("%s: %s; waiting", self.settings.name, why)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff_s(tries))
                return False

    async def _hold_lock(self, host: Host[Any], _runs: ResidentRuns) -> None:
        while True:
            await asyncio.sleep(LOCK_RENEW_S)
            try:
                held = await host.bus.hold(self._lock, self._owner, LOCK_TTL_S)
            except (RedisError, OSError) as error:
                log.warning("redis: the queue's lock is not renewed: %s", error)
                continue
            if not held:
                raise CallAPerson(f"another process serves {self.settings.name} now; this one ends")


def _slots(settings: Settings) -> int:
    return settings.max_ecs_jobs if isinstance(settings, TeacherSettings) else settings.max_downloads


def _dead(holder: str) -> bool:
    """Whether *holder*, an owner of the lock, was a process of this machine that is no more."""
    machine, pid, began = holder.rsplit(":", 2)
    if machine != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(began)) > 1)
    except psutil.NoSuchProcess:
        return True


def _say_how(guarded: dict[str, asyncio.Task[str]], class_id: str) -> Callable[[asyncio.Task[str]], None]:
    def done(task: asyncio.Task[str]) -> None:
        del guarded[class_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", class_id, error)

    return done
