"""A streamer's lease is kept by a thread that nothing in the resident's loop can hold up."""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock, call

import pytest
import redis

from flows import failures
from flows.host import StreamerHost
from flows.playout_link import boot_now
from flows.streamer import lease
from flows.streamer.lease import HeartbeatThread, LeaseFacts, QuorumCheck, renew
from lectern import health
from lectern.db import leases
from lectern.decide import leases as decide
from lectern.decide.leases import WITNESS_S, Answer, Lease, Peers, PrefectAnswer
from lectern.errors import TryAgain
from lectern.playout.control_socket import Client, PlayoutUnreachable
from lectern.playout.lease import LeaseSocket
from lectern.playout.worker_process import Shared
from tests.effects.redis_servers import empty_redis, redis_of_a_module, url_of
from tests.faults import hosts
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.rows import commit, look
from tests.waiting import async_wait_until, cancelled

__all__ = ["empty_redis", "redis_of_a_module"]
NAME, KEY = hosts.ALIVE[0], "streamers"
LEASE_S, BEAT_S = 4.0, 0.3
NOW = boot_now()


@pytest.fixture
def streamer(client: redis.Redis, streamer: StreamerHost, tmp_path: Path) -> StreamerHost:
    """A streamer with a session that Redis knows, and whose playout has left what is not its own."""
    its = {"redis_url": type(streamer.settings.redis_url)(url_of(client)), "playout_dir": tmp_path / "p"}
    its |= {"lease_s": LEASE_S, "heartbeat_interval_s": BEAT_S}
    streamer.settings = streamer.settings.model_copy(update=its)
    commit(streamer.engine, leases.hold, NAME, "s0", time.time())
    client.hset(f"{KEY}:lease", NAME, "s0")
    streamer.playout.cleared = "s0", os.getpid()
    return streamer


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """The memory in which a holder keeps the end of the lease; the holder has no other work."""
    (tmp_path / "p").mkdir()
    found = Shared.at()
    yield found
    os.close(found.file)


