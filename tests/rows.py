"""Rows as flows write and read them, for tests that begin in the middle of a story."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, Table, insert, select, update

from flows.handling import Decide, DecideAll, change
from flows.host import Host, StreamerHost, TeacherHost
from flows.streamer.prepare import ProbeResult, decided_classes
from lectern.db import airings, cache, inbox, transcodings
from lectern.db.engine import reading, transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.model.facts import Airing, Attempt, InboxMessage, Order, RenditionKey
from lectern.model.plan import NEW, Changes, new_row
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.model.tables.teacher import orders, streamers, videos
from lectern.settings import StreamerSettings
from lectern.states import AiringState, Backend, BookingState, FileState, RenditionState
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Booking, Message, Prepare
from tests.strategies import NOW

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
T = TypeVar("T")
_S1 = StreamerSettings.load(_env_file=None, streamer_name="s1")


def put(engine: Engine, rows: Mapping[Table, Iterable[Mapping[str, object]]]) -> Engine:
    """Add *rows* as they are, to each table its own; returns the engine."""
    with transaction(engine) as connection:
        for table, its in rows.items():
            for one in its:
                connection.execute(insert(table).values(**one))
    return engine


def order(class_id: str, state: str, start_s: float, end_s: float, **more: object) -> dict[str, object]:
    """The row of a class that came a thousand seconds before NOW; its times are seconds from then."""
    times = {"start_time": NOW + start_s, "end_time": NOW + end_s, "received_at": NOW - 1000, "updated_at": NOW - 1000}
    return {"class_id": class_id, "state": state, "payload": "{}", "institution_id": "i-1", **times, **more}


def commit(engine: Engine, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *work* returns, which is a transaction of its own."""
    with transaction(engine) as connection:
        return work(connection, *args, **kwargs)


