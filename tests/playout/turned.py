"""A class that is aired in the test's own process, by a clock that stands until the test turns it."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lectern.playout import as_run, demuxer, kernel, publisher, session, source
from lectern.playout.as_run import AiredClass
from lectern.playout.kernel import Now
from lectern.playout.publisher import ClassPublisher, WorkerContext
from lectern.playout.rtmp.publish import Step
from lectern.playout.schedule import ClassPlayer
from lectern.playout.session import Journal, Session
from lectern.playout.timetable import ScheduledClass
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.waiting import async_wait_until

STEP_S = 1 / 32
"""From a tick to the next; no sum of these is rounded."""

READS_A_CLOCK = (as_run, demuxer, kernel, publisher, session, source)


class Clock:
    """The module `time` of what it is put into."""

    def __init__(self) -> None:
        self.mono, self.wall = 5000.0, 1_700_000_000.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.mono

    perf_counter = monotonic

    def time(self) -> float:
        return self.wall

    def turn(self, seconds: float) -> None:
        self.mono, self.wall = self.mono + seconds, self.wall + seconds


class Held(Executor):
    """Does at once what it does not hold, and the rest when it is told to go on."""

    def __init__(self, holds: Callable[[object], bool] = lambda _: True) -> None:
        self.holds, self.held = holds, list[Callable[[], None]]()

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        finish = partial(_finish, done, partial(work, *given, **named))
        if self.holds(work):
            self.held.append(finish)
        else:
            finish()
        return done

    def go(self) -> None:
        while self.held:
            self.held.pop(0)()


def _finish(done: "Future[Any]", work: Callable[[], Any]) -> None:
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001 (whoever asks for the result gets it)
        done.set_exception(error)


AT_ONCE = Held(lambda _: False)


class Airing:
    """One class, what it tells, and its sessions by their keys, as a worker and its supervisor keep them."""

    def __init__(
        self, clock: Clock, file: Path, *urls: str, starts_in_s: float = 0.0, length_s: float = 60.0, **more: Any
    ) -> None:
        self.clock, self.events = clock, list[dict[str, Any]]()
        self.sessions: dict[str, Session] = {}
        self.is_patient = True
        """Whether the clock stands until the servers have answered, and taken all."""
        start = clock.wall + starts_in_s
        self.lesson = ScheduledClass("c1", str(file), urls, start, start + length_s, **more)
        keep, drop = self.sessions.__setitem__, self.sessions.__delitem__
        self.context = WorkerContext(AT_ONCE, AT_ONCE, self.events.append, keep, drop, lambda: True, is_held=True)
        self.context.chance = random.Random(7)
        self.player = ClassPlayer(AiredClass(self.lesson), self.context)

    @property
    def pushes(self) -> list[ClassPublisher]:
        return list(self.player.pushes.values())

    def position_ms(self) -> float:
        """Of the first push."""
        return self.pushes[0].position_ms(Now.read())

    def status(self) -> dict[str, Any]:
        return self.player.status(Now.read())

    def told(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == event]

    def change(self, **fields: Any) -> None:
        """Have the class changed on air."""
        self.lesson = ScheduledClass(**{**vars(self.lesson), **fields})
        self.player.change(self.lesson, Now.read())

    def end(self) -> None:
        self.player.end("enough", Now.read())

    async def seen(self, condition: Callable[[], object]) -> None:
        """Tick until *condition* is true, while the clock stands."""

        def ticked() -> object:
            self.player.tick(Now.read())
            return condition()

        await async_wait_until(ticked, pause_s=0.001, timeout_s=20, description=f"what follows {self.events[-3:]}")

    async def turn(self, seconds: float) -> None:
        """Turn the clock by *seconds*, with a tick after each step."""
        for _ in range(round(seconds / STEP_S)):
            self.clock.turn(STEP_S)
            await self.seen(self._is_quiet)

    async def until(self, condition: Callable[[], object], within_s: float = 60.0) -> float:
        """Turn the clock until *condition* is true; returns the seconds that it took."""
        began = self.clock.mono
        while not condition():
            assert self.clock.mono < began + within_s, f"not within {within_s} s: {self.events[-3:]}"
            await self.turn(STEP_S)
        return self.clock.mono - began

    def hand_over(self) -> None:
        """Kill the worker, and let the next one go on with the session half a second later."""
        key, before = self.sessions.popitem()
        assert before.journal is not None
        connection, journal = before.connection.dup(), Journal(os.dup(before.journal.file))
        asyncio.get_running_loop().remove_reader(before.connection)
        with closing(before.connection), closing(before.journal), closing(self.pushes[0].feed):
            rows = json.loads(json.dumps(self.player.entry.as_run))
        self.clock.turn(0.5)
        self.player = ClassPlayer(AiredClass(self.lesson, rows), self.context)
        with ExitStack() as failed:
            failed.push(closing(connection))
            failed.push(closing(journal))
            self.pushes[0].adopt(key, connection, journal, Now.read())
            failed.pop_all()
        found = self.pushes[0]._session
        assert found is not None
        self.sessions[key] = found

    def _is_quiet(self) -> bool:
        """Whether no connection is being made, no answer is awaited, and all is taken."""
        each = self.sessions.values()
        quiet = all(one.is_clear and one.step in (Step.READY, Step.LIVE) and self._is_taken(one) for one in each)
        return all(one._connecting is None for one in self.pushes) and (quiet or not self.is_patient)

    def _is_taken(self, its: Session) -> bool:
        """Whether the clock may go on: it is turned faster than a kernel acknowledges what has come."""
        counted = kernel.counts(its.connection)
        return counted is None or not counted.waits or self.clock.mono - its._acknowledged_at < session.TAKEN_S / 2


class Air:
    """Makes classes that are aired to its receiver, of the recording at its path."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.clock, self.folder, self.receiver = Clock(), folder, receiver
        self.path, self.made = folder / "whole.flv", list[Airing]()

    def __call__(self, *urls: str, tags: Iterable[flvs.Tag] | None = flvs.lesson(60), **how: Any) -> Airing:
        """A class of a recording of *tags*; of None, it is missing, or is there already."""
        if tags is not None:
            flvs.write(self.path, tags)
        self.made.append(Airing(self.clock, self.path, *(urls or [self.receiver.url("c1")]), **how))
        return self.made[-1]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The receiver reads nothing meanwhile, and the clock does not stand until it has."""
        self.receiver.frozen.set()
        self.made[-1].is_patient = False
        yield
        self.receiver.frozen.clear()
        self.made[-1].is_patient = True
