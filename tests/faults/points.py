"""Runs ``lectern …`` and strikes in it when a test orders it, at a named point of the living process.

The product has no hooks for it: the functions of the points are wrapped here before it begins, in every module that has
them under a name. A wrapped function looks at each call whether a file orders something::

    orders = Orders(tmp_path / "orders")
    stage.launcher = LAUNCHER
    stage.settings |= obeying(orders)  # before the hosts begin
    stage.up("teacher", "streamer1")
    with orders.raising("the guard looks"):  # each call raises RuntimeError, in all hosts
        orders.wait_for("the guard looks", 2)  # it has raised twice, so the task began again
    orders.strike("committed, not sent", "kill")  # whoever comes there first
"""

import asyncio
import builtins
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.waiting import wait_until

LAUNCHER = (sys.executable, "-c", f"from {__name__} import main; main()")
"""As `tests.stage.children.started` has it, which is not imported here: it would come before Prefect's settings."""
FOLDERS = "TEST_ORDERS"
"""Names the folders of orders that a process obeys, with a colon between them."""

When = Literal["before", "after"]
Do = Literal["kill", "stop", "linger"]


@dataclass(frozen=True)
class Point:
    """A place in the code, between two instructions that must not be torn apart unnoticed."""

    function: str
    when: When


INTAKE: dict[str, Point] = {
    "read from the stream, not kept": Point("lectern.db.inbox:keep", "before"),
    "kept, not acknowledged": Point("lectern.redis.streams:Streams.acknowledge", "before"),
    "acknowledged, not handled": Point("lectern.redis.streams:Streams.acknowledge", "after"),
    "decided, not committed": Point("lectern.db.writer:_rows", "after"),
    "committed, not sent": Point("lectern.redis.client:Bus.send", "before"),
    "sent, not noted": Point("lectern.redis.client:Bus.send", "after"),
    "handled, not shown": Point("flows.handling:ended", "after"),
    "shown, not noted": Point("lectern.db.inbox:recorded", "before"),
}
TEACHER: dict[str, Point] = INTAKE | {
    "claimed, not handled": Point("lectern.db.inbox:claim", "after"),
    "handled, not committed": Point("lectern.db.inbox:done", "before"),
    "on no waiting list yet": Point("lectern.redis.client:Bus.join_waiting", "before"),
    "settled, the list not dropped": Point("lectern.redis.client:Bus.drop_waiting", "before"),
    "requested, not noted": Point("lectern.storage.oss:request_transcoding", "after"),
    "settling": Point("lectern.model.plan:Changes.remake", "after"),
    "noted, not committed that it is shown": Point("lectern.db.inbox:recorded", "after"),
    "lease granted, not in Redis": Point("lectern.redis.client:Bus.grant", "before"),
    "lease taken, nothing moved": Point("lectern.redis.client:Bus.take", "after"),
}
TEACHERS: Mapping[str, Point] = {
    "read, not kept": Point("lectern.db.inbox:keep_paired", "before"),
    "kept, not claimed": Point("lectern.db.inbox:claim", "before"),
    **{name: TEACHER[name] for name in ("claimed, not handled", "committed, not sent", "sent, not noted")},
    "noting what was sent": Point("lectern.db.outbox:sent", "before"),
    "taking over from a dead one": Point("lectern.db.leases:free_claims", "after"),
}
"""Of a teacher that shares its rows with others."""

STREAMER: dict[str, Point] = INTAKE | {
    "reserved, not committed": Point("lectern.model.streamer_plan:StreamerChanges.reserve", "after"),
    "cited, not committed": Point("lectern.model.streamer_plan:StreamerChanges.admit", "after"),
    "out of the sums, still on the disk": Point("lectern.storage.cache_dir:remove", "before"),
    "off the disk, still a row": Point("lectern.db.cache:forget", "before"),
    "before the first byte": Point("lectern.storage.origin:download", "before"),
    "downloaded, not in place": Point("lectern.storage.cache_dir:finish", "before"),
    "in place, not noted": Point("lectern.storage.cache_dir:finish", "after"),
    "noted, not committed": Point("lectern.model.streamer_plan:StreamerChanges.arrive", "after"),
    "airable, not handed to the playout": Point("flows.streamer.playout_sync:PlayoutSync._write", "before"),
    "handed to the playout": Point("flows.streamer.playout_sync:PlayoutSync._write", "after"),
    "released, not committed": Point("lectern.model.streamer_plan:StreamerChanges.uncite", "after"),
    "lease granted, not held": Point("flows.streamer.lease:hold_granted", "before"),
    "lease held, not said": Point("lectern.db.leases:hold", "after"),
}

