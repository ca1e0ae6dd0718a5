"""The works of a host, side by side: none ends another, and each ends when it is asked to, cancels swallowed or not."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as Lost

from flows import failures
from flows.failures import FatalError
from flows.host import Host
from flows.outbox_publisher import patience
from flows.resident import supervisor as works_module
from flows.resident.supervisor import Service, Supervisor
from lectern import timing
from lectern.db import incidents
from lectern.errors import TryAgain
from lectern.i18n import Text
from tests.faults.turns import Quiet
from tests.rows import commit, said
from tests.waiting import async_wait_until


@pytest.fixture
def host(teacher: Host[Any], monkeypatch: pytest.MonkeyPatch) -> Host[Any]:
    monkeypatch.setattr(timing, "FIRST_S", 0.01)
    teacher.bus = cast("Any", Quiet())
    return teacher


def play(host: Host[Any], works: dict[str, Service], *until: Callable[[], object], end_s: float = 5) -> None:
    """Begin *works*, wait until each condition was true in its turn, and end them."""

    async def scene() -> None:
        at_work = Supervisor(host)
        at_work.begin({Text(name): work for name, work in works.items()})
        for number, condition in enumerate(until, 1):
            await async_wait_until(condition, description=f"condition {number} of {[*works]} is true")
        await at_work.end(None, end_s)

    asyncio.run(asyncio.wait_for(scene(), 120))


async def forever() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("error", [RecursionError(), UnicodeError("a", "b"), ExceptionGroup("g", [KeyError("x")])])
def test_a_work_that_fails_or_is_cancelled_by_nobody_begins_again_and_others_go_on(
    host: Host[Any], error: Exception
) -> None:
    """It is alarmed once, however often it fails. Some libraries leave a cancel behind: the work would be gone."""
    begun: list[str] = []

    async def bad() -> None:
        begun.append("bad")
        raise error

    async def good() -> None:
        begun.append("good")
        await forever()

    async def cancelled(name: str, error: Exception | None = None) -> None:
        begun.append(name)
        if begun.count(name) == 1:
            cast("asyncio.Task[Any]", asyncio.current_task()).cancel()
            if error is not None:
                raise error
        await forever()

    works: dict[str, Service] = {"bad": bad, "good": good, "cancelled": partial(cancelled, "cancelled")}
    works["both"] = partial(cancelled, "both", error)
    twice = (lambda: begun.count("cancelled") == 2, lambda: begun.count("both") == 2)
    play(host, works, lambda: begun.count("bad") > 4, *twice)
    assert begun.count("good") == 1
    (alarm,) = said(host, "alarm")
    assert alarm["code"] == 507
    assert "bad does not work" in alarm["message"]


@pytest.mark.parametrize(
    ("error", "number"),
    [(NoPermissionError("not this"), 1), (AuthenticationError("wrong password"), 1), (Lost("away"), 0), (None, 0)],
)
def test_what_redis_refuses_for_long_is_alarmed_and_shows_in_health(
    host: Host[Any], monkeypatch: pytest.MonkeyPatch, error: Exception | None, number: int
) -> None:
    """Somebody who is only away is told by others; each makes the work one that does nothing but fail."""
    monkeypatch.setattr(works_module, "STEADY_S", 0.05)

    async def deaf() -> None:
        raise TryAgain("Redis") from error

    play(
        host,
        {"channels": deaf},
        lambda: "channels" in host.watchdog.failing(0.2),
        lambda: len(said(host, "alarm")) >= number,  # it is written down a moment later
    )
    assert len(said(host, "alarm")) == number


def test_a_work_that_goes_on_fails_no_longer_however_long_the_pause_was(
    host: Host[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works again from its next try on; health would be red a minute later."""
    monkeypatch.setattr(works_module, "STEADY_S", 0.3)
    monkeypatch.setattr(works_module, "backoff_s", lambda *_, **__: 0.5)
    begun: list[float] = []
    red: list[float] = []

    async def hiccup() -> None:
        begun.append(time.monotonic())
        if len(begun) == 1:
            raise TryAgain("a moment")
        await forever()

    def is_over() -> bool:
        red.extend(host.watchdog.failing(works_module.STEADY_S).values())
        return len(begun) == 2 and not host.watchdog.failing(0.0)

    play(host, {"hiccup": hiccup}, lambda: host.watchdog.failing(0.0), is_over)
    assert red == []


