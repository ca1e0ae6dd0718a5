"""Runs ``lectern …`` and raises, when a test asks for it, an unforeseen error in a named step of the living process.

The product has no hooks for it: the functions of STEPS and AT_START are wrapped here before the product begins, in
every module that has them under a name. A wrapped function looks at each call whether a file says that it is to raise::

    stage.launcher = (sys.executable, "-m", "tests.faults.errors")  # PYTHONPATH must have the repository
    errors = Errors(tmp_path / "errors")
    stage.settings[FOLDER] = str(errors.folder)  # before the hosts begin
    stage.up("teacher", "streamer1")
    with errors.at("the guard looks"):  # each call raises RuntimeError, in all hosts
        errors.wait_for("the guard looks", 2)  # it has raised twice, so the task began again
    with errors.at("a message is read", only="s1-c7", error="RecursionError"):
        ...  # only where this text is in the arguments

``tests.faults.points`` does the same where the variable is set, so a day with kills can have errors as well.
"""

import asyncio
import builtins
import functools
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

FOLDER = "TEST_ERRORS"

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
    "runs are polled": "flows.resident.prefect.worker:ResidentWorker.get_and_submit_flow_runs",
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
    "an origin is looked at": "flows.streamer.prepare:probe_origins",
    "a recording is downloaded": "lectern.storage.origin:download",
}
"""What is done again and again, and the function that does it: ``module:function`` or ``module:Class.method``."""

AT_START: Mapping[str, str] = {
    "a channel is subscribed": "lectern.redis.client:Bus.subscribed",
    "deployments are read": "flows.resident.prefect.deployments:read",
    "orphans are adopted": "flows.resident.prefect.worker:adopt",
    "the playout is connected": "flows.playout_link:Playout.connect",
    "the disk is looked through": "flows.streamer.maintenance:reconciled",
}
"""What is done when a process begins, and once more only after a failure."""


class Errors:
    """A test's side: which steps raise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def at(self, step: str, *, error: str = "RuntimeError", only: str = "") -> Iterator[None]:
        """Meanwhile *step* raises *error*, a built-in one, at each call whose arguments have the text *only*."""
        order, self._before[step] = _order(self.folder, step), self.raised(step)
        order.with_suffix(".new").write_text(json.dumps({"error": error, "only": only}))
        order.with_suffix(".new").rename(order)
        try:
            yield
        finally:
            order.unlink()

    def raised(self, step: str) -> int:
        """How often *step* has raised, ever."""
        struck = _struck(self.folder, step)
        return struck.stat().st_size if struck.exists() else 0

    def wait_for(self, step: str, more: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until *step* has raised so often since it was told to."""
        enough = self._before[step] + more
        wait_until(lambda: self.raised(step) >= enough, timeout_s=timeout_s, description=f"{more} errors where {step}")


def _order(folder: Path, step: str) -> Path:
    return folder / f"{step}.order"


def _struck(folder: Path, step: str) -> Path:
    return folder / f"{step}.struck"


# -- in the process --------------------------------------------------------------------------------------------------


def arm(folder: Path) -> None:
    """Wrap the function of each step."""
    for step, function in {**STEPS, **AT_START}.items():
        owner, name = owner_of(function)
        before = getattr(owner, name)
        after = wrapped(before, functools.partial(_look, folder, step), lambda _: 0.0)
        setattr(owner, name, after)
        for module in [one for key, one in sys.modules.items() if key.startswith(("flows", "lectern"))]:
            for alias in [alias for alias, found in vars(module).items() if found is before]:
                setattr(module, alias, after)


def _look(folder: Path, step: str, arguments: object) -> float:
    try:
        fields = json.loads(_order(folder, step).read_text())
    except FileNotFoundError:
        return 0.0
    if fields["only"] in repr(arguments):
        with _struck(folder, step).open("a") as struck:
            struck.write(".")
        raise getattr(builtins, fields["error"])(f"made up by a test: {step}")
    return 0.0


def owner_of(function: str) -> tuple[Any, str]:
    """The module or class that has a *function*, and under which name."""
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def wrapped(
    function: Callable[..., Any], before: Callable[[object], float], after: Callable[[object], float]
) -> Callable[..., Any]:
    """*function* between two others, which get its arguments and return for how many seconds to linger."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: object, **kwargs: object) -> object:
            if seconds := before((args, kwargs)):
                await asyncio.sleep(seconds)
            found = await function(*args, **kwargs)
            if seconds := after((args, kwargs)):
                await asyncio.sleep(seconds)
            return found

        return coroutine

    @functools.wraps(function)
    def plain(*args: object, **kwargs: object) -> object:
        time.sleep(before((args, kwargs)))
        found = function(*args, **kwargs)
        time.sleep(after((args, kwargs)))
        return found

    return plain


def arm_at_start(folder: Path) -> None:
    """Wrap the steps as soon as ``lectern serve`` has told Prefect its settings, which must come before the import."""
    serving: Any = importlib.import_module("lectern.cli.serving")
    before = serving.set_prefect

    def set_prefect(settings: Any) -> None:
        before(settings)
        importlib.import_module("flows.resident.process")
        arm(folder)

    serving.set_prefect = set_prefect


def main() -> None:
    """Wrap the steps, then be ``lectern``."""
    from lectern.cli import main as lectern

    arm_at_start(Path(os.environ[FOLDER]))
    lectern()


if __name__ == "__main__":
    main()
