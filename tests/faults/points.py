"""Runs ``lectern …`` with faults at named points: ``python -m tests.faults.points serve teacher``.

The product has no hooks for it: the functions at the points are wrapped here, before it begins.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.faults import errors

FAULTS, LOG = "TEST_FAULTS", "TEST_FAULTS_LOG"
ORDER = "TEST_ORDER"
"""Names the file in which a test says, while the process is at work, at which point of TEACHERS it is to strike."""

When = Literal["before", "after"]
Do = Literal["kill", "stop", "linger"]


@dataclass(frozen=True)
class Point:
    """A place in the code, between two instructions that must not be torn apart unnoticed."""

    function: str
    when: When


TEACHER: Mapping[str, Point] = {
    "read from the stream, not kept": Point("lectern.db.inbox:keep", "before"),
    "kept, not acknowledged": Point("lectern.redis.streams:Streams.acknowledge", "before"),
    "acknowledged, not handled": Point("lectern.redis.streams:Streams.acknowledge", "after"),
    "claimed, not handled": Point("lectern.db.inbox:claim", "after"),
    "decided, not committed": Point("lectern.db.writer:_rows", "after"),
    "handled, not committed": Point("lectern.db.inbox:done", "before"),
    "committed, not sent": Point("lectern.redis.client:Bus.send", "before"),
    "sent, not noted": Point("lectern.redis.client:Bus.send", "after"),
    "on no waiting list yet": Point("lectern.redis.client:Bus.join_waiting", "before"),
    "settled, the list not dropped": Point("lectern.redis.client:Bus.drop_waiting", "before"),
    "requested, not noted": Point("lectern.storage.oss:request_transcoding", "after"),
    "settling": Point("lectern.model.plan:Changes.remake", "after"),
    "handled, not shown": Point("flows.resident.consumer:Handler._handle", "after"),
    "shown, not noted": Point("lectern.db.inbox:recorded", "before"),
    "noted, not committed that it is shown": Point("lectern.db.inbox:recorded", "after"),
    "lease granted, not in Redis": Point("lectern.redis.client:Bus.grant", "before"),
    "lease taken, nothing moved": Point("lectern.redis.client:Bus.take", "after"),
}
TEACHERS: Mapping[str, Point] = {
    "read, not kept": Point("lectern.db.inbox:keep_paired", "before"),
    "kept, not claimed": Point("lectern.db.inbox:claim", "before"),
    "claimed, not handled": Point("lectern.db.inbox:claim", "after"),
    "committed, not sent": Point("lectern.redis.client:Bus.send", "before"),
    "sent, not noted": Point("lectern.redis.client:Bus.send", "after"),
    "noting what was sent": Point("lectern.db.outbox:sent", "before"),
    "taking over from a dead one": Point("lectern.db.leases:free_claims", "after"),
}
"""Of a teacher that shares its rows with others."""

STREAMER: Mapping[str, Point] = {
    "read from the stream, not kept": Point("lectern.db.inbox:keep", "before"),
    "kept, not acknowledged": Point("lectern.redis.streams:Streams.acknowledge", "before"),
    "acknowledged, not handled": Point("lectern.redis.streams:Streams.acknowledge", "after"),
    "handled, not shown": Point("flows.resident.consumer:Handler._handle", "after"),
    "shown, not noted": Point("lectern.db.inbox:recorded", "before"),
    "written, not committed": Point("lectern.db.writer:_rows", "after"),
    "reserved, not committed": Point("lectern.model.streamer_plan:StreamerChanges.reserve", "after"),
    "cited, not committed": Point("lectern.model.streamer_plan:StreamerChanges.admit", "after"),
    "out of the sums, still on the disk": Point("lectern.storage.cache_dir:remove", "before"),
    "off the disk, still a row": Point("lectern.db.cache:forget", "before"),
    "before the first byte": Point("lectern.storage.origin:download", "before"),
    "downloaded, not in place": Point("lectern.storage.cache_dir:finish", "before"),
    "in place, not noted": Point("lectern.storage.cache_dir:finish", "after"),
    "noted, not committed": Point("lectern.model.streamer_plan:StreamerChanges.arrive", "after"),
    "committed, not sent": Point("lectern.redis.client:Bus.send", "before"),
    "sent, not noted": Point("lectern.redis.client:Bus.send", "after"),
    "airable, not handed to the playout": Point("flows.streamer.playout_sync:PlayoutSync._write", "before"),
    "handed to the playout": Point("flows.streamer.playout_sync:PlayoutSync._write", "after"),
    "released, not committed": Point("lectern.model.streamer_plan:StreamerChanges.uncite", "after"),
    "lease held, not said": Point("lectern.db.leases:hold", "after"),
}


@dataclass(frozen=True)
class Strike:
    """What happens at a point, at its *call*-th call; to linger is done at each call."""

    point: str
    do: Do
    call: int = 1
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As it goes into the environment."""
        return asdict(self)


def arm(trigger: Callable[[], float], point: Point) -> None:
    """Wrap the function at *point*."""
    owner, name = errors.owner_of(point.function)
    strikes = {when: (lambda _: trigger()) if when == point.when else (lambda _: 0.0) for when in ("before", "after")}
    setattr(owner, name, errors.wrapped(getattr(owner, name), **strikes))


class _Trigger:
    def __init__(self, strike: Strike, log: Path) -> None:
        self._strike, self._log, self._calls = strike, log, 0

    def __call__(self) -> float:
        """Strike if it is time; returns for how long to linger."""
        self._calls += 1
        if self._strike.do == "linger":
            return self._strike.seconds
        if self._calls == self._strike.call:
            _strike(self._strike, self._log)
        return 0.0


class _Ordered:
    """Strikes when a file orders it, at the so manieth call from then on."""

    def __init__(self, point: str, order: Path, log: Path) -> None:
        self._point, self._order, self._log, self._calls = point, order, log, 0

    def __call__(self) -> float:
        """Strike if it is ordered and time; never lingers."""
        try:
            strike = Strike(**json.loads(self._order.read_text()))
        except FileNotFoundError:  # nothing is ordered, or another thread has just done it
            return 0.0
        self._calls += strike.point == self._point
        if strike.point == self._point and self._calls >= strike.call:
            self._calls = 0
            self._order.unlink(missing_ok=True)
            _strike(strike, self._log)
        return 0.0


def _strike(strike: Strike, log: Path) -> None:
    with log.open("a") as struck:
        struck.write(f"{time.time():.3f} {os.getpid()} {strike.do} {strike.point}\n")
    os.kill(os.getpid(), signal.SIGKILL if strike.do == "kill" else signal.SIGSTOP)


def main() -> None:
    """Arm what the environment says, then be ``lectern``."""
    points = {**TEACHER, **STREAMER}
    for fields in json.loads(os.environ.get(FAULTS, "[]")):
        strike = Strike(**fields)
        arm(_Trigger(strike, Path(os.environ[LOG])), points[strike.point])
    if ORDER in os.environ:
        for name, point in TEACHERS.items():
            arm(_Ordered(name, Path(os.environ[ORDER]), Path(os.environ[LOG])), point)
    if errors.FOLDER in os.environ:
        errors.arm_at_start(Path(os.environ[errors.FOLDER]))
    from lectern.cli import main as lectern

    lectern()


if __name__ == "__main__":
    main()
