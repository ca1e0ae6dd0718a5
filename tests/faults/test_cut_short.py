"""A run that is cut short: only a cancel of a person or of the teacher ends a class, or gives up a rendition."""

import asyncio
import json
from contextlib import suppress
from typing import Any, cast

import pytest
from sqlalchemy import Connection, insert, select, update

from flows.host import Host
from flows.streamer import broadcast
from flows.teacher.ecs.job import TranscodeJob
from lectern.effects.redis.sending import Sent
from lectern.effects.rows import airings, transcodings
from lectern.effects.rows.tables.engine import reading, transaction
from lectern.facts import Airing
from lectern.messages import Prepare
from lectern.model.tables import teacher as at_teacher
from lectern.model.tables.streamer import classes
from lectern.model.tables.teacher import RenditionRow
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState, Backend, RenditionState, Resolution
from tests import rows, strategies
from tests.faults import hosts

RUN = "00000000-0000-0000-0000-000000000001"


class Runs:
    """Runs of a process that is not draining; it knows whether somebody cancelled."""

    def __init__(self, *, cancelled: bool) -> None:
        self._cancelled = cancelled

    def draining(self) -> bool:
        return False

    def was_cancelled(self, run_id: str) -> bool:
        return self._cancelled and run_id == RUN


class Silence:
    """A Redis that takes everything."""

    async def send(self, messages: list[Any]) -> Sent:
        return Sent(len(messages))


async def cut(work: Any, begun: asyncio.Event) -> None:
    """Begin *work*, and cancel it in its middle, as the end of the loop does with every task."""
    task = asyncio.create_task(work)
    await begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def put_on_air(connection: Connection) -> Airing:
    fields = json.loads(strategies.booking("c-1").to_json())
    prepare = Prepare(**{**fields, "cmd": "prepare", "placement": 1})
    rows.add(connection, prepare, AiringState.READY, "/videos/6666/6666.flv", hosts.now())
    connection.execute(update(classes).values(state=AiringState.ON_AIR))
    return airings.by_id(connection, ["c-1"])["c-1"]


@pytest.mark.parametrize(("cancelled", "state"), [(False, AiringState.ON_AIR), (True, AiringState.CANCELLED)])
def test_a_class_is_cancelled_by_nobody_but_a_person(
    streamer: Host[StreamerSettings], monkeypatch: pytest.MonkeyPatch, *, cancelled: bool, state: AiringState
) -> None:
    """A process that dies of an error cancels all its tasks, too: its classes are the next process's."""
    streamer.runs, streamer.bus = cast("Any", Runs(cancelled=cancelled)), cast("Any", Silence())
    with transaction(streamer.engine) as connection:
        one = put_on_air(connection)

    async def main() -> None:
        begun = asyncio.Event()

        async def forever(*_: object) -> Airing:
            streamer.playout.watches["c-1"].run_id = RUN
            begun.set()
            await asyncio.sleep(60)
            return one

        monkeypatch.setattr(broadcast, "_watched", forever)
        await cut(broadcast.watch(streamer, one), begun)

    asyncio.run(main())
    with reading(streamer.engine) as connection:
        assert airings.by_id(connection, ["c-1"])["c-1"].state is state


@pytest.mark.parametrize(("cancelled", "results"), [(False, 0), (True, 1)])
def test_a_rendition_is_given_up_by_nobody_but_a_person(
    teacher: Host[TeacherSettings], monkeypatch: pytest.MonkeyPatch, *, cancelled: bool, results: int
) -> None:
    """Else its classes would be refused with 208, while the job goes on at the ECS host."""
    teacher.runs, teacher.bus = cast("Any", Runs(cancelled=cancelled)), cast("Any", Silence())
    begun_at = hosts.now()
    row = {
        "record_id": 6666,
        "resolution": Resolution.P720,
        "status": RenditionState.TRANSCODING,
        "backend": Backend.ECS,
        "attempt": 1,
    }
    with transaction(teacher.engine) as connection:
        connection.execute(insert(at_teacher.videos).values(**row))
        due = transcodings.take(connection, [(6666, Resolution.P720)], RUN, 60, begun_at)
    assert [type(one) for one in due] == [RenditionRow]

    async def main() -> None:
        begun = asyncio.Event()

        async def forever(_job: TranscodeJob) -> None:
            begun.set()
            await asyncio.sleep(60)

        monkeypatch.setattr(TranscodeJob, "_climb", forever)
        await cut(TranscodeJob(teacher, due, RUN).run(), begun)

    asyncio.run(main())
    with reading(teacher.engine) as connection:
        published = select(at_teacher.journal.outbox).where(at_teacher.journal.outbox.c.body.contains("in the UI"))
        assert len(connection.execute(published).all()) == results