STEPS: Mapping[str, str] = {
    # both roles: the intake
    "messages of channels are kept": "flows.resident.consumer:Consumer._keep_once",
    "streams are read": "lectern.redis.streams:Streams.next",
    "messages of streams are acknowledged": "lectern.redis.streams:Streams.acknowledge",
    "messages are claimed": "lectern.db.inbox:claim",
    "a run begins": "flows.resident.prefect.runs:ResidentRuns.start",
    "a message is read": "lectern.wire.parser:parse",
    # both roles: beside it
    "a sweep begins": "flows.handling:sweep_flow",
    "the lock is renewed": "lectern.redis.client:Bus.hold",
    "alarms are followed up": "flows.resident.notifications:_follow_up",
    "messages are sent": "lectern.redis.client:Bus.send",
    "cancels are looked for": "flows.resident.prefect.runs:runs_in_state",
    "heartbeats are sent": "flows.resident.prefect.deployments:_event",
    "runs are polled": "flows.resident.prefect.worker:take_due",
    # the teacher
    "bookings are decided": "lectern.decide.booking:plan",
    "a class is placed": "lectern.decide.placement:proceed",
    "a report is taken": "lectern.decide.reports:take",
    "a result is settled": "lectern.decide.transcoding:settle",
    "streamers are heard": "lectern.redis.client:Bus.heard",
    "a lease is granted": "flows.teacher.membership:grant",
    "unready classes are looked for": "lectern.db.bookings:unready",
    # a streamer
    "classes to be aired are looked at": "lectern.db.airings:due",
    "an event of the playout is taken": "flows.streamer.playout_events:PlayoutEvents.take",
    "cancelled broadcasts are looked for": "flows.streamer.broadcast:CancelledRuns.look",
    "broadcasts are planned": "lectern.db.airings:unscheduled",
    "a broadcast is scheduled": "flows.streamer.broadcast:RunScheduler._create",
    "live classes are looked at": "lectern.db.airings:live",
    "a push URL is tried": "lectern.health:unreachable",
    "the cache is shown": "flows.streamer.readiness:cache_lines",
    "a streamer says how it stands": "flows.streamer.readiness:word",
    "a beat is sent": "lectern.redis.client:Bus.beat",
    "what a beat says is read": "flows.streamer.lease:_facts",
    "classes are taken back": "lectern.decide.airing:release",
    "an origin is looked at": "flows.streamer.prepare:probes",
    "a recording is downloaded": "lectern.storage.origin:download",
}
"""What is done again and again, and the function that does it: ``module:function`` or ``module:Class.method``."""

AT_START: Mapping[str, str] = {
    "a channel is subscribed": "lectern.redis.pubsub:Subscription.subscribed",
    "deployments are read": "flows.resident.prefect.deployments:read",
    "orphans are adopted": "flows.resident.prefect.worker:adopt",
    "the playout is connected": "flows.playout_link:Playout.connect",
    "the disk is looked through": "flows.streamer.maintenance:reconciled",
}
"""What is done when a process begins, and once more only after a failure."""


