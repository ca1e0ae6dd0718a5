"""A teacher is killed at each moment from the claim of messages to the note that a run shows them: nothing is lost."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, select

from flows import artifacts
from flows.host import TeacherHost
from flows.outbox_publisher import publish_outbox
from flows.resident.consumer import Handler
from flows.resident.prefect.recorder import Recorder
from flows.resident.prefect.runs import ResidentRuns
from flows.teacher import bookings
from lectern.db import inbox
from lectern.db.outbox import Unsent
from lectern.model.tables.teacher import journal
from lectern.redis.client import Sent
from lectern.wire.messages import Cancel, Report
from tests import laid, rows
from tests.faults import hosts
from tests.faults.turns import Quiet, Stepped
from tests.fundamentals.test_recorder import DEPLOYMENTS
from tests.fundamentals.test_runs import Prefect
from tests.rows import commit

COMMANDS = {"booking": ("order", "cancel"), "report": ("prepared",)}


class Life:
    """A process with its moments, each before a transaction, and on either side of what Redis or Prefect is asked."""

    def __init__(self, engine: Engine, sent: list[dict[str, Any]], prefect: Prefect, ends_at: int = 0) -> None:
        self.left, self.has_died, self.sent, self.prefect = ends_at, False, sent, prefect
        plain, its = hosts.teacher(engine), cast("Any", Quiet())
        its.send = self._send
        self.host = _Host(plain.settings, engine, its, its)
        self.host.moment, self.host.membership_cache = self.moment, (float("inf"), (hosts.ALIVE[0],))
        self.runs = ResidentRuns(cast("Any", self), {})
        self.runs.created.know(DEPLOYMENTS)

    def moment(self) -> None:
        """Nothing that comes after the last one is done."""
        self.left -= 1
        self.has_died = self.has_died or self.left == 0
        if self.has_died:
            raise asyncio.CancelledError

    async def _send(self, messages: Sequence[Unsent]) -> Sent:
        self.moment()
        self.sent += [json.loads(one.body) for one in messages]
        self.moment()
        return Sent(len(messages))

    async def request(self, *asked: Any, **more: Any) -> Any:
        self.moment()
        found = await self.prefect.request(*asked, **more)
        self.moment()
        return found

    async def go(self) -> None:
        """Handle what waits, send what is said of it, and show it."""
        commit(self.host.engine, inbox.free_all)
        handler = Handler(self.host, {"booking": bookings.booking, "report": bookings.report})
        for flow, commands in COMMANDS.items():
            if kept := rows.claimed(self.host, *commands):
                await handler.handle(flow, kept)
        await publish_outbox(self.host)
        await Recorder(self.host, self.runs).tell()
        await self.host.note()


class _Host(Stepped):
    moment: Callable[[], None]

    async def turn(self) -> None:
        self.moment()


def came(host: TeacherHost) -> None:
    """Bookings of which one is placed, one too late, one waits and one is cancelled; and the streamer's report."""
    listed = {"720P": "http://origin.example/6666_720P.flv"}
    some = [hosts.booking("c-1", video_url_list=listed), hosts.booking("c-2", in_s=-900.0), hosts.booking("c-3")]
    rows.comes(host, *some, hosts.booking("c-4", video_url_list=listed), Cancel(class_id="c-4"))
    ready = Report(cmd="prepared", class_id="c-1", streamer=hosts.ALIVE[0], result="success", code=0, placement=1)
    rows.comes(host, ready)


def unsent(connection: Connection) -> Counter[str]:
    """The classes of answers that are not known to be sent: whoever comes next sends them, perhaps again."""
    its = journal.outbox.c
    asked = select(its.class_id).where(its.sent_at.is_(None), its.target == "order_result")
    return Counter(connection.execute(asked).scalars())


async def test_whenever_it_dies_all_is_answered_told_and_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer comes again only if nobody knew that it was sent, and says the same.

    No event is missing, and none comes with another content; each message is shown by one run.
    """
    monkeypatch.setattr(artifacts, "table", rows.unsent)
    for ends_at in count(1):
        engine, sent, prefect = laid.opened("teacher", tmp_path / f"{ends_at}.db"), list[dict[str, Any]](), Prefect()
        first = Life(engine, sent, prefect, ends_at)
        came(first.host)
        await asyncio.gather(asyncio.create_task(first.go()), return_exceptions=True)
        may_come_again = commit(engine, unsent)
        await asyncio.create_task(Life(engine, sent, prefect).go())
        answers = [(one["class_id"], one["code"]) for one in sent if one["cmd"] == "order_result"]
        often = Counter(class_id for class_id, _ in answers)
        assert sorted({*answers}) == [("c-1", 0), ("c-2", 410), ("c-4", 411)], f"killed at moment {ends_at}"
        assert not often - may_come_again - Counter(often.keys()), f"killed at moment {ends_at}"
        told = [(one["class_id"], one["seq"], json.dumps(one)) for one in sent if one["cmd"] == "class_event"]
        kept = commit(engine, lambda c: c.exec_driver_sql("select class_id, seq, body from class_event_list").all())
        assert {(class_id, seq, json.dumps(json.loads(body))) for class_id, seq, body in kept} == {*told}
        seqs = [(class_id, seq) for class_id, seq, _ in dict.fromkeys(told)]
        assert all(seq == 1 or (class_id, seq - 1) in seqs[:at] for at, (class_id, seq) in enumerate(seqs))
        assert prefect.ids() == [1, 2, 3, 4, 5, 6], f"killed at moment {ends_at}"
        engine.dispose()
        if not first.has_died:
            break
    assert ends_at > 15, "it has more moments than these"
