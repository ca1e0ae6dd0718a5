"""A streamer's cache, whatever comes in whatever order: within its bound, its sums right, nothing pinned evicted."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
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
from tests.faults.interleaved import Work, Worker, databases, interleave
from tests.marks import share
from tests.rows import commit

MAX_BYTES, MAX_NUM = 100, 4
RECORDS = st.integers(1, 7)
SCHEDULE = st.lists(st.booleans(), max_size=60)
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
    """Two workers, each a transaction, interleaved statement by statement; then what every row must say."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.number = ExitStack(), 0
        self.root = Path(self.stack.enter_context(TemporaryDirectory(prefix="lectern-test-")))
        self.engines = self.stack.enter_context(databases(hosts.database("streamer", self.root / "task_list.db")))
        self.hosts = [hosts.streamer(engine, self.root, MAX_BYTES, MAX_NUM) for engine in self.engines]
        commit(self.engines[0], cache.make_sums, self.root)

    def teardown(self) -> None:
        self.stack.close()

    # -- what a worker does ------------------------------------------------------------------------------------------

    def admitting(self, worker: int, records: Sequence[int]) -> Work:
        wanted: list[Prepare] = []
        for record in records:
            self.number += 1
            wanted.append(prepare(self.number, record))
        return lambda c: change(c, self.hosts[worker], admitted(wanted))

    def releasing(self, worker: int, class_id: str) -> Work:
        return lambda c: rows.did(c, self.hosts[worker], lease.release_classes, Release(class_id=class_id))

    def arriving(self, worker: int, stem: str) -> Work:
        size = size_of(int(stem))
        remote = RemoteFile("http://origin.example/x", size, None, None)
        found = Probe(10.0, size, last_second_decodes=True)
        return lambda c: change(c, self.hosts[worker], downloads.arrived(stem, remote, found))

    def failing(self, worker: int, stem: str) -> Work:
        error = Refuse("its end cannot be decoded", BAD_RECORDING)
        return lambda c: change(c, self.hosts[worker], downloads.failed(stem, error))

    def together(self, first: Work, second: Work, schedule: Sequence[bool]) -> None:
        interleave(Worker(self.engines[0], first), Worker(self.engines[1], second), schedule)

    def took(self) -> None:
        """What follows the commit: files are removed, then their rows."""
        with transaction(self.engines[0]) as connection:
            cache.forget(connection, [one.stem for one in cache.evicting(connection)])

    # -- rules -------------------------------------------------------------------------------------------------------

    @rule(first=st.lists(RECORDS, min_size=1, max_size=3), second=st.lists(RECORDS, max_size=3), schedule=SCHEDULE)
    def two_batches_are_prepared(self, first: list[int], second: list[int], schedule: list[bool]) -> None:
        self.together(self.admitting(0, first), self.admitting(1, second), schedule)
        self.took()

    @precondition(lambda self: self.some(FileState.DOWNLOADING))
    @rule(data=st.data(), records=st.lists(RECORDS, max_size=3), ok=st.booleans(), schedule=SCHEDULE)
    def one_arrives_while_others_are_prepared(
        self, data: st.DataObject, records: list[int], ok: bool, schedule: list[bool]
    ) -> None:
        stem = data.draw(st.sampled_from(self.some(FileState.DOWNLOADING)))
        commit(self.engines[0], airings.tried, stem)
        ends = self.arriving(0, stem) if ok else self.failing(0, stem)
        self.together(ends, self.admitting(1, records), schedule)
        self.took()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), records=st.lists(RECORDS, max_size=3), twice=st.booleans(), schedule=SCHEDULE)
    def one_is_released_while_others_are_prepared_or_it_is_released_again(
        self, data: st.DataObject, records: list[int], twice: bool, schedule: list[bool]
    ) -> None:
        class_id = data.draw(st.sampled_from(self.living()))
        other = self.releasing(1, class_id) if twice else self.admitting(1, records)
        self.together(self.releasing(0, class_id), other, schedule)
        self.took()

    @rule()
    def it_is_started_anew(self) -> None:
        """After a kill: the sums and the citations are counted again, and come out the same."""
        with transaction(self.engines[0]) as connection:
            before = connection.execute(select(dirs)).all()
            cache.recount(connection, self.root, airings.citations(connection))
            assert connection.execute(select(dirs)).all() == before

    # -- what must be so ---------------------------------------------------------------------------------------------

    def some(self, state: FileState) -> list[str]:
        return self.found(select(files.c.id).where(files.c.state == state))

    def living(self) -> list[str]:
        return self.found(select(classes.c.class_id).where(classes.c.state.in_(LIVE_AIRINGS)))

    def found(self, wanted: Select[Any]) -> list[str]:
        return sorted(commit(self.engines[0], lambda connection: connection.execute(wanted).scalars().all()))

    @invariant()
    def all_is_well(self) -> None:
        assert commit(self.engines[0], faults) == []


def faults(connection: Connection) -> list[str]:
    """What must never be, in words."""
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


@pytest.mark.parametrize("begun", [False, True])
def test_a_download_that_nobody_needs_gives_its_room_to_next_unless_it_has_begun(tmp_path: Path, begun: bool) -> None:
    """A class that is cancelled while its recording waits for its turn keeps no other class out."""
    with databases(hosts.database("streamer", tmp_path / "task_list.db")) as engines:
        host = hosts.streamer(engines[0], tmp_path, MAX_BYTES, 1)
        with transaction(engines[0]) as connection:
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
