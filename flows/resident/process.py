"""The one process of a host: it takes messages from the bus, executes runs, and drains on SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette

from flows import failures, prefect_api
from flows.host import Host, StreamerHost, TeacherHost
from flows.outbox_publisher import publish_outbox
from flows.resident import http, maintenance, notifications, peers
from flows.resident.consumer import Consumer, Handler
from flows.resident.http import Reload
from flows.resident.instance_lock import QueueLock
from flows.resident.page import Page
from flows.resident.prefect import deployments, recorder, worker
from flows.resident.prefect.recorder import Recorder
from flows.resident.prefect.runs import ResidentRuns, about_moves, host_tag
from flows.resident.supervisor import Service, Supervisor
from flows.streamer import amend, broadcast, lease, playout_sync, recording_checks
from flows.streamer import readiness as streamer_readiness
from flows.streamer.bandwidth import Governor
from flows.streamer.downloads import DownloadQueue
from flows.streamer.maintenance import read_again, reconciled
from flows.streamer.stills import StillServer
from flows.teacher import api, membership, transcoding
from flows.teacher import maintenance as teacher_sweep
from flows.teacher.webhook import Webhook
from lectern.db import inbox, schema, transcodings
from lectern.db.engine import close_to_others, open_database
from lectern.ecs.transcode import check_ecs
from lectern.errors import LecternError, TryAgain
from lectern.i18n import Text
from lectern.redis.client import Bus
from lectern.redis.connection import asking
from lectern.settings import Settings, StreamerSettings, TeacherSettings

log = logging.getLogger("lectern")

END_S = 5.0  # seconds after the drain in which the remaining runs and works must end and the last messages reach Redis
SURELY_S = 3.0
"""Seconds after END_S until the process ends by force; with the default drain, before supervisord sends KILL."""


def serve(settings: Settings) -> int:
    """Run the host's process until SIGTERM or SIGINT; returns its exit code.

    The loop runs in a thread of its own, because Prefect's engine raises on SIGTERM in the main thread. If the process
    does not end in time, whatever it waits for, it is ended by force with exit code 1.
    """
    resident = Resident(settings)
    thread = threading.Thread(target=resident.run, name="resident", daemon=True)
    received = signals()
    thread.start()
    while (asked := next_signal(thread, received, resident.ending)) == signal.SIGHUP:
        if not resident.ending.is_set():
            resident.reload()
    if asked is not None:
        log.info("%s: asked to stop, draining", settings.name)
        resident.stop()
    thread.join((resident.host or resident).settings.drain_timeout_s + END_S + SURELY_S)
    if thread.is_alive():
        log.error("%s: does not end by itself, it is ended by force", settings.name)
        os._exit(1)
    last = threading.Timer(SURELY_S, os._exit, [resident.exit_code])  # in case a library's exit handler hangs
    last.daemon = True
    last.start()
    return resident.exit_code


def signals() -> list[int]:
    """Note SIGTERM, SIGINT and SIGHUP from now on; returns the list to which each received signal is added.

    The handler takes no lock: it runs in the middle of whatever this thread does, which may hold that very lock.
    """
    received: list[int] = []
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, lambda number, _: received.append(number))
    return received


def next_signal(thread: threading.Thread, received: list[int], ending: threading.Event) -> int | None:
    """Wait for a signal, for the end of *thread*, or until it is *ending*; returns the signal, if one came."""
    while thread.is_alive() and not received and not ending.is_set():
        thread.join(0.2)
    return received.pop(0) if received else None


class Resident:
    """One host at work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exit_code = 1
        self.ending = threading.Event()  # set when the process has begun to end, for whatever reason
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._hung_up = asyncio.Event()
        self.host: TeacherHost | StreamerHost | None = None
        self._lock = QueueLock(settings)
        self._health = http.HealthReport(settings)

    def run(self) -> None:
        """Do all that the process does; the body of its thread."""
        try:
            asyncio.run(self._main())
            self.exit_code = 0
        except* LecternError as group:
            for error in group.exceptions:
                log.error("%s: %s", self.settings.name, error)
        except* Exception:
            log.exception("%s: stopped by an error nobody expected", self.settings.name)

    def stop(self) -> None:
        """Drain and end; may be called from any thread, also before the loop has begun."""
        self._set(self._stop)

    def reload(self) -> None:
        """Read the settings anew soon; may be called from any thread, also before the loop has begun."""
        self._set(self._hung_up)

    def _set(self, event: asyncio.Event) -> None:
        if self._loop is None:
            event.set()
        else:
            self._loop.call_soon_threadsafe(event.set)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        if isinstance(self.settings, TeacherSettings):
            check_ecs(self.settings)
        engine = open_database(self.settings.database_url, self.settings.name)
        await asyncio.to_thread(schema.check, engine, self.settings.role)
        await asyncio.to_thread(close_to_others, engine)
        bus = Bus.open(self.settings.redis_url.get_secret_value())
        recorder.set_up()
        async with prefect_api.connected() as client:
            runs = ResidentRuns(client, deployments.of(self.settings))
            host: TeacherHost | StreamerHost
            if isinstance(self.settings, TeacherSettings):
                host = TeacherHost(self.settings, engine, bus, runs)
            else:
                host = StreamerHost(self.settings, engine, bus, runs)
            runs.host = self.host = host
            if self.settings.shared:
                runs.created.tags = (host_tag(self.settings.name),)
            if not await self._lock.take(bus, self._stop):
                await bus.close()
                return
            try:
                await bus.refuse_cluster()
                owner = self.settings.name if self.settings.shared else None
                waiting = await host.write_tx(inbox.free_all, owner)
                app: Starlette
                if isinstance(host, TeacherHost):
                    await host.write_tx(transcodings.free_requests, self.settings.name)
                    page = Page(host)
                    app = api.application(host, runs.client.read_flow_run, page.heard)
                    app.router.routes += page.routes()
                else:
                    app = Starlette(routes=StillServer(host).routes())
                log.info("%s: up, %d messages wait", self.settings.name, waiting)
                reload = Reload(host)
                async with http.served(host, self._health, app, reload):
                    await self._work(host, runs, lambda: reload.when(self._hung_up))
            finally:
                self.ending.set()
                await self._leave(host)
                engine.dispose()

    async def _work(self, host: TeacherHost | StreamerHost, runs: ResidentRuns, reloads: Service) -> None:
        """Run all loops until the process is asked to end; raises FatalError if a loop raises it."""
        works, recorder = Supervisor(host), Recorder(host, runs)
        handler = Handler(host, deployments.of(self.settings))
        intake = Consumer(host, handler)
        taking: dict[Text, Service] = {**intake.works(), Text("sweeps"): lambda: maintenance.sweeps(host, handler)}
        try:
            works.begin({Text("lock"): lambda: self._lock.keep(host)})  # the scan of a disk takes longer than it lasts
            if isinstance(host, StreamerHost):
                # First of all: the teacher must not take this streamer for lost while its disk is scanned.
                works.begin({Text("lease"): lambda: lease.renew(host, about_moves)})
                playout = playout_sync.PlayoutSync(host)
                works.begin({Text("playout"): playout.run, Text("timetable of the playout"): playout.keep_in_step})
            ends = [asyncio.create_task(self._stop.wait()), asyncio.create_task(works.must_end.wait())]
            if await _is_done(_looked(host), ends):
                beside = self._beside(host, runs, handler)
                works.begin({**beside, **taking, Text("recorder"): recorder.run, Text("settings"): reloads})
                gc.collect()
                gc.freeze()  # these objects stay for good: scanning them again and again took a third of a storm's time
                if isinstance(host, TeacherHost):
                    host.intake = intake.commit
                self._health.begins(host)
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.ending.set()
            if isinstance(host, TeacherHost):
                host.intake = None
            self._health.ends(works.why)
            runs.close()
            until = time.monotonic() + host.settings.drain_timeout_s
            await works.end(taking, END_S)  # messages left in the inbox are handled after the restart
            await intake.close(END_S / 2)
            await host.background.close(END_S / 2)
            await runs.drain(max(0.0, until - time.monotonic()), END_S / 2)
            await works.end(["recorder"], END_S / 2)
            await recorder.close(END_S / 2)
            await works.end(None, END_S / 2)
        if works.why is not None:
            raise works.why

    def _beside(self, host: TeacherHost | StreamerHost, runs: ResidentRuns, handler: Handler) -> dict[Text, Service]:
        works: dict[Text, Service] = {
            Text("runs"): lambda: worker.serve(host, runs),
            Text("prefect"): lambda: worker.listen(host, runs.client),
            Text("alarms"): lambda: notifications.watch(host),
            Text("retention"): lambda: maintenance.forget(host),
            Text("people"): notifications.People(host).tell,
            Text("notes"): host.keep_noting,
        }
        if isinstance(host, StreamerHost):
            return works | {
                Text("timetable"): broadcast.CancelledRuns(host).run,
                Text("plan"): broadcast.RunScheduler(host).run,
                Text("changes"): lambda: amend.keep_confirming(host),
                Text("indexes"): lambda: recording_checks.keep_indexes(host),
                Text("files written to"): lambda: read_again(host),
                Text("dead air"): lambda: recording_checks.keep_dead_air(host),
                Text("word"): lambda: streamer_readiness.say(host),
                Text("downloads"): DownloadQueue(host).run,
                Text("bandwidth"): Governor(host).run,
                Text("readiness"): streamer_readiness.Readiness(host, runs.client).run,
            }
        if host.settings.shared:
            works |= peers.Peers(host, runs, lambda: maintenance.sweep(host, handler)).works()
        return works | {
            Text("streamers"): membership.Membership(host).run,
            Text("webhook"): Webhook(host).run,
            Text("readiness"): lambda: teacher_sweep.teacher_checks(host),
        }

    async def _leave(self, host: Host[Any]) -> None:
        with suppress(TryAgain, DBAPIError):  # the disk is full, perhaps: what is not noted is sent after the restart
            async with asking(END_S / 2):
                await publish_outbox(host)
                await host.note()
        with suppress(TryAgain):
            async with asking(END_S / 4):
                if isinstance(host.settings, StreamerSettings):
                    await host.bus.part(host.settings.streamers_key, host.settings.name)
                await self._lock.let_go(host.bus)
        await host.bus.close()


async def _looked(host: TeacherHost | StreamerHost) -> None:
    """Make the disk and the database agree, or learn what the OSS refuses, before messages are taken."""
    if isinstance(host, StreamerHost):
        async with failures.isolated(host, Text("reconcile"), through=()):
            await reconciled(host)
    else:
        async with failures.isolated(host, Text("what the OSS refuses"), through=()):
            await transcoding.remember(host)


async def _is_done(work: Coroutine[Any, Any, None], ends: Collection[asyncio.Task[Any]]) -> bool:
    """Do *work*; False if one of *ends* comes first, which cuts it off."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        task.cancel()
