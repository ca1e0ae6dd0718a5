"""A database of either role comes up to the code and nothing in it is lost, also if that is killed or disturbed."""

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from lectern.db import schema
from lectern.db.engine import opened
from lectern.errors import CallAPerson, ForbiddenMove, LecternError, Misuse, TryAgain
from lectern.model.tables.streamer import StreamerTable
from lectern.model.tables.teacher import TeacherTable
from lectern.states import Role
from tests.effects import old_databases as old
from tests.marks import share
from tests.waiting import wait_until

MODELS = {"teacher": TeacherTable.metadata, "streamer": StreamerTable.metadata}
ALLOWED: dict[Role, list[list[str]]] = {"teacher": [[]], "streamer": [[], ["dir_info.size", "dir_info.num"]]}
"""Columns without a default: those of the old program's documents."""

SHAPE = (
    'SELECT name, type, "notnull", pk > 0 FROM pragma_table_info(?) ORDER BY name',
    "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL ORDER BY name",
)
INDEX_COLUMNS = (
    "SELECT m.tbl_name, group_concat(i.name) FROM sqlite_master AS m, pragma_index_info(m.name) AS i"
    " WHERE m.type = 'index' GROUP BY m.name"
)
INDEXES: dict[Role, set[tuple[str, str]]] = {
    "teacher": set(),
    "streamer": {("video_list", "num_cite,update_time"), ("task_list", "end_time")},
}
OLD: dict[Role, Mapping[str, Sequence[str]]] = {"teacher": old.TEACHERS, "streamer": old.STREAMERS}
KINDS_OF_OLD = [("teacher", kind, False) for kind in old.TEACHERS]
KINDS_OF_OLD += [("streamer", kind, wal) for kind in old.STREAMERS for wal in (True, False)]
OLD_COLUMNS = ("class_id", "video_url", "push_url", "start_time", "end_time", "status")
BOOKS = (
    f"INSERT INTO task_list ({', '.join(OLD_COLUMNS)}, teacher_name, institution_id)"
    " VALUES ('n', 'u', 'p', 1, '2', 0, 'Li', 'i-7') ON CONFLICT (class_id) DO UPDATE SET status = 2"
)
KEYLESS = f"CREATE TABLE task_list ({', '.join(OLD_COLUMNS)})"
UPSERTS = {
    "teacher": [
        old.OLD_TEACHER,
        (
            "INSERT INTO video_list (record_id, resolution, status) VALUES (6666, '1080P', '转码中')"
            " ON CONFLICT (record_id, resolution) DO UPDATE SET status = excluded.status"
        ),
    ],
    "streamer": [
        "INSERT INTO video_list (id, num_cite) VALUES ('new', 1) ON CONFLICT (id) DO UPDATE SET num_cite = 2",
        "INSERT INTO class_list (class_id, video_id) VALUES ('n', 'v') ON CONFLICT (class_id) DO UPDATE SET site = 'w'",
        "INSERT INTO dir_info (dir, size, num) VALUES ('/new', 0, 0) ON CONFLICT (dir) DO UPDATE SET num = num + 1",
    ],
}
AFTER = {
    "teacher": "SELECT count(*) = 1 AND max(attempt + attempts_today + attempts_since) = 0 FROM video_list"
    " WHERE record_id = 6666 AND resolution = '1080P' AND status = '转码中'",
    "streamer": "SELECT num_cite = 2 AND tries = 0 FROM video_list WHERE id = 'new'",
}


def upgraded(path: Path, role: Role = "teacher") -> list[str]:
    with opened(f"sqlite:///{path}") as engine:
        return schema.upgrade(engine, role)


@pytest.mark.parametrize("role", MODELS)
def test_models_and_migrations_agree(tmp_path: Path, role: Role) -> None:
    path = tmp_path / "rows.db"
    upgraded(path, role)
    made = tmp_path / "made.db"
    with opened(f"sqlite:///{made}") as engine:
        MODELS[role].create_all(engine)
    for table in MODELS[role].tables:
        for query in SHAPE:
            assert old.rows(path, query, table) == old.rows(made, query, table)
    assert old.without_default(path, MODELS[role]) in ALLOWED[role]


