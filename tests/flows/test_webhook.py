"""The webhook: what the platform is told is posted to it, signed, in the order of each class, until it is taken."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from flows import outbox_publisher
from flows.host import TeacherHost
from flows.outbox_publisher import _for_webhook
from flows.teacher import webhook
from flows.teacher.webhook import Webhook
from lectern.db import incidents, outbox
from lectern.db.outbox import Unsent
from lectern.errors import Misuse, Refuse
from lectern.model.tables.teacher import journal
from lectern.redis.pubsub import Sent
from lectern.wire import outgoing
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests.answering import Server
from tests.hook import SECRET, receiving
from tests.rows import commit, look, said
from tests.waiting import async_wait_until, cancelled


@pytest.fixture
def receiver() -> Iterator[Any]:
    with receiving() as server:
        yield server


@pytest.fixture
def teacher(teacher: TeacherHost, receiver: Server, monkeypatch: pytest.MonkeyPatch) -> TeacherHost:
    """A teacher that posts to the receiver."""
    monkeypatch.setattr(webhook, "LOOK_S", 0.02)
    own = {"event_webhook_url": f"{receiver.url}/hook", "event_webhook_secret": SecretStr(SECRET)}
    teacher.settings = teacher.settings.model_copy(update={**own, "allowed_origins": "127.0.0.1"})

    async def nothing(_: object) -> bool:
        return True

    monkeypatch.setattr(webhook, "publish_outbox", nothing)
    return teacher


def sent(host: TeacherHost, *class_ids: str, at: float | None = None) -> list[int]:
    """Answers that were sent on Redis, one for each of *class_ids*, numbered by their codes."""
    now = time.time() if at is None else at
    for number, class_id in enumerate(class_ids):
        answer = outgoing.answer(class_id, number, "")
        one = Outgoing(host.settings.order_result_channel, OutgoingKind.CHANNEL, answer, class_id)
        commit(host.engine, outbox.put, journal, [one], now)
    rows = look(host.engine, lambda c: c.execute(select(journal.outbox)).all())
    some = [Unsent(row.id, row.target, OutgoingKind.CHANNEL, row.body) for row in rows]
    commit(host.engine, _for_webhook, host, some)
    return [row.id for row in rows]


def states(host: TeacherHost) -> list[str | None]:
    its = journal.outbox.c
    return list(look(host.engine, lambda c: c.execute(select(its.webhook).order_by(its.id)).scalars()))


@asynccontextmanager
async def posting(host: TeacherHost) -> AsyncIterator[None]:
    task = asyncio.create_task(Webhook(host).run())
    try:
        yield
    finally:
        await cancelled(task)


async def test_each_message_is_posted_once_signed_and_in_class_order(teacher: TeacherHost, receiver: Any) -> None:
    ids = sent(teacher, *(f"c-{number % 3}" for number in range(12)))
    async with posting(teacher):
        await async_wait_until(lambda: set(states(teacher)) == {"told"}, description="all are taken")
    assert sorted(id_ for id_, _ in receiver.taken) == sorted(f"msg_{one}" for one in ids)
    for class_id in ("c-0", "c-1", "c-2"):
        codes = [message["code"] for _, message in receiver.taken if message["class_id"] == class_id]
        assert codes == sorted(codes)


async def test_an_answer_without_end_is_an_answer(teacher: TeacherHost, receiver: Any) -> None:
    """Nobody reads it; it would fill the memory."""
    receiver.refuses = lambda _: 299
    sent(teacher, "c-1")
    async with posting(teacher):
        await async_wait_until(lambda: states(teacher) == ["told"], description="it is taken")
    assert len(receiver.taken) == 1


async def test_what_is_refused_is_posted_again_and_holds_up_its_own(teacher: TeacherHost, receiver: Any) -> None:
    """No redirect is followed, and one that hangs or breaks off counts as refused."""
    answers = iter((500, 302, 404))
    receiver.refuses = lambda message: next(answers, 200) if message["class_id"] == "c-odd" else 200
    sent(teacher, "c-odd", "c-odd", "c-1", "c-2")
    async with posting(teacher):
        await async_wait_until(lambda: len(receiver.taken) == 2, description="the others are taken")
        assert {message["class_id"] for _, message in receiver.taken} == {"c-1", "c-2"}
        async with asyncio.timeout(60):
            while "due" in states(teacher):
                await asyncio.sleep(0.05)
                commit(teacher.engine, lambda c: c.execute(update(journal.outbox).values(webhook_at=0)))
    assert [message["code"] for _, message in receiver.taken if message["class_id"] == "c-odd"] == [0, 1]
    assert len(receiver.refused) == 3


async def test_what_lies_behind_much_that_waits_for_redis_is_due_in_time(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long Redis is away: at each try to send, as many more are passed on as are read at once."""

    class Away:
        async def send(self, _: object) -> Sent:
            return Sent(broke=OSError("no route to host"))

    monkeypatch.setattr(outbox_publisher, "SEND_BATCH", 2)
    teacher.bus = cast("Any", Away())
    some = [Outgoing(teacher.settings.order_result_channel, OutgoingKind.CHANNEL, outgoing.answer("c-1", 0, ""))] * 5
    commit(teacher.engine, outbox.put, journal, some, time.time())
    due = []
    for _ in range(2):
        assert not await outbox_publisher.publish_outbox(teacher)
        due.append(states(teacher).count("due"))
    assert due == [2, 4]


