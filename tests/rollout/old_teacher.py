"""What the tests of the adoption of an old teacher's waiting lists share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from lectern.db import bookings, inbox, transcodings
from lectern.db.engine import transaction
from lectern.model.facts import Attempt, Order
from lectern.model.tables.teacher import RenditionRow, journal
from lectern.rollout.takeover.teacher import OldKeyNames, OldLists, TeacherAdoption
from lectern.states import Backend, RenditionState, Resolution
from lectern.wire.messages import Booking
from lectern.wire.parser import parse
from tests import laid
from tests.rows import commit, ended_in
from tests.strategies import NOW

P720 = Resolution.P720
WAITING_KEY, ORDER_KEY = "{record_id}_{resolution}", "class:{class_id}"


@pytest.fixture(name="file")
def a_file(tmp_path: Path) -> Path:
    return tmp_path / "teacher.db"


@pytest.fixture(name="engine")
def a_database(file: Path) -> Iterator[Engine]:
    made = laid.opened("teacher", file)
    yield made
    made.dispose()


def keys(client: redis.Redis) -> dict[str, tuple[object, bool]]:
    """All keys with their values, and whether they end."""
    return {name.decode(errors="replace"): (client.dump(name), client.ttl(name) > 0) for name in client.scan_iter()}


def left_by_the_old_program(client: redis.Redis, one: Booking, *, name: str = "") -> None:
    """A class on its waiting list, and its booking."""
    client.rpush(name or one.stem, one.class_id)
    client.set(f"class:{one.class_id}", one.to_json())


def adopt(engine: Engine, client: redis.Redis, now: float = NOW, order_key: str | None = ORDER_KEY) -> list[str]:
    with transaction(engine) as connection:
        return OldLists(connection, client, OldKeyNames.parse(WAITING_KEY, order_key), now).adopt("teacher1", 120)


def planned(engine: Engine, client: redis.Redis, waiting_key: str = WAITING_KEY) -> TeacherAdoption:
    with engine.connect() as connection:
        return OldLists(connection, client, OldKeyNames.parse(waiting_key, ORDER_KEY), NOW).planned()


def orders_of(engine: Engine, *class_ids: str) -> dict[str, Order]:
    return commit(engine, bookings.by_id, class_ids)


def under_way(engine: Engine) -> list[RenditionRow]:
    return commit(engine, transcodings.under_way)


def begun(engine: Engine, state: RenditionState, record_id: int = 6666) -> None:
    """A rendition that this program has begun already, and brought to *state*."""
    attempt = Attempt(record_id, P720, 3, 1, NOW - 50, Backend.OSS, NOW + 70, "http://origin.example/first.flv")
    with transaction(engine) as connection:
        transcodings.begin(connection, [attempt], NOW - 50)
        transcodings.requested(connection, (record_id, P720), NOW - 50)
        if state is not RenditionState.TRANSCODING:
            ended_in(connection, (record_id, P720), state, NOW - 40, deadline=None)


def messages(engine: Engine) -> list[str]:
    """The class_ids of the bookings in the inbox."""
    kept = commit(engine, inbox.claim, journal, ["order"], limit=500, lease_s=0, now=NOW + 1)
    return [parse(one.body, (Booking,)).class_id for one in kept if one.command == "order"]
