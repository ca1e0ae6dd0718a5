"""A streamer's cache, whatever comes in whatever order: within its bound, its sums right, nothing pinned evicted."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Connection, Select, select

from flows.handling import Decide, change
from flows.streamer import downloads, lease
from flows.streamer import prepare as streamer_prepare
from flows.streamer.prepare import ProbeResult
from lectern.db import airings, cache
from lectern.db.engine import transaction
from lectern.errors import BAD_RECORDING, Refuse
from lectern.media.probe import Probe
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, dirs, files
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Prepare, Release
from tests import rows
from tests.faults import hosts
from tests.marks import share
from tests.rows import commit

MAX_BYTES, MAX_NUM = 100, 4
RECORDS = st.integers(1, 7)
HOLDING = (FileState.READY, FileState.DOWNLOADING)


def size_of(record: int) -> int:
    """Bytes of a record: two or three fit, or one large one."""
    return (10, 20, 30, 40, 50, 90, 101)[record - 1]


def prepare(number: int, record: int) -> Prepare:
    """Of a class that begins in an hour."""
    return rows.prepare(f"c-{number}", record, hosts.now() + 3600)


def admitted(wanted: Sequence[Prepare]) -> Decide[StreamerChanges]:
    """Take these classes; each recording is as large as its record says."""
    looked: dict[str, ProbeResult] = {
        one.stem: RemoteFile(one.video_url, size_of(int(one.stem)), None, None) for one in wanted
    }
    return lambda connection, changes: streamer_prepare.admit(connection, changes, wanted, looked)


class Cache(RuleBasedStateMachine):
    """One transaction after the other, as they are alone with the rows; then what every row must say."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.number = ExitStack(), 0
        self.root = Path(self.stack.enter_context(TemporaryDirectory(prefix="lectern-test-")))
        self.engine = self.stack.enter_context(hosts.opened("streamer", self.root / "task_list.db"))
        self.host = hosts.streamer(self.engine, self.root, MAX_BYTES, MAX_NUM)
        commit(self.engine, cache.make_sums, self.root)

    def teardown(self) -> None:
        self.stack.close()

    def does(self, decide: Decide[StreamerChanges]) -> None:
        """What follows the commit: files are removed, then their rows."""
        commit(self.engine, change, self.host, decide)
        with transaction(self.engine) as connection:
            cache.forget(connection, [one.stem for one in cache.evicting(connection)])

    # -- rules -------------------------------------------------------------------------------------------------------

    @rule(records=st.lists(RECORDS, min_size=1, max_size=3))
    def a_batch_is_prepared(self, records: list[int]) -> None:
        wanted = [prepare(self.number + count, record) for count, record in enumerate(records)]
        self.number += len(wanted)
        self.does(admitted(wanted))

    @precondition(lambda self: self.some(FileState.DOWNLOADING))
    @rule(data=st.data(), ok=st.booleans())
    def a_download_ends(self, data: st.DataObject, *, ok: bool) -> None:
        stem = data.draw(st.sampled_from(self.some(FileState.DOWNLOADING)))
        commit(self.engine, airings.tried, stem)
        size, error = size_of(int(stem)), Refuse("its end cannot be decoded", BAD_RECORDING)
        remote = RemoteFile("http://origin.example/x", size, None, None)
        found = Probe(10.0, size, last_second_decodes=True)
        self.does(downloads.arrived(stem, remote, found) if ok else downloads.failed(stem, error))

    @precondition(lambda self: self.living())
    @rule(data=st.data(), times=st.integers(1, 2))
    def one_is_released(self, data: st.DataObject, times: int) -> None:
        released = Release(class_id=data.draw(st.sampled_from(self.living())))
        for _ in range(times):
            self.does(lambda connection, changes: lease.release_classes(connection, changes, [released]))

    @rule()
    def it_is_started_anew(self) -> None:
        """After a kill: the sums and the citations are counted again, and come out the same."""
        with transaction(self.engine) as connection:
            before = connection.execute(select(dirs)).all()
            cache.recount(connection, self.root, airings.citations(connection))
            assert connection.execute(select(dirs)).all() == before

    # -- what must be so ---------------------------------------------------------------------------------------------

    def some(self, state: FileState) -> list[str]:
        return self.found(select(files.c.id).where(files.c.state == state))

    def living(self) -> list[str]:
        return self.found(select(classes.c.class_id).where(classes.c.state.in_(LIVE_AIRINGS)))

    def found(self, wanted: Select[Any]) -> list[str]:
        return sorted(commit(self.engine, lambda connection: connection.execute(wanted).scalars().all()))

    @invariant()
    def all_is_well(self) -> None:
        assert commit(self.engine, faults) == []