async def gone(teacher: TeacherHost, receiver: Any, *class_ids: str) -> None:
    """The receiver answers that it is no more, and is posted to no more."""
    receiver.refuses = lambda _: 410
    sent(teacher, *class_ids)
    async with posting(teacher):
        await async_wait_until(lambda: teacher.webhook_off, description="it is switched off")


async def test_gone_switches_the_webhook_off_with_an_alarm(teacher: TeacherHost, receiver: Any) -> None:
    """While it is off, that is not said to be resolved."""
    await gone(teacher, receiver, "c-1", "c-2")
    assert states(teacher)[:2] in (["gone", "given up"], ["given up", "gone"])
    assert [one["code"] for one in said(teacher, "alarm")] == [509]
    raised = commit(teacher.engine, outbox_publisher._unsent, teacher).messages
    commit(teacher.engine, incidents.told, journal, [one.id for one in raised], now := time.time())
    commit(teacher.engine, outbox.sent, journal, [one.id for one in raised], now)
    later = now + teacher.settings.alarm_quiet_s + 60
    assert commit(teacher.engine, incidents.follow_up, journal, "t", outbox_publisher.patience(teacher), later) == []
    assert sent(teacher, "c-3")
    assert states(teacher)[-1] is None


async def test_a_restart_does_not_switch_it_on_again_another_url_does(teacher: TeacherHost, receiver: Any) -> None:
    await gone(teacher, receiver, "c-1")
    receiver.refuses, its = lambda _: 200, teacher.settings
    teacher.webhook_off = False
    sent(teacher, "c-2")  # before the new process knows of it
    async with posting(teacher):
        await async_wait_until(lambda: teacher.webhook_off, description="it is off")
        assert "due" not in states(teacher)
        for url in (None, its.event_webhook_url):
            teacher.settings = its.model_copy(update={"event_webhook_url": url})
            await async_wait_until(lambda: not teacher.webhook_off, description="it is on")
            await asyncio.sleep(0.1)  # so long it looks at the settings
        sent(teacher, "c-3")
        await async_wait_until(lambda: len(receiver.taken) == 1, description="it is posted to")


async def test_a_message_not_taken_for_a_day_is_a_dead_letter(teacher: TeacherHost, receiver: Any) -> None:
    receiver.refuses = lambda _: 503
    sent(teacher, "c-1", at=time.time() - webhook.GIVEN_UP_S - 1)
    async with posting(teacher):
        await async_wait_until(lambda: states(teacher)[0] == "given up", description="it is given up")
    assert [one["code"] for one in said(teacher, "alarm")] == [509]
    assert len(said(teacher, "dead_letter")) == 1


@pytest.mark.parametrize(
    ("url", "allowed"), [("http://127.0.0.1:9/", ""), ("http://93.184.215.14/", ""), ("https://10.0.0.1/", "public")]
)
def test_only_public_https_and_listed_hosts_are_posted_to(url: str, allowed: str) -> None:
    with pytest.raises(Refuse):
        webhook._addresses(url, allowed)
    assert webhook._addresses("http://127.0.0.1:9/", "127.0.0.1") == ["127.0.0.1"]


def test_a_secret_that_is_none_is_misuse() -> None:
    with pytest.raises(Misuse, match="whsec_"):
        webhook.signed("whsec_???", "msg_1", 1.0, "{}")


async def test_a_late_410_of_the_receiver_before_does_not_switch_the_new_one_off(
    teacher: TeacherHost, receiver: Any
) -> None:
    its, asked = teacher.settings, asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: object) -> int:
        loop.call_soon_threadsafe(asked.set)
        time.sleep(1.0)
        return 410

    receiver.refuses = slow
    sent(teacher, "c-1")
    async with posting(teacher):
        await asked.wait()
        receiver.refuses = lambda _: 200
        teacher.settings = its.model_copy(update={"event_webhook_url": f"{receiver.url}/new"})
        await asyncio.sleep(1.5)
        assert not teacher.webhook_off
        sent(teacher, "c-2")
        await async_wait_until(lambda: states(teacher)[:1] == ["told"], description="the new receiver takes it")