@asynccontextmanager
async def kept(streamer: StreamerHost, *, prefect: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
    """The lease is kept meanwhile; *prefect* says whether the classes are taken."""

    @asynccontextmanager
    async def asked() -> AsyncIterator[Callable[[str, str], Awaitable[bool]]]:
        async def is_taken(_: str, __: str) -> bool:
            return prefect()

        yield is_taken

    keeping = asyncio.create_task(renew(streamer, asked))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def beat(client: redis.Redis) -> dict[str, Any]:
    return dict(json.loads(cast("str", client.hget(KEY, NAME)) or "{}"))


@pytest.mark.live
async def test_a_resident_that_hangs_longer_than_its_lease_cuts_no_class(
    streamer: StreamerHost, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes on air go on in their session; meanwhile it takes no new ones, because it could not prepare them."""
    monkeypatch.setattr(lease, "STALE_S", 1.0)
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=0) as playout:
        streamer.playout.cleared = "s0", playout.hello()["holder_pid"]
        async with kept(streamer):
            await asyncio.to_thread(playout.air, "c1", path, receiver.url("c1"), starts_in_s=0.2)
            await async_wait_until(lambda: playout.told("on_air"), description="on air")
            assert beat(client)["full"] is False
            time.sleep(1.5 * LEASE_S)  # noqa: ASYNC251 (the loop hangs: that is what the test is about)
            assert time.time() - beat(client)["at"] < LEASE_S
            assert (beat(client)["stale"], beat(client)["full"]) == (True, True)
            (session,) = receiver.sessions
            assert session.ended is None
            await async_wait_until(lambda: not beat(client)["full"], description="it takes classes again")
        assert not playout.told("lease_over")


async def test_facts_are_read_at_each_beat_and_each_second_while_no_teacher_hears_them(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()

    async def soon(_: object, within_s: float) -> None:
        waits.append(within_s)
        streamer.control_connected = True
        if len(waits) == 2:
            raise EOFError

    monkeypatch.setattr(lease, "_soon", soon)
    monkeypatch.setattr(lease, "HeartbeatThread", Mock(return_value=Mock(stop=AsyncMock())))
    streamer.control_connected = False
    with pytest.raises(EOFError):
        await renew(streamer, AsyncMock())
    assert waits == [lease.AGAIN_S, BEAT_S]


@pytest.fixture
async def left_s(shared: Shared, tmp_path: Path) -> AsyncIterator[Callable[[], float]]:
    """How many seconds of the lease are left; its socket is served as the holder does."""
    socket = LeaseSocket(tmp_path / "p", shared)

    async def serve() -> None:
        while True:
            socket.serve()
            await asyncio.sleep(0.01)

    serving = asyncio.create_task(serve())
    yield lambda: shared.lease_until - boot_now()
    await cancelled(serving)
    socket.close()


async def test_the_lease_of_the_process_before_is_kept_while_redis_is_away(
    streamer: StreamerHost, left_s: Callable[[], float], shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lengthened as long as nobody takes the classes, and ends with Prefect's word that somebody does."""
    nowhere = type(streamer.settings.redis_url)("redis://127.0.0.1:1/0")
    streamer.settings = streamer.settings.model_copy(update={"redis_url": nowhere})
    until_s, witness_s = 5.0, 7.0
    monkeypatch.setattr(decide, "WITNESS_S", witness_s)
    is_taken = False
    streamer.fencing_token = "its own"
    shared.lease_until = boot_now() + until_s
    async with kept(streamer, prefect=lambda: is_taken):
        await async_wait_until(lambda: left_s() > until_s, description="it is lengthened")
        is_taken = True
        await async_wait_until(lambda: left_s() <= 0, description="it ends")
        is_taken = False
        await asyncio.sleep(1.5)  # nobody gives it back
        assert left_s() <= 0, "no witness gives it back"
        assert (streamer.control_connected, streamer.fencing_token) == (False, "its own")


# -- each step of the thread, in the loop of the test ------------------------------------------------------------------


@pytest.fixture
async def thread(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HeartbeatThread]:
    """It was not begun, and its clock stands still."""
    monkeypatch.setattr(lease, "boot_now", lambda: NOW)
    streamer.settings = streamer.settings.model_copy(update={"lease_s": 45, "heartbeat_interval_s": 15})
    made = HeartbeatThread(streamer, LeaseFacts(NOW, "s0", {"full": False}), {}, hosts.NOBODY)
    yield made
    made._loop.close()


def answers(answer: object) -> Any:
    """A Redis that gives a heartbeat this answer."""
    return SimpleNamespace(beat=AsyncMock(side_effect=[answer]))


async def test_a_heartbeat_never_asks_for_a_session_that_is_granted_already(
    streamer: StreamerHost, thread: HeartbeatThread
) -> None:
    """It would be granted again before the releases are read that came with it. The next beat is soon in trouble."""
    for asks_for, answer, lease_answer, pause_s, is_kept in (
        ("s1", {}, Answer.OURS, 15, True),
        ("s0", {}, Answer.OURS, 15, False),
        ("s1", "s1", Answer.GRANTED, 1, True),
        ("s1", "-s0", Answer.TAKEN, 1, True),
        ("s1", "-s1", Answer.TAKEN, 1, False),
        ("s1", None, Answer.FORGOTTEN, 1, True),
        ("s1", TryAgain("Redis is away"), Answer.NONE, 1, True),
    ):
        streamer.fencing_token = asks_for
        assert await thread._beat(bus := answers(answer)) == pause_s
        assert (thread._lease.answer, streamer.fencing_token == asks_for) == (lease_answer, is_kept)
        assert bus.beat.await_args.args[-1]["session"] == (asks_for if asks_for != "s0" else streamer.fencing_token)


async def test_a_host_whose_loop_says_nothing_new_for_long_gets_no_new_class(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than a heartbeat and STALE_S. A new session is used at once."""
    monkeypatch.setattr(thread, "_call", (called := list[asyncio.Event]()).append)
    for old_s, is_stale in ((0, False), (15, False), (25, False), (26, True)):
        thread.hand_over(LeaseFacts(NOW - old_s, "s0", {"full": False}))
        await thread._beat(bus := answers({}))
        fields = bus.beat.await_args.args[3]
        assert (fields.get("stale", False), fields["full"]) == (is_stale, is_stale)
    assert called == []
    thread.hand_over(LeaseFacts(NOW, "s1", {"full": False}))
    assert called == [thread._wakes]


async def test_the_log_says_once_that_a_lease_has_run_out_and_once_that_it_is_held_again(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lectern")
    lasts_s = [-1, 5, 5, 0, -1, 5]

    async def beat(_: object) -> float:
        if not lasts_s:
            raise asyncio.CancelledError
        thread._lease = Lease(NOW + lasts_s.pop(0))
        return 0.0

    monkeypatch.setattr(thread, "_beat", beat)
    with pytest.raises(asyncio.CancelledError):
        await thread._keep_beating(cast("Any", None))
    said = [(record.levelname, record.message.split("lease: ")[-1].split(";")[0]) for record in caplog.records]
    assert said == [("INFO", "held"), ("ERROR", "has run out"), ("INFO", "held")]


async def test_a_loop_of_the_thread_that_is_cancelled_by_nobody_begins_again(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries leave a cancel behind: without its heartbeats the streamer would lose all classes."""
    monkeypatch.setattr(lease, "AGAIN_S", 0.0)
    monkeypatch.setattr(failures, "report", reported := AsyncMock())
    begun = list[bool]()

    async def loop() -> None:
        begun.append(True)
        if len(begun) < 3:
            cast("asyncio.Task[Any]", asyncio.current_task()).cancel()
        if len(begun) == 2:
            raise KeyError("odd")
        await asyncio.sleep(60)

    keeping = asyncio.create_task(thread._again(loop))
    await async_wait_until(lambda: len(begun) == 3 and reported.called, description="it begins again")
    thread._stops.set()
    await cancelled(keeping)


async def test_each_answer_of_redis_is_said_once_and_doubt_asks_the_witnesses(
    streamer: StreamerHost, thread: HeartbeatThread, caplog: pytest.LogCaptureFixture
) -> None:
    """Only while nobody knows; a lease without end needs no witness. Redis has less time to answer in trouble."""
    caplog.set_level(logging.INFO)
    assert thread._patience_s == 5.0
    for answer, lines, in_doubt in (
        (Answer.OURS, 0, False),
        (Answer.NONE, 0, True),
        (Answer.OURS, 1, False),
        (Answer.TAKEN, 2, False),
        (Answer.TAKEN, 2, False),
        (Answer.FORGOTTEN, 2, True),
    ):
        thread._take(answer, NOW)
        assert (len(caplog.messages), thread._doubt.is_set()) == (lines, in_doubt)
        assert streamer.control_connected is (answer is Answer.OURS)
        assert (thread._patience_s == WITNESS_S / 4) is (answer is not Answer.OURS)
        thread._why = "nobody takes them" if in_doubt else thread._why
    for _ in range(2):
        await thread._beat(answers(TryAgain("Redis is away")))
    assert len(caplog.messages) == 2, "it is known"
    thread._take(Answer.OURS, NOW)
    await thread._beat(answers(TryAgain("Redis is away")))
    assert len(caplog.messages) == 4, "it is heard again, and then it is not"
    for lease_s, patience_s in ((8, 2.0), (0, 5.0)):
        streamer.settings = streamer.settings.model_copy(update={"lease_s": lease_s})
        thread._take(Answer.OURS, NOW)
        thread._take(Answer.NONE, NOW)
        thread._is_trouble = False
        assert (thread._patience_s, thread._doubt.is_set()) == (patience_s, lease_s > 0)


async def test_the_witnesses_lengthen_a_lease_that_is_not_over_and_are_quoted_once(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What they say once Redis has answered is not said."""
    said = [(why != "a", why) for why in "aabc"]
    monkeypatch.setattr(thread._witnesses, "verdict", AsyncMock(side_effect=said))
    for left_s, in_doubt, then_s, lines in (
        (0, True, 0, 0),
        (5, True, 5, 1),
        (5, True, 5, 1),
        (5, True, WITNESS_S, 2),
        (5, False, WITNESS_S, 2),
    ):
        (thread._doubt.set if in_doubt else thread._doubt.clear)()
        thread._lease = Lease(NOW + left_s, Answer.NONE)
        thread._moved.clear()
        await thread._ask(cast("Any", None))
        assert (thread._lease.until, len(caplog.messages)) == (NOW + then_s, lines)
        assert thread._moved.is_set() is (then_s != left_s), "the playout's supervisor is told at once"
    ends, goes_on = caplog.messages
    assert ends.endswith("a; they end in 5 s")
    assert "they end" not in goes_on


async def test_the_holder_is_told_the_end_of_the_lease(
    streamer: StreamerHost, thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was over goes on only when the playout has left what is not ours; at the start, the holder's counts."""
    monkeypatch.setattr(lease, "AGAIN_S", 600.0)  # it is told no second time meanwhile
    holder, forever_s = {"ok": True, "holder_pid": 7, "lease_until": NOW}, float("inf")
    ask = AsyncMock(return_value=holder)
    for ours_s, answer, holder_s, cleared, told in (
        (40, Answer.OURS, 30, None, {"until": NOW + 40}),
        (40, Answer.OURS, -1, None, {}),
        (40, Answer.OURS, 0, ("s0", 8), {}),
        (40, Answer.OURS, -1, ("s0", 7), {"until": NOW + 40}),
        (0, Answer.TAKEN, -1, None, {"until": NOW}),
        (-5, Answer.TAKEN, 30, None, {"until": NOW - 5}),
        (-5, Answer.NONE, 30, None, {"until": NOW + 30}),
        (40, Answer.NONE, 30, None, {"until": NOW + 40}),
        (forever_s, Answer.OURS, 30, None, {"until": lease.FOR_EVER_S}),
    ):
        ask.reset_mock()
        holder["lease_until"] = NOW + holder_s
        thread._lease, thread._session, thread._is_adopted = Lease(NOW + ours_s, answer), "s0", False
        streamer.playout.cleared = cleared
        telling = asyncio.create_task(thread._tell(ask))
        await async_wait_until(lambda: ask.await_count == 2, description="the holder is told")
        await cancelled(telling)
        assert ask.await_args_list == [call(), call(**told)]


async def test_that_the_holder_is_away_or_cannot_write_it_down_is_said_once(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "AGAIN_S", 0.001)
    well: dict[str, Any] = {"holder_pid": 7, "lease_until": 0.0}
    full = well | {"why": "full"}
    ask = AsyncMock(side_effect=[well, full, full, well, full, OSError("it has ended")])
    with pytest.raises(OSError, match="it has ended"):
        await thread._tell(ask)
    assert len(caplog.messages) == 2
    away = AsyncMock(side_effect=PlayoutUnreachable("it is not there"))
    monkeypatch.setattr(Client, "connect", away)
    monkeypatch.setattr(lease, "SUPERVISOR_AGAIN_S", 0.001)
    thread._no_supervisor = None
    telling = asyncio.create_task(thread._keep_telling())
    await async_wait_until(lambda: away.call_count > 2, description="it is looked for again and again")
    await cancelled(telling)
    assert len(caplog.messages) == 3


async def test_an_unexpected_error_of_the_thread_is_reported_while_its_work_goes_on(
    thread: HeartbeatThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the resident's loop, one at a time: a log, or a database, may hang."""
    monkeypatch.setattr(lease, "AGAIN_S", 0.001)
    reported, may_end, runs = list[Exception](), asyncio.Event(), 0

    async def report(_host: object, _what: str, error: Exception, _again_s: float) -> None:
        reported.append(error)
        await may_end.wait()

    async def works() -> None:
        nonlocal runs
        runs += 1
        if runs > 3:
            raise KeyError(runs)

    monkeypatch.setattr(failures, "report", report)
    working = asyncio.create_task(thread._again(works))
    await async_wait_until(lambda: runs > 10, description="it is run again and again")
    assert [str(one) for one in reported] == ["4"]
    may_end.set()
    await async_wait_until(lambda: len(reported) > 2, description="the next ones are reported")
    thread._stops.set()
    await cancelled(working)


def test_a_heartbeat_says_whether_the_host_takes_classes_and_where_it_is_asked(streamer: StreamerHost) -> None:
    """For a while after a disk took nothing it would not even refuse a class; nobody asks one that serves no health."""

    def said(what: str) -> object:
        return look(streamer.engine, lease._facts, streamer, 1.0).fields[what]

    for ago_s, is_full in ((None, False), (1, True), (lease.FULL_S + 1, False)):
        streamer.no_room_at = None if ago_s is None else time.monotonic() - ago_s
        assert said("full") is is_full
    for own, public, shown in (
        ("", None, ""),
        ("h:1", None, "h:1"),
        ("h:1", "public:1", "public:1"),
        ("", "public:1", ""),
    ):
        streamer.address = own
        streamer.settings = streamer.settings.model_copy(update={"health_address": public})
        assert said("address") == shown
    commit(streamer.engine, leases.drain, NAME, 1.0, "me")
    assert (said("full"), look(streamer.engine, lease._facts, streamer, 1.0).session) == (True, "s0")


async def test_classes_are_taken_if_they_are_under_either_session(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running one, and the one that may have been granted meanwhile; in trouble, the others are asked, too.

    One that never heard who they are takes nobody for away: its classes end with the lease.
    """
    taken = list[str]()

    async def is_taken(_: str, session: str) -> bool:
        return session in taken

    async def of(address: str, _: float) -> dict[str, object]:
        return {"name": address.partition(":")[0], "hears": False}

    monkeypatch.setattr(health, "of", of)
    for sessions, word in (["s0"], PrefectAnswer.TAKEN), (["claim"], PrefectAnswer.TAKEN), ([], PrefectAnswer.FREE):
        taken[:] = sessions
        assert await QuorumCheck(streamer, {}, AsyncMock())._prefect(is_taken, "s0", "claim") is word
    streamer.settings = streamer.settings.model_copy(update={"lease_s": 0.2})

    async def hang(*_: str) -> bool:
        await asyncio.Event().wait()
        return True

    async with asyncio.timeout(lease.ASK_S / 2):  # the lease would be over before it has its answer
        assert await QuorumCheck(streamer, {}, AsyncMock())._prefect(hang, "s0") is PrefectAnswer.AWAY
    for known, policy, peers in (
        ({"s2": "s2:1"}, "ask peers", Peers.BLIND),
        ({"s2": "s2:1", "s3": ""}, "ask peers", Peers.SILENT),
        ({}, "ask peers", Peers.NONE),
        (None, "ask peers", Peers.SILENT),
        ({}, "push", Peers.SILENT),
    ):
        assert await QuorumCheck(streamer, known, AsyncMock())._peers(policy) is peers
    assert not (await QuorumCheck(streamer, None, AsyncMock()).verdict(hang, "s0", "claim"))[0]