def look(engine: Engine, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *work* reads, of one state of the database."""
    with reading(engine) as connection:
        return work(connection, *args, **kwargs)


def said(host: Host[Any], *commands: str) -> list[dict[str, Any]]:
    """All messages that *host* has put into its outbox, in their order; only those of *commands*, if some are named."""
    its = journal.outbox.c
    bodies = look(host.engine, lambda connection: connection.execute(select(its.body).order_by(its.id)).scalars().all())
    return [one for one in map(json.loads, bodies) if not commands or one["cmd"] in commands]


def news(host: Host[Any]) -> list[dict[str, Any]]:
    """What *host* has put into its outbox since this was asked last, without the events of classes."""
    its = journal.outbox.c
    with transaction(host.engine) as connection:
        bodies = connection.execute(select(its.body).where(its.sent_at.is_(None)).order_by(its.id)).scalars().all()
        connection.execute(update(journal.outbox).values(sent_at=1.0))
    return [one for one in map(json.loads, bodies) if one["cmd"] != "class_event"]


async def unsent(*_: object) -> bool:
    """In place of what sends the outbox, or begins what a commit has decided: all stays as it is."""
    return True


def state_of(host: StreamerHost, class_id: str) -> str:
    """The state of a class at its streamer."""
    wanted = select(classes.c.state).where(classes.c.class_id == class_id)
    return str(look(host.engine, lambda connection: connection.execute(wanted).scalar_one()))


def prepare(class_id: str, record: int, start: float, length_s: float = 600.0, **fields: object) -> Prepare:
    """What a streamer is told of a class whose recording is that of *record*, changed by *fields*."""
    times = {"start_time": start, "end_time": start + length_s, "push_url": "rtmp://push.example/live/x"}
    its = {"class_id": class_id, "record_id": record, "video_url": f"http://origin.example/{record}.flv"}
    return Prepare.model_validate({**its, **times, **fields})


def add(connection: Connection, wanted: Prepare, state: AiringState, site: str, now: float) -> None:
    changes = StreamerChanges(_S1, now)
    changes.admit(wanted, state)
    for row in changes.rows.values():
        values = dict(row.after or {})
        connection.execute(insert(row.table).values(values | ({"site": site} if "site" in values else {})))


def bare(connection: Connection, /, class_id: str, start: float, state: str = "ready", **task: object) -> None:
    """A class in as few values as its streamer's rows can have."""
    its = {"start_time": start, "end_time": start + 600, "push_url": "rtmp://push.example/live/x", **task}
    connection.execute(insert(tasks).values(class_id=class_id, **its))
    connection.execute(insert(classes).values(class_id=class_id, video_id="6666", state=state))


def placed(host: TeacherHost, booking: Booking, streamer: str, url: str = "", *, ready: bool = False) -> None:
    """A class that was given to *streamer*, which airs the recording of *url*; it says so if it is *ready*."""
    changes = Changes(host.settings, time.time())
    changes.place(changes.book(booking), streamer, url or "http://origin.example/6666.flv")
    if ready:
        changes.move(changes.orders[booking.class_id], BookingState.READY, promised_at=changes.now)
    changes.sends.clear()
    commit(host.engine, write, changes)


def claimed(host: Host[Any], *commands: str, now: float | None = None) -> list[InboxMessage]:
    """What of *commands* lies in the inbox, and is due."""
    now = time.time() if now is None else now
    return commit(host.engine, inbox.claim, commands, limit=10, lease_s=60, now=now)


def came(host: Host[Any], *messages: Message) -> list[InboxMessage]:
    """*messages* come into the inbox, and are claimed."""
    arrived = [ReceivedMessage("test", json.loads(body)["cmd"], body) for body in map(Message.to_json, messages)]
    commit(host.engine, inbox.keep, arrived, time.time())
    return claimed(host, *{one.command for one in arrived})


def comes(host: Host[Any], *messages: Message | str) -> str:
    """*messages* come into the inbox; returns their ids."""
    bodies = [one if isinstance(one, str) else one.to_json() for one in messages]
    arrived = [ReceivedMessage("test", json.loads(body).get("cmd", "order"), body) for body in bodies]
    kept = commit(host.engine, inbox.keep_claimed, arrived, time.time(), 0.0)
    return inbox.format_id_ranges([one.id for one in kept])


def granted(
    connection: Connection, name: str, session: str, lease_s: float, now: float, lost_at: float | None = None
) -> None:
    """A streamer that was given its lease, and that is lost since then."""
    held = {"session": session, "lease_s": lease_s, "granted_at": now, "lost_at": lost_at}
    connection.execute(insert(streamers).values(name=name, **held))


def booked(connection: Connection, booking: Booking, order: Order, now: float) -> None:
    """A booking about which much was decided."""
    connection.execute(insert(orders).values(dict(zip(NEW, new_row(booking, order, now), strict=True))))


def begin(
    connection: Connection,
    *keys: RenditionKey,
    by: Backend = Backend.OSS,
    attempt: int = 1,
    in_s: float = 60.0,
    requested: bool = False,
) -> None:
    """Renditions that are to be made since a minute, until *in_s* from now; the OSS was asked for *requested* ones."""
    now = time.time()
    url = "http://origin.example/6666.flv"
    attempts = [Attempt(*key, attempt, 1, now, by, now + in_s, url) for key in keys]
    transcodings.begin(connection, attempts, now - 60, requested_at=now - 60 if requested else None)


def ended_in(connection: Connection, /, key: RenditionKey, state: RenditionState, now: float, **values: object) -> None:
    """A rendition whose attempt ended in *state*."""
    mine = (videos.c.record_id == key[0]) & (videos.c.resolution == key[1])
    ended = {"status": state, "owner": None, "lease_until": None, "updated_at": now, **values}
    connection.execute(update(videos).where(mine).values(**ended))


def reserve(connection: Connection, root: Path, stem: str, size_bytes: int, url: str, now: float) -> None:
    """A download that was asked for."""
    changes = StreamerChanges(_S1.model_copy(update={"video_root": root}), now)
    changes.reserve(stem, size_bytes, url, None)
    write(connection, changes)


def cite(connection: Connection, stem: str, number: int, now: float) -> None:
    """Citations that a rendition gained, or lost."""
    changes = StreamerChanges(_S1, now)
    changes.cited[stem] += number
    write(connection, changes)


def did(
    connection: Connection, host: StreamerHost, decide: DecideAll[StreamerChanges, M], *messages: M
) -> StreamerChanges:
    """Decide *messages*, and write what is decided."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        decide(connection, changes, messages)

    return change(connection, host, go)


def prepared(host: StreamerHost, *some: Prepare, size_bytes: int = 10) -> StreamerChanges:
    """Classes that come to their streamer; their recordings have so many bytes at the origin."""
    looked: dict[str, ProbeResult] = {one.stem: RemoteFile(one.video_url, size_bytes, None, None) for one in some}
    return commit(host.engine, did, host, partial(decided_classes, looked, {}), *some)


def went(connection: Connection, host: StreamerHost, decide: Decide[StreamerChanges]) -> StreamerChanges:
    """Write what *decide* decides of no message."""
    return change(connection, host, decide)


def moved(connection: Connection, host: StreamerHost, one: Airing, state: AiringState) -> None:
    """A class that came to another state."""

    def go(_connection: Connection, changes: StreamerChanges) -> None:
        changes.move(one, state)

    went(connection, host, go)


def cached(
    host: StreamerHost,
    one: Prepare,
    site: Path,
    file: Mapping[str, object] = {},
    state: AiringState = AiringState.READY,
) -> None:
    """A class whose recording is at *site*, and the row of its rendition with the values of *file*."""
    now, root, stem = time.time(), host.settings.video_root, one.stem
    its = {"state": FileState.READY, "duration_s": 20.0} | dict(file)
    with transaction(host.engine) as connection:
        cache.make_sums(connection, root)
        if stem not in cache.by_stem(connection, [stem]):
            reserve(connection, root, stem, site.stat().st_size, one.video_url, now)
            connection.execute(update(files).where(files.c.id == stem).values(**its))
        add(connection, one, state, str(site), now)
        cache.recount(connection, root, airings.citations(connection))
