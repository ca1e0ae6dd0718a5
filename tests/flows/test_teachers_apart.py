"""Several teachers on one PostgreSQL: when another one counts as dead, and what holds up nobody."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import QueuePool

from flows import outbox_publisher as telling
from flows.handling import SWEEP
from flows.host import CHECKING, TeacherHost
from flows.outbox_publisher import publish_outbox
from flows.resident import maintenance as resident_maintenance
from flows.resident import peers as looking
from flows.resident.consumer import Consumer
from flows.resident.prefect import worker
from flows.teacher import maintenance as teacher_maintenance
from lectern.db import inbox, leases, outbox
from lectern.db.engine import open_database
from lectern.db.inbox import ReceivedMessage
from lectern.redis.client import Bus
from lectern.wire import outgoing
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests.effects.redis_servers import redis_of_a_module, url_of
from tests.faults import hosts
from tests.stage.postgres import Databases
from tests.waiting import async_wait_until, cancelled

__all__ = ["redis_of_a_module"]
pytestmark = pytest.mark.live
Server = Any  # a client of Redis
SAID = Outgoing("order_result", OutgoingKind.CHANNEL, outgoing.answer("c-1", 0, "prepared"), "c-1")


@pytest.fixture
def postgres_url(postgresql: Databases) -> str:
    return postgresql.laid()


@pytest.fixture
async def teacher(postgres_url: str, server: Server) -> AsyncIterator[TeacherHost]:
    engine = open_database(postgres_url, "a")
    found = hosts.teacher(engine)
    found.settings = found.settings.model_copy(
        update={"teacher_database_url": SecretStr(postgres_url), "teacher_name": "a"}
    )
    assert found.settings.shared
    found.bus = Bus.open(url_of(server))
    yield found
    await found.bus.close()
    pool = cast("QueuePool", engine.pool)  # of work that was cancelled, its thread may be at a statement yet
    await async_wait_until(lambda: pool.checkedout() == 0, description="nobody has a connection any more")
    engine.dispose()


async def swept() -> bool:
    return True


def peers_of(host: TeacherHost, sweep: Callable[[], Awaitable[bool]] = swept) -> looking.Peers:
    return looking.Peers(host, hosts.NOBODY, sweep)


async def claimed(host: TeacherHost, owner: str) -> int:
    """How many messages *owner* gets."""
    now = time.time()
    return len(await host.write_tx(inbox.claim, ["order"], limit=9, lease_s=3600, now=now, owner=owner))


async def test_who_notes_nothing_in_four_rounds_is_dead_and_its_messages_are_free(teacher: TeacherHost) -> None:
    """However long a round takes: a slow machine, or a database that was away, kills nobody."""
    ours = peers_of(teacher)
    await teacher.write_tx(inbox.keep, [ReceivedMessage("stream:order", "order", "{}")], 1.0)
    assert await claimed(teacher, "b") == 1
    for at in (1.0, 2.0):
        await teacher.write_tx(leases.note_teacher, "b", at)
        for _ in range(looking.SILENT):
            ours._go_round()
            await ours._look()
        assert await teacher.read_tx(leases.claiming_teachers) == {"b"}
    ours._go_round()
    await ours._look()
    assert await teacher.read_tx(leases.claiming_teachers) == set()
    assert await claimed(teacher, "a") == 1


async def test_a_teacher_notes_that_it_is_there_while_another_holds_up_all_writers(
    teacher: TeacherHost, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a third one would take it for dead, because a second one stands still in a transaction."""
    monkeypatch.setattr(looking, "LOOK_S", 0.1)
    with psycopg.connect(postgres_url) as still:
        still.execute("SELECT pg_advisory_xact_lock(7365)")
        waiting = [asyncio.create_task(teacher.write_tx(inbox.answers)) for _ in range(20)]
        ours = peers_of(teacher)
        running = asyncio.create_task(ours._note())

        def noted() -> float:
            with psycopg.connect(postgres_url) as other:
                row = other.execute("SELECT max(seen_at) FROM teacher_list").fetchone()
            return float(row[0] or 0.0) if row else 0.0

        await async_wait_until(lambda: noted() > 0, description="the teacher is noted")
        first = noted()
        await async_wait_until(lambda: noted() > first, description="it is noted again")
        await cancelled(running)
    await asyncio.gather(*waiting)
    await asyncio.to_thread(ours._noting.shutdown)