class Orders:
    """A test's side: what is to happen where, in the processes that obey this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def strike(self, point: str, do: str, *, call: int = 1, seconds: float = 0.0) -> None:
        """At the *call*-th call from now on a process is killed, or stopped; at each it lingers, or raises an error."""
        order = self.folder / f"{point}.new"
        order.write_text(json.dumps({"do": do, "call": call, "seconds": seconds}))
        order.rename(self.folder / f"{point}.order")

    def forget(self) -> None:
        for order in self.folder.glob("*.order"):
            order.unlink(missing_ok=True)

    @contextmanager
    def raising(self, step: str, error: str = "RuntimeError") -> Iterator[None]:
        """Meanwhile *step* raises *error*, a built-in one, at each call."""
        self._before[step] = len(self.struck(step))
        self.strike(step, error)
        try:
            yield
        finally:
            (self.folder / f"{step}.order").unlink()

    def struck(self, point: str = "*") -> list[float]:
        """When was struck, in epoch seconds, at *point* or at all of them."""
        return sorted(float(at) for file in self.folder.glob(f"{point}.struck") for at in file.read_text().split())

    def wait_for(self, step: str, more: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until *step* has raised so often since it was told to."""
        enough = self._before[step] + more
        done = lambda: len(self.struck(step)) >= enough  # noqa: E731
        wait_until(done, timeout_s=timeout_s, description=f"{more} errors where {step}")


def obeying(*some: Orders) -> dict[str, str]:
    """What a process sees that LAUNCHER starts, and that obeys these orders."""
    return {"PYTHONPATH": str(Path(__file__).parents[2]), FOLDERS: ":".join(str(one.folder) for one in some)}


# -- in the process --------------------------------------------------------------------------------------------------


class _Obedient:
    """Does what is ordered at the points that it is told of."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders, self._calls = folders, Counter[Path]()

    def __call__(self, points: Sequence[str]) -> float:
        """Called at these points; returns for how long to linger."""
        return sum(self._obey(folder, point) for folder in self._folders for point in points)

    def _obey(self, folder: Path, point: str) -> float:
        order = folder / f"{point}.order"
        try:
            fields = json.loads(order.read_text())
        except FileNotFoundError:  # nothing is ordered, or another thread has just done it
            self._calls.pop(order, None)
            return 0.0
        if fields["do"] == "linger":
            return float(fields["seconds"])
        self._calls[order] += 1
        if self._calls[order] < fields["call"]:
            return 0.0
        with order.with_suffix(".struck").open("a") as struck:
            struck.write(f"{time.time():.3f}\n")
        if fields["do"] in {"kill", "stop"}:
            order.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL if fields["do"] == "kill" else signal.SIGSTOP)
            return 0.0
        raise getattr(builtins, fields["do"])(f"made up by a test: {point}")


def arm(folders: Sequence[Path]) -> None:
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"before": [], "after": []})
    for step, function in {**STEPS, **AT_START}.items():
        places[function]["before"].append(step)
    for name, point in {**TEACHER, **TEACHERS, **STREAMER}.items():
        places[point.function][point.when].append(name)
    obey = _Obedient(folders)
    for function, at in places.items():
        owner, name = owner_of(function)
        before = getattr(owner, name)
        after = wrapped(before, functools.partial(obey, at["before"]), functools.partial(obey, at["after"]))
        setattr(owner, name, after)
        for module in [one for key, one in sys.modules.items() if key.startswith(("flows", "lectern"))]:
            for alias in [alias for alias, found in vars(module).items() if found is before]:
                setattr(module, alias, after)


def owner_of(function: str) -> tuple[Any, str]:
    """The module or class that has a *function*, and under which name."""
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def wrapped(
    function: Callable[..., Any], before: Callable[[], float], after: Callable[[], float]
) -> Callable[..., Any]:
    """*function* between two others, which return for how many seconds to linger."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: object, **kwargs: object) -> object:
            if seconds := before():
                await asyncio.sleep(seconds)
            found = await function(*args, **kwargs)
            if seconds := after():
                await asyncio.sleep(seconds)
            return found

        return coroutine

    @functools.wraps(function)
    def plain(*args: object, **kwargs: object) -> object:
        time.sleep(before())
        found = function(*args, **kwargs)
        time.sleep(after())
        return found

    return plain


def main() -> None:
    """Wrap the functions once ``lectern serve`` has told Prefect its settings, which must come before the import."""
    serving: Any = importlib.import_module("lectern.cli.serving")
    before = serving.set_prefect

    def set_prefect(settings: Any) -> None:
        before(settings)
        importlib.import_module("flows.resident.process")
        arm([Path(one) for one in os.environ.get(FOLDERS, "").split(":") if one])

    serving.set_prefect = set_prefect
    importlib.import_module("lectern.cli").main()