@pytest.mark.parametrize(("role", "kind", "wal"), KINDS_OF_OLD)
def test_every_kind_of_old_database_comes_up(tmp_path: Path, role: Role, kind: str, wal: bool) -> None:
    """The plan changes no byte and says what the upgrade then does; all old rows stay; a second run does nothing.

    After a rollback the old program goes on with it, and lectern's defaults are in its rows: a rendition that was there
    is ready, and how far a class is, is not known.
    """
    path = old.build(tmp_path / "it's 100% old.db", OLD[role][kind], wal=wal)
    columns, before, raw = old.columns(path), old.dump(path), path.read_bytes()
    with opened(f"sqlite:///{path}") as engine:
        with pytest.raises(Misuse, match=r"behind this program\. Run `lectern init"):
            schema.check(engine, role)
        planned = schema.plan(engine, role)
        assert path.read_bytes() == raw
        assert schema.upgrade(engine, role) == planned != []
        if role == "streamer":
            assert old.dump(path, columns) == before
        elif "video_list_set_aside" not in columns:
            assert old.rows_with_set_aside(path, columns) == before
        schema.check(engine, role)
        after = old.dump(path)
        assert schema.plan(engine, role) == schema.upgrade(engine, role) == []
        assert old.dump(path) == after
        assert role == "streamer" or old.without_default(path, MODELS[role]) == []
    assert INDEXES[role] <= set(old.rows(path, INDEX_COLUMNS))
    if role == "streamer":
        assert set(old.rows(path, "SELECT state, tries, size_bytes FROM video_list")) <= {("ready", 0, None)}
        assert set(old.rows(path, "SELECT state, released_at FROM class_list")) <= {(None, None)}
        assert set(old.rows(path, "SELECT reserved_bytes, reserved_num FROM dir_info")) <= {(0, 0)}
    old.build(path, UPSERTS[role] * 2)
    assert old.rows(path, AFTER[role]) == [(1,)]
    if "task_list" in columns:
        old.build(path, [BOOKS] * 2)
        assert old.rows(path, "SELECT status FROM task_list WHERE class_id = 'n'") == [(2,)]
    old.build(path, ["DELETE FROM video_list"])
    assert upgraded(path, role) == []


@pytest.mark.parametrize(("kind", "there"), [("odd", []), ("rows set aside before", [(5, "by hand")])])
def test_the_row_of_the_best_status_stays(tmp_path: Path, kind: str, there: list[tuple[int, str]]) -> None:
    """Success before transcoding before the rest. The others are counted, and set aside apart from those before."""
    path = old.build(tmp_path / "teacher.db", old.TEACHERS[kind])
    said = upgraded(path)
    assert old.rows(path, "SELECT record_id, resolution, status FROM video_list ORDER BY 1, 2") == [
        (7, "480P", "transcoding"),
        (8, "1080P", None),
        (8, "240P", "x"),
        (10, "720P", "\ufffd"),
        (6666, "720P", "success"),
    ]
    name = "video_list_set_aside_2" if there else "video_list_set_aside"
    aside = old.rows(path, f"SELECT record_id, set_aside_reason FROM {name}")
    assert not there or old.rows(path, "SELECT * FROM video_list_set_aside") == there
    assert len([why for _, why in aside if why]) == len(aside) == 9
    assert ("abc", "its record_id is no whole number") in aside
    assert f"video_list: 3 rows go to {name}: another row of the rendition is kept" in said


