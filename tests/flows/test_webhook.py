"""The webhook: what the platform is told is posted to it, signed, in the order of each class, until it is taken."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import DEFAULT, AsyncMock, Mock

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import OperationalError

from flows import outbox_publisher
from flows.host import TeacherHost
from flows.outbox_publisher import _for_webhook
from flows.teacher import webhook
from flows.teacher.webhook import Webhook
from lectern.db import incidents, outbox
from lectern.db.outbox import Unsent, WebhookDue
from lectern.errors import Misuse, Refuse, TryAgain
from lectern.model.tables.teacher import journal, orders
from lectern.redis.client import Sent
from lectern.storage import origin
from lectern.wire import outgoing
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests.answering import Server
from tests.faults import hosts
from tests.hook import SECRET, receiving
from tests.rows import commit, look, placed, said, unsent
from tests.waiting import async_wait_until, cancelled, wait_until


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
    monkeypatch.setattr(webhook, "publish_outbox", unsent)
    return teacher


def sent(host: TeacherHost, *class_ids: str, at: float | None = None) -> list[int]:
    """Answers that were sent on Redis, one for each of *class_ids*, numbered by their codes."""
    now = time.time() if at is None else at
    for number, class_id in enumerate(class_ids):
        answer = outgoing.answer(class_id, number, "")
        one = Outgoing(host.settings.order_result_channel, OutgoingKind.CHANNEL, answer, class_id)
        commit(host.engine, outbox.put, [one], now)
    rows = look(host.engine, lambda c: c.execute(select(journal.outbox)).all())
    some = [Unsent(row.id, row.target, OutgoingKind.CHANNEL, row.body) for row in rows]
    commit(host.engine, _for_webhook, host, some)
    return [row.id for row in rows]


def states(host: TeacherHost) -> list[str | None]:
    its = journal.outbox.c
    return list(look(host.engine, lambda c: c.execute(select(its.webhook).order_by(its.id)).scalars()))


def numbers(receiver: Any) -> list[int]:
    """The messages that were taken, in their order."""
    return [int(id_.split("_")[1]) for id_, _ in receiver.taken]


@asynccontextmanager
async def posting(host: TeacherHost) -> AsyncIterator[None]:
    task = asyncio.create_task(Webhook(host).run())
    try:
        yield
    finally:
        await cancelled(task)


async def test_each_message_is_posted_once_signed_and_in_class_order(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one of a class as soon as the one before is taken: who took an answer has heard it, before Redis, too.

    Nobody waits for the next look.
    """
    monkeypatch.setattr(webhook, "LOOK_S", 60.0)
    placed(teacher, hosts.booking("c-1"), hosts.ALIVE[0])
    ids = sent(teacher, *(f"c-{number % 3}" for number in range(12)))
    async with posting(teacher):
        await async_wait_until(lambda: set(states(teacher)) == {"told"}, description="all are taken")
    assert sorted(numbers(receiver)) == sorted(ids)
    for class_id in ("c-0", "c-1", "c-2"):
        codes = [message["code"] for _, message in receiver.taken if message["class_id"] == class_id]
        assert codes == sorted(codes)
    assert look(teacher.engine, lambda c: c.execute(select(orders.c.answered_at)).scalar_one()) is not None


