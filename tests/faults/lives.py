"""Runs ``lectern …`` in one life after another, each killed at a moment of its own: ``python -m tests.faults.lives``.

The program is imported once and each life is a fork of it, so that fifty deaths take no longer than fifty starts of
what is imported already.
"""

import ctypes
import gc
import importlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from lectern.cli import main as lectern
from lectern.cli.options import set_prefect, settings_of
from tests.faults.points import Point, arm

PLAN, LOG, DATABASE = "TEST_LIVES", "TEST_LIVES_LOG", "TEST_LIVES_DATABASE"
LONGEST_S = 3.0
"""Seconds at most from the first batch that a life handles to its end, if it does not come to its point."""

RECORD = "flows.resident.prefect.recorder:Recorder"
POINTS: Sequence[Point] = (
    Point("lectern.db.inbox:done", "before"),
    Point("lectern.db.inbox:done", "after"),
    Point("lectern.redis.client:Bus.send", "before"),
    Point("lectern.redis.client:Bus.send", "after"),
    Point("lectern.db.outbox:sent", "before"),
    Point("lectern.db.outbox:sent", "after"),
    Point("flows.resident.consumer:Handler.handle", "before"),
    Point("flows.resident.consumer:Handler.handle", "after"),
    Point("lectern.db.inbox:give_keys", "before"),
    Point("lectern.db.inbox:give_keys", "after"),
    Point(f"{RECORD}._show", "before"),
    Point(f"{RECORD}._create", "before"),
    Point(f"{RECORD}._create", "after"),
    Point("lectern.db.inbox:recorded", "before"),
    Point("lectern.db.inbox:recorded", "after"),
    Point(f"{RECORD}._detail", "before"),
)
"""Where a moment begins: between the handling of a batch and the note that a run shows it."""

HANDLED = Point("flows.resident.consumer:Handler.handle", "before")


@dataclass(frozen=True)
class Moment:
    """A life is killed so many *seconds* after it has come to the point number *point* for the *call*-th time.

    It is killed *longest_s* after its first batch if it never comes there.
    """

    point: int
    call: int
    seconds: float
    longest_s: float

    def __str__(self) -> str:
        place = POINTS[self.point]
        return f"{self.seconds:.3f} s after call {self.call} of {place.function} ({place.when})"


def moments(seed: str, number: int) -> list[Moment]:
    """So many moments at random: each point in its turn, many at once after it and some a while later."""
    chance = random.Random(seed)
    order: list[int] = []
    while len(order) < number:
        order += chance.sample(range(len(POINTS)), len(POINTS))
    return [_moment(chance, point) for point in order[:number]]


def _moment(chance: random.Random, point: int) -> Moment:
    seconds = chance.choice((0.0, chance.uniform(0.0, 0.03), chance.uniform(0.0, 0.3)))
    return Moment(point, chance.choice((1, 1, 2)), seconds, chance.uniform(0.3, 1.0) * LONGEST_S)


def environment(plan: Sequence[Moment], log: Path, database: Path) -> dict[str, str]:
    return {PLAN: json.dumps([asdict(one) for one in plan]), LOG: str(log), DATABASE: str(database)}


class _Death:
    """Ends this process once, at whatever instruction it is."""

    def __init__(self, moment: Moment) -> None:
        self._moment, self._calls, self._ends = moment, 0, False

    def comes(self) -> float:
        """Called at the point: it is counted, and goes on at once."""
        self._calls += 1
        if self._calls == self._moment.call:
            self._in(self._moment.seconds)
        return 0.0

    def handles(self) -> float:
        """Called when a batch was handled: from the first one on, the life has an end."""
        if not self._ends:
            self._ends = True
            self._in(self._moment.longest_s)
        return 0.0

    @staticmethod
    def _in(seconds: float) -> None:
        if seconds == 0.0:
            os.kill(os.getpid(), signal.SIGKILL)
        timer = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGKILL])
        timer.daemon = True
        timer.start()


def main() -> None:
    """Live as often as the plan says, and then once more without an end."""
    plan = [Moment(**one) for one in json.loads(os.environ[PLAN])]
    log, database = Path(os.environ[LOG]), Path(os.environ[DATABASE])
    set_prefect(settings_of("teacher" if sys.argv[2] == "teacher" else "streamer"))
    for name in ("lectern.cli.app", "flows.resident.process"):
        importlib.import_module(name)
    gc.freeze()
    for moment in (*plan, None):
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it does not outlive its parent
            if moment is not None:
                death = _Death(moment)
                arm(death.handles, HANDLED)
                arm(death.comes, POINTS[moment.point])
            lectern()
        signal.signal(signal.SIGTERM, lambda *_, child=child: os.kill(child, signal.SIGTERM))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with log.open("a") as sink:
            sink.write(json.dumps({"code": code, "moment": str(moment), "unsent": _unsent(database)}) + "\n")
        if code != -signal.SIGKILL:
            sys.exit(code)


def _unsent(database: Path) -> list[str]:
    """The class of each answer that is not known to be sent: whoever comes next sends it, perhaps again."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        wanted = "select class_id from outbox_list where sent_at is null and class_id is not null"
        return [str(class_id) for (class_id,) in connection.execute(wanted)]


if __name__ == "__main__":
    main()