def faults(connection: Connection) -> list[str]:
    rows = {row.id: row for row in connection.execute(select(files))}
    holding = [row for row in rows.values() if row.state in HOLDING]
    found: list[str] = []
    if sum(row.size_bytes for row in holding) > MAX_BYTES or len(holding) > MAX_NUM:
        found.append(f"over the bound: {[(row.id, row.state) for row in holding]}")
    ready = [row for row in holding if row.state == FileState.READY]
    coming = [row for row in holding if row.state == FileState.DOWNLOADING]
    sums = connection.execute(select(dirs)).one()
    counted = (sum(row.size_bytes for row in ready), len(ready), sum(row.size_bytes for row in coming), len(coming))
    if (sums.size, sums.num, sums.reserved_bytes, sums.reserved_num) != counted:
        found.append(f"the sums are {tuple(sums)}, the rows say {counted}")
    cited = Counter(
        row.video_id for row in connection.execute(select(classes).where(classes.c.state.in_(LIVE_AIRINGS)))
    )
    found += [
        f"{stem} is cited {rows[stem].num_cite} times, by {cited[stem]} classes"
        for stem in rows
        if rows[stem].num_cite != cited[stem]
    ]
    found += [f"{stem} is needed, and not here" for stem in cited if stem not in {row.id for row in holding}]
    return found


Cache.TestCase.settings = settings(max_examples=share(0.125), stateful_step_count=15, deadline=None)
TestCache = Cache.TestCase


def test_nobody_writes_while_a_transaction_decides_by_what_it_has_read(tmp_path: Path) -> None:
    """Another process would give the last room of the cache away a second time."""
    path = tmp_path / "task_list.db"
    with hosts.opened("streamer", path) as engine, transaction(engine) as connection:
        assert connection.execute(select(dirs)).all() == []
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("delete from dir_info")


@pytest.mark.parametrize("begun", [False, True])
def test_a_download_that_nobody_needs_gives_its_room_to_next_unless_it_has_begun(tmp_path: Path, begun: bool) -> None:
    """A class that is cancelled while its recording waits for its turn keeps no other class out."""
    with hosts.opened("streamer", tmp_path / "task_list.db") as engine:
        host = hosts.streamer(engine, tmp_path, MAX_BYTES, 1)
        with transaction(engine) as connection:
            change(connection, host, admitted([prepare(1, 1)]))
            if begun:
                airings.tried(connection, "1")
            rows.did(connection, host, lease.release_classes, Release(class_id="c-1"))
            change(connection, host, admitted([prepare(2, 2)]))
            if not begun:
                assert airings.tried(connection, "1") == 0, "a run that begins at this moment does nothing"
            came = airings.by_id(connection, ["c-2"])["c-2"]
            assert came.state == (AiringState.REFUSED if begun else AiringState.WAITING)
            assert list(connection.execute(select(files.c.id)).scalars()) == (["1"] if begun else ["2"])
            sums = connection.execute(select(dirs)).one()
            assert (sums.size, sums.num, sums.reserved_num) == (0, 0, 1)
            assert sums.reserved_bytes == size_of(1 if begun else 2)