NEWER = "UPDATE alembic_version SET version_num = 'teacher_9999'"
MARK = "CREATE TABLE oldest_reader (revision VARCHAR(32))"
MARKED = MARK, "INSERT INTO oldest_reader VALUES ('teacher_9000')"
NEEDS = "DROP TABLE inbox_list", "CREATE TABLE inbox_list (id INTEGER PRIMARY KEY, mood TEXT NOT NULL)"
DROPS = ("ALTER TABLE video_list DROP COLUMN owner",)
OTHERS = old.STREAMERS["model.py was run"]
NO_KEY = ("CREATE TABLE event_list (id INTEGER PRIMARY KEY)",)
NO_PUSH_URL = (KEYLESS.replace(" push_url,", ""),)
DOUBLED = KEYLESS, "INSERT INTO task_list (class_id) VALUES ('c-1'), (NULL), (NULL), ('c-1')"
Refused = tuple[Role, Role | None, Sequence[str], type[LecternError], str]
REFUSED: list[Refused] = [
    ("teacher", None, OTHERS, Misuse, "video_list: .* no column record_id, resolution, status"),
    ("teacher", "streamer", (), CallAPerson, "is none of the teacher's: it is another role's"),
    ("teacher", "teacher", (NEWER, *MARKED), CallAPerson, "only a program that knows revision teacher_9000"),
    ("teacher", "teacher", (NEWER, *NEEDS), CallAPerson, "inbox_list.mood must have a value"),
    ("teacher", "teacher", (NEWER, *DROPS), CallAPerson, "no column owner of video_list"),
    ("streamer", None, NO_PUSH_URL, Misuse, "no column push_url; .* alter table task_list add column push_url "),
    ("streamer", None, NO_KEY, Misuse, "event_list: it is there, but has no column at"),
    ("streamer", None, DOUBLED, CallAPerson, "class_id must be unique, but 'c-1' is there more than once"),
]


def refused(path: Path, role: Role, error: type[LecternError], words: str) -> None:
    """By check, plan and upgrade; nothing behind SQLite's header is changed."""
    raw = path.read_bytes()
    with opened(f"sqlite:///{path}") as engine:
        for attempt in (schema.check, schema.plan, schema.upgrade):
            with pytest.raises(error, match=rf"^/.*rows\.db: .*{words}"):
                attempt(engine, role)
    assert path.read_bytes()[100:] == raw[100:]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[-1])
def test_a_database_that_we_cannot_use_is_refused_in_words_and_stays_as_it_is(tmp_path: Path, case: Refused) -> None:
    """Another program's or role's, one of a newer release that did not only add, and one of which too much is gone."""
    role, made, statements, error, words = case
    path = tmp_path / "rows.db"
    if made is not None:
        upgraded(path, made)
    refused(old.build(path, statements), role, error, words)


@pytest.mark.parametrize("kind", ["text", "a page is overwritten", "cut"])
def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    numbers = "WITH RECURSIVE n(i) AS (VALUES (0) UNION ALL SELECT i + 1 FROM n WHERE i < 499)"
    many = f"INSERT INTO task_list (class_id, teacher_name) {numbers} SELECT 'c' || i, '{'x' * 99}' FROM n"
    path = old.build(tmp_path / "rows.db", [*OTHERS, many])
    whole = path.read_bytes()
    spoilt = whole[: 4096 * 9] + b"\xff" * 4096 + whole[4096 * 10 :]
    path.write_bytes({"text": b"wget_path=/usr/bin/wget\n" * 99, "cut": spoilt[: 4096 * 3]}.get(kind, spoilt))
    heading = "the file is damaged, or is no SQLite database"
    refused(path, "streamer", CallAPerson, heading)
    assert f"\n## {heading}\n" in (Path(__file__).parents[2] / "RUNBOOK.md").read_text()


def test_a_table_of_classes_without_a_key_gains_a_unique_index(tmp_path: Path) -> None:
    path = old.build(tmp_path / "rows.db", [KEYLESS, "INSERT INTO task_list (class_id) VALUES ('c-1'), (NULL), (NULL)"])
    assert "task_list: new unique index on class_id" in upgraded(path, "streamer")


@pytest.mark.parametrize("mark", [[], ["INSERT INTO oldest_reader VALUES ('teacher_0001')"]], ids=["bare", "marked"])
def test_a_newer_database_serves_an_older_program_if_changes_only_added(tmp_path: Path, mark: list[str]) -> None:
    """What this program does not know stays, and is not in its way. A mark lets in who knows the revision it names."""
    path, added = tmp_path / "teacher.db", ("mood VARCHAR(20)", "loud INTEGER NOT NULL DEFAULT 0")
    columns = [f"ALTER TABLE order_list ADD COLUMN {one}" for one in added]
    upgraded(path)
    old.build(path, [NEWER, *columns, MARK, *mark])
    with opened(f"sqlite:///{path}") as engine:
        schema.check(engine, "teacher")
        assert schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") == []
    assert old.rows(path, "SELECT version_num FROM alembic_version") == [("teacher_9999",)]