async def test_the_next_of_a_class_is_posted_at_once_though_the_one_before_ended_while_the_rows_were_read(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those rows are of before its end: nothing of them can begin, and nothing is at work any more."""
    monkeypatch.setattr(webhook, "LOOK_S", 60.0)
    hook, read = Webhook(teacher), outbox.webhook_due

    def read_late(*given: Any) -> list[WebhookDue]:
        rows = read(*given)
        wait_until(lambda: not hook._at_work, description="what is at work has ended")
        return rows

    monkeypatch.setattr(outbox, "webhook_due", read_late)
    sent(teacher, "c-1", "c-1", "c-1")
    task = asyncio.create_task(hook.run())
    await async_wait_until(lambda: len(receiver.taken) == 3, timeout_s=20.0, description="all are taken")
    await cancelled(task)


async def test_so_many_are_posted_at_once_and_one_that_hangs_holds_up_no_other_class(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is busy already is read with them: it is the oldest."""
    monkeypatch.setattr(webhook, "LOOK_S", 60.0)
    monkeypatch.setattr(webhook, "READ_AT_ONCE", 1)
    hangs, go_on, begun = threading.Event(), threading.Event(), list[str]()

    def answer(message: Any) -> int:
        begun.append(message["class_id"])
        (hangs if message["class_id"] == "c-0" else go_on).wait(60)
        return 200

    receiver.refuses = answer
    ids = sent(teacher, *(f"c-{number}" for number in range(2 * webhook.AT_ONCE)))
    try:
        async with posting(teacher):
            await async_wait_until(lambda: len(begun) == webhook.AT_ONCE, description="as many are posted as may be")
            await asyncio.sleep(0.2)  # no more come
            assert len(begun) == webhook.AT_ONCE
            go_on.set()
            await async_wait_until(lambda: len(receiver.taken) == len(ids) - 1, description="all others are taken")
            hangs.set()
            await async_wait_until(lambda: set(states(teacher)) == {"told"}, description="all are taken")
    finally:
        hangs.set()
        go_on.set()
    assert len(begun) == len(ids), "each once"


async def test_an_answer_that_became_a_refusal_while_it_waited_for_its_turn_is_posted_so(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away until the class was over: there it is refused, and the platform would have two answers.

    What was given up meanwhile, because the receiver is gone, is not posted.
    """
    monkeypatch.setattr(webhook, "AT_ONCE", 1)
    begun, go_on = threading.Event(), threading.Event()

    def answer(_: Any) -> int:
        begun.set()
        go_on.wait(60)
        return 200

    receiver.refuses = answer
    first, late, left = sent(teacher, "c-1", "c-2", "c-3")
    async with posting(teacher):
        await asyncio.to_thread(begun.wait, 60)
        refusal = outgoing.answer("c-2", 410, "").to_json()
        commit(teacher.engine, outbox.rewrite, [Unsent(late, "", OutgoingKind.CHANNEL, refusal)])
        commit(teacher.engine, outbox.note_webhook, left, outbox.Telling.GIVEN_UP)
        go_on.set()
        await async_wait_until(lambda: "due" not in states(teacher), description="all are posted")
    codes = [message["code"] for _, message in receiver.taken]
    assert (numbers(receiver), codes) == ([first, late], [0, 410])


async def test_what_is_refused_is_posted_again_and_holds_up_its_own(
    teacher: TeacherHost, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No redirect is followed, and one that hangs or breaks off counts as refused.

    An answer without end is one; nobody reads it, because it would fill the memory.
    """
    answers = iter((500, 302, 404, 299))
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
    assert [one.args[1] for one in caplog.records if isinstance(one.args, tuple)] == [1, 2, 3], "each is said"


async def test_a_receiver_is_posted_to_at_the_first_of_its_addresses_that_takes_the_connection(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `localhost` has one of IPv6 at which nobody listens: all would be posted there in vain for a day."""
    found = [ip_address(one) for one in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(origin, "addresses", lambda *_: found)
    its = {"event_webhook_url": f"http://hook.example:{receiver.server_port}/", "allowed_origins": "hook.example"}
    teacher.settings = teacher.settings.model_copy(update=its)
    sent(teacher, "c-1")
    async with posting(teacher):
        await async_wait_until(lambda: states(teacher) == ["told"], description="it is taken")


@pytest.mark.parametrize(("tries", "pause_s"), [(0, 1), (3, 8), (9, 512), (10, 600), (100_000, 600)])
def test_the_pause_until_it_is_posted_again_doubles_up_to_ten_minutes(
    teacher: TeacherHost, tries: int, pause_s: float
) -> None:
    """Another receiver is posted to at once, and as if it were the first try.

    What could not be tried for a day, because the teacher was down, is not given up at its first failure.
    """
    (id_,) = sent(teacher, "c-1")
    now, url = time.time(), str(teacher.settings.event_webhook_url)
    message = WebhookDue(id_, "c-1", "{}", tries, now)

    def noted(url: str, at: float) -> tuple[float, int]:
        commit(teacher.engine, Webhook(teacher)._note, message, "it answered 503", at, url)
        row = look(teacher.engine, lambda c: c.execute(select(journal.outbox).where(journal.outbox.c.id == id_))).one()
        return row.webhook_at, row.webhook_tries

    assert noted(url, now) == (now + pause_s, tries + 1)
    assert noted(f"{url}/before", now) == (0, tries)
    late = now + webhook.GIVEN_UP_S + 1
    assert noted(url, late) == (0 if tries + 1 >= webhook.TRIES else late + pause_s, tries + 1)


async def test_what_lies_behind_much_that_waits_for_redis_is_due_in_time(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long Redis is away: at each try to send, as many more are passed on as are read at once."""
    monkeypatch.setattr(outbox_publisher, "SEND_BATCH", 2)
    broke = Sent(broke=OSError("no route to host"))
    teacher.bus = cast("Any", SimpleNamespace(send=AsyncMock(return_value=broke)))
    some = [Outgoing(teacher.settings.order_result_channel, OutgoingKind.CHANNEL, outgoing.answer("c-1", 0, ""))] * 5
    commit(teacher.engine, outbox.put, some, time.time())
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


async def test_gone_switches_the_webhook_off_with_an_alarm_until_it_has_another_url(
    teacher: TeacherHost, receiver: Any
) -> None:
    """While it is off, that is not said to be resolved; a restart does not switch it on again."""
    await gone(teacher, receiver, "c-1", "c-2")
    assert states(teacher)[:2] in (["gone", "given up"], ["given up", "gone"])
    assert [one["code"] for one in said(teacher, "alarm")] == [509]
    raised = commit(teacher.engine, outbox_publisher._unsent, teacher).messages
    commit(teacher.engine, incidents.told, [one.id for one in raised], now := time.time())
    commit(teacher.engine, outbox.sent, [one.id for one in raised], now)
    later = now + teacher.settings.alarm_quiet_s + 60
    assert commit(teacher.engine, incidents.follow_up, "t", outbox_publisher.patience(teacher), later) == []
    assert sent(teacher, "c-3")
    assert states(teacher)[-1] is None
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


async def test_to_a_receiver_that_is_gone_for_one_teacher_the_next_one_posts_nothing(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes over when the lease of the first has run out; there is one alarm, and no teacher posts half of it."""
    other, has_it, asked = replace(teacher), [teacher], list[TeacherHost]()

    async def is_ours(host: TeacherHost, *_: object) -> bool:
        asked.append(host)
        return host is has_it[0]

    monkeypatch.setattr(webhook, "is_ours", is_ours)
    async with posting(other):
        await async_wait_until(lambda: any(one is other for one in asked), description="it waits for its turn")
        await gone(teacher, receiver, "c-1")
        sent(other, "c-2")
        has_it[0] = other
        await async_wait_until(lambda: other.webhook_off, description="it is off there, too")
    assert len(receiver.refused) == 1
    assert "due" not in states(teacher)
    assert [one["code"] for one in said(teacher, "alarm")] == [509]


async def test_a_message_not_taken_for_a_day_is_a_dead_letter(teacher: TeacherHost, receiver: Any) -> None:
    receiver.refuses = lambda _: 503
    sent(teacher, "c-1", at=time.time() - webhook.GIVEN_UP_S - 1)
    commit(teacher.engine, lambda c: c.execute(update(journal.outbox).values(webhook_tries=webhook.TRIES)))
    async with posting(teacher):
        await async_wait_until(lambda: states(teacher)[0] == "given up", description="it is given up")
    assert [one["code"] for one in said(teacher, "alarm")] == [509]
    assert len(said(teacher, "dead_letter")) == 1


@pytest.mark.parametrize(
    ("url", "allowed"), [("http://127.0.0.1:9/", ""), ("http://93.184.215.14/", ""), ("https://10.0.0.1/", "public")]
)
def test_only_public_https_and_listed_hosts_are_posted_to(
    monkeypatch: pytest.MonkeyPatch, url: str, allowed: str
) -> None:
    """A host of which one address is public is a public one; one without an address may have one later."""
    with pytest.raises(Refuse):
        webhook._addresses(url, allowed)
    assert webhook._addresses("http://127.0.0.1:9/", "127.0.0.1") == ["127.0.0.1"]
    for found, error in ((["10.0.0.1", "93.184.215.14"], Refuse), (list[str](), TryAgain)):
        monkeypatch.setattr(origin, "checked", lambda *_, found=found: found)
        with pytest.raises(error):
            webhook._addresses("http://some.example/", "")


@pytest.mark.parametrize("secret", ["whsec_???", "whsec_clé"])
def test_a_secret_that_is_none_is_misuse_if_there_is_something_to_sign(teacher: TeacherHost, secret: str) -> None:
    webhook.check(teacher.settings)
    odd = teacher.settings.model_copy(update={"event_webhook_secret": SecretStr(secret)})
    with pytest.raises(Misuse, match="whsec_"):
        webhook.check(odd)
    webhook.check(odd.model_copy(update={"event_webhook_url": None}))


async def test_a_late_410_of_the_receiver_before_does_not_switch_the_new_one_off(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    its, hook = teacher.settings, Webhook(teacher)
    new = f"{its.event_webhook_url}/new"

    async def late(*_: object) -> str:
        teacher.settings, hook._receiver = its.model_copy(update={"event_webhook_url": new}), webhook._digest(new)
        return webhook.GONE

    monkeypatch.setattr(hook, "_post", late)
    (id_,) = sent(teacher, "c-1")
    await hook._deliver(cast("Any", None), WebhookDue(id_, "c-1", "{}", 0, time.time()))
    assert (teacher.webhook_off, states(teacher)) == (False, ["due"])


async def test_while_the_database_takes_nothing_no_message_is_posted_again(
    teacher: TeacherHost, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken is noted when that is possible again: else the receiver would be flooded, without a pause."""
    is_full = OperationalError("", None, sqlite3.OperationalError("database or disk is full"))
    note = Mock(wraps=outbox.note_webhook, side_effect=chain(repeat(is_full, 3), repeat(DEFAULT)))
    monkeypatch.setattr(outbox, "note_webhook", note)
    sent(teacher, "c-1")
    async with posting(teacher):
        await async_wait_until(lambda: states(teacher) == ["told"], description="it is noted")
    assert len(receiver.taken) == 1


async def test_a_message_of_after_a_restore_has_another_id_than_that_which_had_its_number(
    teacher: TeacherHost, receiver: Any
) -> None:
    """By the id a receiver knows what comes twice: it would drop all answers until the numbers are new again."""
    now = time.time()
    for at in (now - 3600, now):
        assert sent(teacher, "c-1", at=at) == [1]
        async with posting(teacher):
            await async_wait_until(lambda: states(teacher) == ["told"], description="it is posted")
        commit(teacher.engine, Connection.execute, delete(journal.outbox))
    assert numbers(receiver) == [1, 1]
    assert len({id_ for id_, _ in receiver.taken}) == 2


def test_what_was_refused_before_the_clock_was_set_back_is_due(teacher: TeacherHost) -> None:
    """Otherwise it, and all of its class behind it, would wait until the clock is there again."""
    (id_,) = sent(teacher, "c-1")
    now = time.time()
    for pause_s, is_due in ((webhook.MOST_S, False), (86_400.0, True)):
        commit(teacher.engine, outbox.note_webhook, id_, outbox.Telling.DUE, 1, now + pause_s)
        assert bool(look(teacher.engine, outbox.webhook_due, now, 10)) == is_due