def test_a_work_that_is_done_after_all_fails_no_longer(host: Host[Any]) -> None:
    """A disk that hung when its files were to be read, for example: health was red until the next restart."""
    tries: list[str] = []
    seen: list[str] = []
    failing = partial(host.watchdog.failing, 0.0)

    async def once() -> None:
        tries.append("once")
        if len(tries) == 1:
            raise TryAgain("the disk hangs")
        await async_wait_until(lambda: seen, description="it is seen that it fails")

    def sees() -> list[str]:
        seen.extend(failing())
        return seen

    play(host, {"once": once}, sees, lambda: not failing())


def test_a_work_begins_again_within_seconds_however_often_it_has_failed(
    host: Host[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Redis was back, it was deaf for up to twelve more: bookings that were published then were lost."""
    pauses: list[float] = []

    async def report(_host: object, _what: str, _error: Exception, pause_s: float, **_: object) -> None:
        pauses.append(pause_s)

    async def deaf() -> None:
        raise TryAgain("Redis")

    monkeypatch.setattr(timing, "FIRST_S", 60.0)  # as after many failures
    monkeypatch.setattr(failures, "report", report)
    play(host, {"channels": deaf}, lambda: pauses)
    assert pauses[0] < 4


def test_an_alarm_is_neither_resolved_nor_raised_again_while_its_trouble_lasts(host: Host[Any]) -> None:
    """In between its incident is open, and nobody may be told that all is well."""
    quiet_s = host.settings.alarm_quiet_s
    clock = iter((0.0, 0.0, quiet_s - 1, quiet_s, quiet_s))
    host.alarmed_at = timing.Throttle(lambda: next(clock))
    raised = partial(failures.alarm, host, "prefect", "away for more than 60 s")
    asyncio.run(raised())
    later = time.time() + quiet_s + 1
    for away, told in ((True, []), (False, ["resolved"])):
        host.prefect_away = away
        found = commit(host.engine, incidents.follow_up, "teacher", patience(host), later)
        assert [one.stage for one in found] == told  # type: ignore[attr-defined]  # of an incident
    before = len(said(host, "alarm"))
    for number in (0, 1):
        asyncio.run(raised())
        assert len(said(host, "alarm")) == before + number


def test_a_swallowed_cancel_keeps_no_work_alive(host: Host[Any]) -> None:
    """As a library does that loses a cancel which comes with an answer; the loop itself looks, too."""
    rounds = 0

    async def deaf() -> None:
        nonlocal rounds
        while True:
            host.watchdog.beat("deaf")
            rounds += 1
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    play(host, {"deaf": deaf}, lambda: rounds, end_s=600)  # far longer than this test may take
    assert rounds == 1


async def test_a_work_that_never_obeys_holds_up_the_end_for_a_bounded_time(host: Host[Any]) -> None:
    """Only one that says so ends the process."""
    over = False

    async def stubborn() -> None:
        while not over:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.2)

    async def last() -> None:
        raise FatalError("another process serves teacher now")

    works = Supervisor(host)
    works.begin({Text("stubborn"): stubborn, Text("last"): last})
    await asyncio.wait_for(works.must_end.wait(), 10)
    assert str(works.why) == "another process serves teacher now"
    await works.end(None, 1)
    over = True
    await works.end(None, 5)


STUBBORN = """
import asyncio, sys, time
from contextlib import suppress
from functools import partial
from flows.resident import process as resident
from lectern.settings import TeacherSettings

async def main(self):
    self._loop = asyncio.get_running_loop()
    print("up", flush=True)
    if "ends" in sys.argv:
        self.ending.set()
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

resident.Resident._main = main
resident.END_S = resident.SURELY_S = 1.0
sys.exit(resident.serve(TeacherSettings.load(_env_file=None, transcode_sign_key="made-up", drain_timeout_s=1)))
"""


@pytest.mark.parametrize("why", ["ends", "is asked to"])
def test_a_process_that_does_not_end_by_itself_is_ended_by_force(why: str) -> None:
    """Within its drain time and a few seconds, with an exit code that is no success, so that supervisord starts it."""
    argv = [sys.executable, "-c", STUBBORN, why]
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        if why == "is asked to":
            process.terminate()
        assert process.wait(timeout=300) == 1