async def test_a_dead_teacher_that_holds_up_all_writers_is_cut_off_in_the_round_in_which_it_counts_as_dead(
    teacher: TeacherHost, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "STANDS_S", 0.0)  # the rounds of this test take no time
    ours = peers_of(teacher)
    with psycopg.connect(postgres_url, application_name="lectern b") as still:
        still.execute("SELECT pg_advisory_xact_lock(7365)")
        with psycopg.connect(postgres_url) as other:
            other.execute("INSERT INTO teacher_list (name, seen_at) VALUES ('b', 1.0)")
        waiting = asyncio.create_task(teacher.write_tx(inbox.answers))
        for _ in range(looking.SILENT):
            await asyncio.to_thread(ours._go_round)
        assert not waiting.done()
        await asyncio.to_thread(ours._go_round)
        async with asyncio.timeout(8):  # before the server itself would end it
            await waiting
        still.close()


async def test_a_teacher_found_dead_is_looked_at_now(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not at the next look: the answers that it was about to send wait for this."""
    monkeypatch.setattr(looking, "LOOK_S", 3600.0)
    await teacher.write_tx(leases.note_teacher, "b", 1.0)
    assert await teacher.write_tx(leases.take_duty, "of a test", "b", 3600, time.time())
    ours = peers_of(teacher)
    look, looks, looked_again = ours._look, asyncio.Event(), asyncio.Event()

    async def looked() -> None:
        await look()
        (looked_again if looks.is_set() else looks).set()

    monkeypatch.setattr(ours, "_look", looked)
    running = [asyncio.create_task(ours._look_again_and_again())]
    async with asyncio.timeout(30):
        await looks.wait()
        monkeypatch.setattr(looking, "LOOK_S", 0.05)  # of the rounds; the look waits for an hour
        running.append(asyncio.create_task(ours._note()))
        await looked_again.wait()
    assert await teacher.read_tx(leases.claiming_teachers) == set()
    for one in running:
        await cancelled(one)
    await asyncio.to_thread(ours._noting.shutdown)


async def test_what_a_dead_one_had_decided_is_begun_though_a_sweep_is_at_work(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one began before the dead one's work was free: the next would come half a minute later."""
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    begun: list[str] = []

    async def sweep() -> None:
        begun.append("sweep")

    handler = cast("Any", SimpleNamespace(sweep=sweep))
    ours = peers_of(teacher, lambda: resident_maintenance.sweep(teacher, handler))
    teacher.in_progress.add(SWEEP)
    await teacher.write_tx(leases.note_teacher, "b", 1.0)
    for _ in range(looking.SILENT + 1):
        ours._go_round()
    await ours._look()
    sweeping = asyncio.create_task(ours._sweep_after())
    await asyncio.sleep(0.3)  # no second sweep begins beside the first
    assert begun == []
    teacher.in_progress.discard(SWEEP)
    await async_wait_until(lambda: begun == ["sweep"], description="the sweep begins")
    await asyncio.sleep(0.3)  # nor after it
    assert begun == ["sweep"], "once"
    await cancelled(sweeping)


async def test_runs_that_nobody_has_are_looked_for_though_no_teacher_is_dead(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_S", 0.05)
    monkeypatch.setattr(worker, "UNTAGGED_S", 0.2)
    asked: list[str] = []

    async def adopt(_runs: object, _pool: str, _queue: str, of: str) -> int:
        asked.append(of)
        return 0

    monkeypatch.setattr(worker, "adopt", adopt)
    adopting = asyncio.create_task(peers_of(teacher)._adopt())
    await async_wait_until(lambda: asked[:2] == [worker.NOBODY] * 2, description="it has looked for them twice")
    await cancelled(adopting)


async def test_one_of_them_calls_classes_late_and_leaves_it_to_another_if_redis_does_not_answer_it(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each class that is not ready is alarmed by each teacher."""
    monkeypatch.setattr(teacher_maintenance, "LOOK_EVERY_S", 0.05)
    checked: list[float] = []

    async def check(_host: TeacherHost, done: dict[Any, float], now: float) -> dict[Any, float]:
        checked.append(now)
        return done

    monkeypatch.setattr(teacher_maintenance, "check_of_teacher", check)
    assert await teacher.write_tx(leases.take_duty, CHECKING, "b", 3600, time.time())
    checking = asyncio.create_task(teacher_maintenance.teacher_checks(teacher))
    await asyncio.sleep(0.3)  # it is the other's duty
    assert checked == []
    await teacher.write_tx(leases.free_claims, "b", "a")
    await async_wait_until(lambda: len(checked) > 2, description="it checks classes")
    teacher.redis_away = True
    number = len(checked)
    await async_wait_until(lambda: len(checked) > number + 2, description="it goes on with it")  # nobody else does it
    assert await teacher.write_tx(leases.take_duty, CHECKING, "b", 3600, time.time() + 1)
    number = len(checked)
    await asyncio.sleep(0.3)  # it is the other's duty again
    assert len(checked) <= number + 1
    await cancelled(checking)


async def test_what_is_read_after_a_standstill_is_what_the_other_has_heard_long_ago(
    teacher: TeacherHost, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited in the connection; to take it for new would answer it twice."""
    monkeypatch.setattr(inbox, "SAME_S", 1.0)
    teacher.bus.hearing.beat_s = 0.2
    intake = Consumer(teacher, cast("Any", None))
    listening = asyncio.create_task(intake._listen())
    heard = teacher.bus.hearing
    await async_wait_until(lambda: heard.sent_since is not None, description="it listens")
    began = time.time()
    await async_wait_until(lambda: (heard.sent_since or 0.0) > began, description="it is heard since")
    theirs = ReceivedMessage("channel:order", "order", "{}", at=time.time())
    assert len(await teacher.write_tx(inbox.keep_paired, [theirs], "b", time.time())) == 1
    assert server.publish("order", "{}") == 1
    time.sleep(3)  # noqa: ASYNC251 (nothing of this process goes on)
    await async_wait_until(lambda: bool(intake._batch), description="the message has come")
    await intake._keep()
    assert await teacher.read_tx(inbox.waiting) == 1
    await cancelled(listening)


@pytest.mark.parametrize("where", ["now", "send"])
async def test_a_teacher_that_stands_still_while_it_sends_sends_nothing_that_another_has_sent(
    teacher: TeacherHost, server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Before it asks Redis, or between the answer and the sending."""
    monkeypatch.setattr(telling, "STANDS_STILL_S", 0.2)
    monkeypatch.setattr(outbox, "SENDING_S", 0.4)
    server.flushall()
    await teacher.write_tx(outbox.put, [SAID], time.time())
    goes_on = getattr(teacher.bus, where)
    stood: list[int] = []

    async def stands_still(*given: Any) -> Any:
        if not stood:
            await asyncio.sleep(0.5)
            assert await teacher.write_tx(leases.free_claims, "a", "b") == 1
            (one,) = await teacher.write_tx(outbox.claim, "b", limit=9, now=time.time())
            server.xadd("order_result", {"body": one.body})
            await teacher.write_tx(outbox.sent, [one.id], time.time())
            stood.append(one.id)
        return await goes_on(*given)

    monkeypatch.setattr(teacher.bus, where, stands_still)
    assert await publish_outbox(teacher)
    assert len(stood) == server.xlen("order_result") == 1