def test_what_somebody_took_away_is_named(tmp_path: Path) -> None:
    """A missing column or table is said by check and by upgrade, with the way to have it made anew."""
    path = tmp_path / "teacher.db"
    upgraded(path)
    old.build(path, ["ALTER TABLE video_list DROP COLUMN owner", "DROP TABLE cancel_list"])
    with opened(f"sqlite:///{path}") as engine:
        for attempt in (schema.check, schema.upgrade):
            with pytest.raises(CallAPerson, match=r"no column owner of video_list, no table cancel_list"):
                attempt(engine, "teacher")
        old.build(path, ["DROP TABLE alembic_version"])
        assert schema.upgrade(engine, "teacher") == ["video_list: new column owner", "cancel_list: new table"]
        schema.check(engine, "teacher")


@pytest.mark.parametrize(
    ("words", "state", "kind"),
    [
        *[("database is locked", None, TryAgain), ("the file is busy", None, TryAgain), ("late", "57014", TryAgain)],
        *[("malformed", None, CallAPerson), ("file is not a database", None, CallAPerson), ("odd", None, CallAPerson)],
        *[
            (one, None, Misuse)
            for one in ("attempt to write a readonly database", "unable to open", "Permission denied")
        ],
        ("it is another user's", "42501", Misuse),
    ],
)
def test_what_a_driver_says_is_sorted_by_what_to_do(words: str, state: str | None, kind: type[LecternError]) -> None:
    error = sqlite3.OperationalError(words)
    error.sqlstate = state  # type: ignore[attr-defined]  # as PostgreSQL's driver has it
    with opened("sqlite://") as engine, pytest.raises(kind) as raised, schema.in_words(engine):
        raise error
    assert raised.value.message.count(" restore ") == (words in ("malformed", "file is not a database"))
    assert ("ALTER DATABASE lectern OWNER TO lectern" in raised.value.message) == (state == "42501")


def test_a_failure_of_any_kind_is_raised_with_the_name_of_the_database(tmp_path: Path) -> None:
    url, words = f"sqlite:///{tmp_path}/teacher.db", r"^/.*teacher\.db: c-1: may not go from \"aired\" to \"placed\""
    with opened(url) as engine, pytest.raises(CallAPerson, match=words), schema.in_words(engine):
        raise ForbiddenMove("c-1", "aired", "placed")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_upgraded_and_its_plan_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(url) as engine:
        planned = schema.plan(engine, "teacher")
        assert planned == schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") != []
        schema.check(engine, "teacher")
    assert list(tmp_path.iterdir()) == []


ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=8),
    st.sampled_from(["6666", "6666.0", "1e3", " 7", "2025-11-24 19:00", "x" * 300, "🎓'\"--", ""]),
)
KEYS = st.one_of(st.sampled_from([6666, 7, "7", 7.5, None]), ODD)
RESOLUTIONS = st.one_of(st.sampled_from(["720P", "480P", "720p", None]), ODD)
STATUSES = st.one_of(st.sampled_from(["success", "transcoding", "failed", "转码成功", None]), ODD)
NAMES = st.sampled_from(
    ["note", "rowid", "É", "é", "Owner", "reason", "Institution_ID", "a:b", 'q"q', "select", "课", "address", "place"]
)
KINDS = st.sampled_from(
    ["", "INTEGER", "VARCHAR(20)", "TEXT COLLATE NOCASE", "FLOAT", "DATETIME", "NUMERIC(10, 2)", "REAL"]
)


