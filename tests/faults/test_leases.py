"""A lease is granted anew when nothing is pushed any more that was taken away before."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from flows import release
from flows.host import Host
from lectern.effects import airings, inbox, leases
from lectern.effects.inbox import Arrived
from lectern.effects.tables.engine import open_database, reading, transaction
from lectern.effects.tables.streamer import journal
from lectern.messages import Grant, Prepare, Release
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from tests import strategies
from tests.faults import hosts

RUN = "00000000-0000-0000-0000-000000000001"


class Runs:
    """Notes what the database held when a push was ended."""

    def __init__(self, host: Host[StreamerSettings]) -> None:
        self.host = host
        self.seen: list[tuple[str, str | None]] = []

    def end(self, run_id: str, reason: str) -> bool:
        """Ends nothing: what could push at this moment is what counts."""
        with reading(self.host.engine) as connection:
            self.seen.append((run_id, leases.session(connection, self.host.settings.name)))
        return True


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host[StreamerSettings]]:
    engine = open_database(f"sqlite:///{hosts.database('streamer', tmp_path / 'task_list.db')}")
    yield hosts.streamer(engine, tmp_path, max_bytes=1 << 20, max_num=10)
    engine.dispose()


def on_air(connection: Connection, class_id: str) -> None:
    """A class that a run of this streamer pushes."""
    fields = json.loads(strategies.booking(class_id).to_json())
    prepare = Prepare(**{**fields, "cmd": "prepare", "stem": "6666", "placement": 1})
    airings.add(connection, prepare, AiringState.READY, "/videos/6666/6666.flv", hosts.now())
    airings.scheduled(connection, class_id, RUN)


@pytest.mark.parametrize("grant_first", [True, False])
def test_pushes_of_what_was_taken_away_have_ended_when_the_lease_is_held(
    host: Host[StreamerSettings], *, grant_first: bool
) -> None:
    """In whatever order the messages lie in the inbox: for a moment, two streamers would push one class."""
    said: list[Release | Grant] = [
        Release(class_id="c-1", placement=1),
        Grant(streamer=host.settings.name, session="new"),
    ]
    arrived = [Arrived("test", one.cmd, one.to_json()) for one in (reversed(said) if grant_first else said)]
    with transaction(host.engine) as connection:
        on_air(connection, "c-1")
        inbox.keep(connection, journal, arrived, hosts.now())
        kept = inbox.claim(connection, journal, ["release", "grant"], limit=10, lease_s=60, now=hosts.now())
    runs = Runs(host)
    host.runs = cast("Any", runs)
    stops = asyncio.run(release.take_back(host, kept))
    assert [one.class_id for one in stops] == ["c-1"]
    assert runs.seen == [(RUN, None)]
    with reading(host.engine) as connection:
        assert leases.session(connection, host.settings.name) == "new"
