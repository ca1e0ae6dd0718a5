"""A message whose runs fail is tried in ever smaller company; given up is one that failed alone, and it is answered."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import stamina
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Failed
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError

from flows import failures as flows_failures
from flows.host import Host
from flows.resident.consumer import batches
from lectern.db import inbox
from lectern.db.engine import reading, transaction
from lectern.model.facts import InboxMessage
from lectern.model.tables.teacher import journal, orders
from lectern.settings import TeacherSettings
from lectern.wire.messages import Message, Prepare
from tests import rows, strategies
from tests.faults.turns import Quiet

LATER = 1e10
"""So late that whatever waits is due."""


@pytest.fixture
def host(host: Host[Any]) -> Host[Any]:
    host.bus = cast("Any", Quiet())
    return host


def claim(host: Host[Any]) -> list[InboxMessage]:
    commands = ["order", "prepare", "cancel"]
    return rows.commit(host.engine, inbox.claim, commands, limit=5000, lease_s=60, now=LATER)


def ended(host: Host[Any], some: list[InboxMessage], how: Any, **also: object) -> None:
    """A run of these messages, which somebody began in the UI, has ended so."""
    task = SimpleNamespace(cancelled=lambda: False, exception=lambda: None, result=lambda: how)
    if isinstance(how, Exception):
        task = SimpleNamespace(cancelled=lambda: False, exception=lambda: how, result=lambda: None)
    run = FlowRun(flow_id=uuid4(), parameters={"inbox_ids": inbox.format_id_ranges([one.id for one in some]), **also})
    asyncio.run(flows_failures.after_run(host, run, cast("Any", task)))


def gives_up(host: Host[Any], body: str) -> None:
    """A message comes whose runs fail again and again."""
    rows.comes(host, body)
    for _ in range(host.settings.inbox_max_attempts):
        ended(host, claim(host), Failed(message="boo"))
    assert claim(host) == []


def message(host: Host[Any], class_id: str) -> Message:
    """A booking where *host* is a teacher, else what the teacher makes of it."""
    booking = strategies.booking(class_id)
    if is_teacher(host):
        return booking
    return Prepare.model_validate({**json.loads(booking.to_json()), "cmd": "prepare", "placement": 1})


def is_teacher(host: Host[Any]) -> bool:
    return isinstance(host.settings, TeacherSettings)


@pytest.mark.parametrize("number", [1, 500])
def test_of_a_batch_that_crashes_only_the_guilty_message_is_given_up(host: Host[Any], number: int) -> None:
    """Every other one gets into a run without it, and is handled."""
    rows.comes(host, *(message(host, f"c-{one}") for one in range(number)))
    guilty = number // 2 + 1
    handled: set[int] = set()
    runs = 0
    while kept := claim(host):
        for portion in batches(kept):
            runs += 1
            if guilty in {one.id for one in portion}:
                ended(host, portion, Failed(message="boo", data=RecursionError()))
                continue
            rows.commit(host.engine, inbox.done, [one.id for one in portion], LATER, {})
            handled |= {one.id for one in portion}
    assert handled == set(range(1, number + 1)) - {guilty}
    assert runs <= 30
    said = [one for one in rows.said(host) if one["cmd"] in {"order_result", "prepared"}]
    assert [(one["class_id"], one["result"], one["code"]) for one in said] == [(f"c-{guilty - 1}", "fail", 506)]
    alarms = [one for one in rows.said(host) if one["cmd"] == "alarm"]
    assert [(one["code"], one["class_id"]) for one in alarms] == [(506, f"c-{guilty - 1}")]
    assert [one["cmd"] for one in rows.said(host)].count("dead_letter") == 1
    with reading(host.engine) as connection:
        noted = connection.execute(select(journal.events.c.what, journal.events.c.class_id)).all()
    assert [tuple(one) for one in noted] == [("given up", f"c-{guilty - 1}")]


def test_what_cannot_be_answered_is_a_dead_letter_with_an_alarm(host: Host[Any]) -> None:
    gives_up(host, r'{"class_id": "\ud800"}')
    assert [(one["cmd"], one.get("code")) for one in rows.said(host)] == [("dead_letter", None), ("alarm", 504)]


def test_an_odd_message_or_one_about_a_class_that_nobody_can_read_is_given_up(
    host: Host[Any],
) -> None:
    """It was tried for ever, and after two minutes its host was not ready any more. Another streamer gets the class.

    Of an odd placement a streamer could make no report.
    """
    with transaction(host.engine) as connection:
        if is_teacher(host):
            row = {"class_id": "c-1", "state": "lost in thought", "payload": "{}", "received_at": 1, "updated_at": 1}
            connection.execute(insert(orders).values(**row, start_time=1, end_time=LATER))
        else:
            rows.bare(connection, "c-1", 1, end_time=LATER)
    gives_up(host, message(host, "c-1").to_json())
    said = [(one["cmd"], one.get("code")) for one in rows.said(host)]
    assert said == [("dead_letter", None), *([] if is_teacher(host) else [("prepared", 506)]), ("alarm", 506)]
    gives_up(host, json.dumps({**json.loads(message(host, "c-2").to_json()), "placement": -1}))
    assert ("c-2", "fail", 506) in {
        (one.get("class_id"), one.get("result"), one.get("code")) for one in rows.said(host)
    }


@pytest.mark.parametrize(
    "how",
    [Completed(message="put back"), OperationalError("s", {}, Exception("locked")), ConnectionError("redis"), None],
    ids=["put back", "the database was away", "Redis was away", "its process died"],
)
def test_a_try_is_counted_only_where_the_handler_failed(host: Host[Any], how: object) -> None:
    """A crash loop of any cause gave up innocent bookings."""
    rows.comes(host, message(host, "c-1"))
    for _ in range(3 * host.settings.inbox_max_attempts):
        (kept,) = claim(host)
        if how is not None:
            ended(host, [kept], how)
        rows.commit(host.engine, inbox.free_all)
    assert [one.tries for one in claim(host)] == [0]
    assert rows.said(host) == []


@pytest.mark.parametrize("how", [Failed(message="boo"), ConnectionError("redis")])
def test_a_dry_run_that_fails_neither_counts_a_try_nor_puts_its_messages_back(host: Host[Any], how: object) -> None:
    rows.comes(host, message(host, "c-1"))
    kept = claim(host)
    ended(host, kept, how, dry_run=True)
    assert claim(host) == [], "they are still claimed"
    with reading(host.engine) as connection:
        assert [one.tries for one in inbox.read(connection, [1])] == [0]


def test_messages_go_back_as_soon_as_the_database_is_there(host: Host[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It went away in the middle of a batch, and for longer than a moment: nobody waits for the end of a lease."""
    rows.comes(host, message(host, "c-1"))
    (kept,) = claim(host)
    assert claim(host) == []
    away, commit = OperationalError("s", {}, Exception("server closed the connection")), host.write_tx
    failures = iter([away, away])

    async def gives_way(*given: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return await commit(*given)

    monkeypatch.setattr(host, "write_tx", gives_way)
    with stamina.set_testing(True, attempts=3):
        asyncio.run(flows_failures.after_failure(host, [kept.id], away, passes=True))
    assert [one.id for one in claim(host)] == [kept.id]