@settings(max_examples=share(0.15), deadline=None)
@given(
    rows=st.lists(st.tuples(KEYS, RESOLUTIONS, STATUSES, ODD, ODD), max_size=12),
    extra=st.lists(st.tuples(NAMES, KINDS), min_size=2, max_size=2, unique_by=lambda column: column[0]),
)
def test_no_odd_old_teacher_loses_a_value(rows: list[tuple[object, ...]], extra: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = old.build(Path(folder) / "teacher.db", [old.OLD_TEACHER])
        with closing(sqlite3.connect(path)) as connection, connection:
            for name, kind in extra:
                connection.execute(f'ALTER TABLE video_list ADD COLUMN "{name.replace(chr(34), chr(34) * 2)}" {kind}')
            connection.executemany("INSERT INTO video_list VALUES (?, ?, ?, ?, ?)", rows)
        columns, before = old.columns(path), old.dump(path)
        upgraded(path)
        assert old.rows_with_set_aside(path, columns) == before
        assert upgraded(path) == []


@settings(max_examples=share(0.15), deadline=None)
@given(
    kinds=st.tuples(*[KINDS] * 6),
    extra=st.tuples(NAMES.filter(lambda name: '"' not in name), KINDS),
    rows=st.lists(st.tuples(*[ODD] * 6), max_size=8),
    videos=st.lists(st.tuples(ODD, ODD, ODD), max_size=4),
)
def test_no_odd_old_database_of_a_streamer_loses_a_value(
    kinds: tuple[str, ...],
    extra: tuple[str, str],
    rows: list[tuple[object, ...]],
    videos: list[tuple[object, ...]],
) -> None:
    names = ", ".join(f"{name} {kind}" for name, kind in zip(OLD_COLUMNS, kinds, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        table = f'CREATE TABLE task_list ({names}, "{extra[0]}" {extra[1]} NOT NULL, PRIMARY KEY (class_id))'
        path = old.build(Path(folder) / "task_list.db", [table, *old.DOCUMENTED])
        with closing(sqlite3.connect(path)) as connection, connection:
            for number, (_, *values) in enumerate(rows):
                key = f"c-{number}" if "CHAR" in kinds[0] or "TEXT" in kinds[0] else number
                connection.execute("INSERT INTO task_list VALUES (?, ?, ?, ?, ?, ?, 'x')", [key, *values])
            for number, video in enumerate(videos):
                connection.execute("INSERT INTO video_list VALUES (?, ?, ?, ?)", [f"{number}_720P", *video])
        columns, before = old.columns(path), old.dump(path)
        upgraded(path, "streamer")
        assert old.dump(path, columns) == before
        assert upgraded(path, "streamer") == []


# An upgrade that is killed, disturbed or given a wrong file leaves the database as it was, or done.


BROKEN_OFF: dict[str, tuple[Role, tuple[str, ...]]] = {
    "teacher, odd": ("teacher", tuple(old.TEACHERS["odd"][:5])),
    "teacher, empty": ("teacher", ()),
    "streamer, model.py was run": ("streamer", tuple(old.STREAMERS["model.py was run"])),
    "streamer, empty": ("streamer", ()),
}


class Struck(BaseException):
    """The end of whoever upgrades."""


def struck(path: Path, role: Role, fatal: int = 0) -> int:
    """Upgrade, or break off at the statement number *fatal*; returns how many there were."""
    number = 0

    def strike(*_: object) -> None:
        nonlocal number
        number += 1
        if number == fatal:
            raise Struck

    with opened(f"sqlite:///{path}") as engine:
        event.listen(engine, "before_cursor_execute", strike)
        schema.upgrade(engine, role)
    return number


@pytest.mark.parametrize("kind", BROKEN_OFF)
def test_broken_off_anywhere_then_run_again_it_is_done(tmp_path: Path, kind: str) -> None:
    """At every statement: the database is as before, so that the next run, whenever it comes, finishes it."""
    role, statements = BROKEN_OFF[kind]
    path = old.build(tmp_path / "old.db", statements)
    columns, before = old.columns(path), old.dump(path)
    whole = Path(shutil.copy(path, tmp_path / "whole.db"))
    number = struck(whole, role)
    assert number > 20
    for fatal in range(1, number + 1):
        with pytest.raises(Struck):
            struck(path, role, fatal)
        assert (old.columns(path), old.dump(path)) == (columns, before), fatal
    upgraded(path, role)
    assert (old.schema_of(path), old.dump(path)) == (old.schema_of(whole), old.dump(whole))


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
@pytest.mark.parametrize("role", ["teacher", "streamer"])
def test_a_writer_at_work_loses_no_row(tmp_path: Path, role: Role, wal: bool) -> None:
    """The old program inserts every 5 ms while the upgrade runs: all of its rows are there."""
    insert = {
        "teacher": "INSERT INTO video_list (record_id, resolution, status) VALUES (?, '720P', '转码中')",
        "streamer": "INSERT INTO task_list (class_id, teacher_name) VALUES ('w-' || ?, 'Li')",
    }[role]
    count = {"teacher": "video_list WHERE record_id >= 100", "streamer": "task_list WHERE class_id LIKE 'w-%'"}[role]
    kinds = {"teacher": old.PLAIN_TEACHER[:1], "streamer": old.STREAMERS["tasks only"]}
    path = old.build(tmp_path / "old.db", kinds[role], wal=wal)
    written, is_over = list[int](), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
            while not is_over.wait(0.005):
                connection.execute(insert, [len(written) + 100])
                written.append(1)

    with ThreadPoolExecutor(1) as other:
        writing = other.submit(write)
        try:
            wait_until(lambda: len(written) > 20 or writing.done(), description="it is at work")
            assert upgraded(path, role)
            before = len(written)
            wait_until(lambda: len(written) > before + 20 or writing.done(), description="it goes on")
        finally:
            is_over.set()
        writing.result()
    assert old.rows(path, f"SELECT count(*) FROM {count}") == [(len(written),)]


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_a_program_that_writes_for_a_moment_is_waited_for(tmp_path: Path, wal: bool) -> None:
    """Also while the file changes its journal, for which SQLite itself waits for nobody."""
    path = old.build(tmp_path / "old.db", old.STREAMERS["tasks only"], wal=wal)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        end = threading.Timer(0.3, other.execute, ["COMMIT"])
        end.start()
        try:
            assert upgraded(path, "streamer")
        finally:
            end.join()


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_a_program_that_holds_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bool) -> None:
    monkeypatch.setattr("lectern.db.engine.BUSY_TIMEOUT_S", 0.3)
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["tasks only"], wal=wal)
    with opened(f"sqlite:///{path}") as engine, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert schema.plan(engine, "streamer")
        with pytest.raises(TryAgain, match=r"task_list.db: another program .* Stop the old program"):
            schema.upgrade(engine, "streamer")
        other.execute("ROLLBACK")
        assert schema.upgrade(engine, "streamer")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    """Nothing there: check says so, plan tells all of it and makes nothing. A folder is refused, and stays open."""
    path = tmp_path / "task_list.db"
    with opened(f"sqlite:///{path}") as engine:
        with pytest.raises(Misuse, match=r"no such database. Make it with `lectern init`"):
            schema.check(engine, "streamer")
        planned = schema.plan(engine, "streamer")
        assert list(tmp_path.iterdir()) == []
        assert schema.upgrade(engine, "streamer") == planned
    mode = tmp_path.stat().st_mode
    with opened(f"sqlite:///{tmp_path}") as folder, pytest.raises(Misuse, match=r"it is a folder"):
        schema.upgrade(folder, "streamer")
    assert tmp_path.stat().st_mode == mode


def test_what_a_killed_writer_left_half_done_is_taken_back(tmp_path: Path) -> None:
    """A hot journal stops a reader that may only read: it is rolled back first, and the plan is told."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["tasks only"])
    columns, before = old.columns(path), old.dump(path)
    half = "PRAGMA cache_size=1", "BEGIN IMMEDIATE", "DELETE FROM task_list", "CREATE TABLE t AS SELECT zeroblob(99999)"
    script = f"import sqlite3,os\nc=sqlite3.connect({str(path)!r}, isolation_level=None)\n"
    script += "".join(f"c.execute({line!r})\n" for line in half) + "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert path.with_name("task_list.db-journal").stat().st_size > 0
    with opened(f"sqlite:///{path}") as engine:
        assert schema.plan(engine, "streamer") == schema.upgrade(engine, "streamer") != []
    assert old.dump(path, columns) == before
