"""The teacher's database, old or new, comes up to the code; nothing in it is lost."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from lectern.effects.rows import schema
from lectern.effects.rows.tables.engine import open_database, transaction
from lectern.errors import CallAPerson, Misuse
from lectern.model.tables.teacher import TeacherTable
from tests.effects import old_databases as old
from tests.marks import share

UPSERT = """INSERT INTO video_list (record_id, resolution, status) VALUES (6666, '720P', 'transcoding')
ON CONFLICT (record_id, resolution) DO UPDATE SET status = excluded.status"""


def upgraded(path: Path) -> list[str]:
    engine = open_database(f"sqlite:///{path}")
    try:
        return schema.upgrade(engine, "teacher")
    finally:
        engine.dispose()


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    """A column, type, key or index of a model that no migration makes is a failure here."""
    path = tmp_path / "teacher.db"
    upgraded(path)
    assert old.differences(path, TeacherTable.metadata) == []
    assert old.without_default(path, TeacherTable.metadata) == []


@pytest.mark.parametrize("kind", old.TEACHERS)
def test_every_kind_of_old_database_comes_up(tmp_path: Path, kind: str) -> None:
    """The plan changes no byte and says what the upgrade then does; all old rows stay; a second run does nothing."""
    path = old.build(tmp_path / "it's 100% old.db", old.TEACHERS[kind])
    columns, before, raw = old.columns(path), old.dump(path), path.read_bytes()
    engine = open_database(f"sqlite:///{path}")
    with pytest.raises(Misuse, match=r"behind this program by .* Run `lectern init`"):
        schema.check(engine, "teacher")
    planned = schema.plan(engine, "teacher")
    assert path.read_bytes() == raw
    assert schema.upgrade(engine, "teacher") == planned != []
    if "video_list_set_aside" not in columns:
        assert old.rows_with_set_aside(path, columns) == before
    schema.check(engine, "teacher")
    after = old.dump(path)
    assert schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") == []
    assert old.dump(path) == after
    assert old.without_default(path, TeacherTable.metadata) == []
    with transaction(engine) as connection:
        connection.execute(text(UPSERT))
        connection.execute(text(UPSERT))
        assert connection.execute(text("SELECT count(*) FROM video_list WHERE record_id = 6666")).scalar() == 1
    engine.dispose()


def test_the_row_of_the_best_status_stays(tmp_path: Path) -> None:
    """Of several rows of a rendition, success stays before transcoding before the rest; the others are named."""
    path = old.build(tmp_path / "teacher.db", old.TEACHERS["odd"])
    said = upgraded(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        kept = connection.execute("SELECT record_id, resolution, status FROM video_list ORDER BY 1, 2").fetchall()
        aside = connection.execute("SELECT count(*), count(set_aside_reason) FROM video_list_set_aside").fetchone()
    assert kept == [
        (7, "480P", "transcoding"),
        (8, "1080P", None),
        (8, "240P", "x"),
        (10, "720P", "\ufffd"),
        (6666, "720P", "success"),
    ]
    assert aside == (9, 9)
    assert len([sentence for sentence in said if " goes to video_list_set_aside: " in sentence]) == 9
    assert any("record_id 'abc'" in sentence and "no whole number" in sentence for sentence in said)


def test_rows_set_aside_twice_are_added(tmp_path: Path) -> None:
    """What a table of that name holds already is kept, and gains the columns that it lacks."""
    path = old.build(tmp_path / "teacher.db", old.TEACHERS["rows set aside before"])
    upgraded(path)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT record_id, set_aside_reason FROM video_list_set_aside").fetchall()
    assert (5, "by hand") in rows
    assert len(rows) == 10


@pytest.mark.parametrize("kind", ["plain", "odd", "no rows"])
def test_the_old_program_goes_on_after_a_rollback(tmp_path: Path, kind: str) -> None:
    """Its three-column statements work on the upgraded file, and lectern's defaults are in its rows."""
    path = old.build(tmp_path / "teacher.db", old.TEACHERS[kind])
    upgraded(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(old.OLD_TEACHER)
        connection.execute("INSERT INTO video_list (record_id, resolution, status) VALUES (5, '720P', '转码中')")
        connection.execute("UPDATE video_list SET status = 'success' WHERE record_id = 5 AND resolution = '720P'")
        found = connection.execute(
            "SELECT status, attempt, attempts_today, attempts_since FROM video_list WHERE record_id = 5"
        )
        assert found.fetchall() == [("success", 0, 0, 0)]
        connection.execute("DELETE FROM video_list WHERE record_id = 5")
    assert upgraded(path) == []


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    """The streamer's database is not taken for the teacher's: the text names what is missing."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["model.py was run"])
    raw = path.read_bytes()
    engine = open_database(f"sqlite:///{path}")
    for attempt in (schema.plan, schema.check):
        with pytest.raises(Misuse, match=r"video_list: .* no column record_id, resolution, status"):
            attempt(engine, "teacher")
    assert path.read_bytes() == raw
    with pytest.raises(Misuse, match=r"the right file"):
        schema.upgrade(engine, "teacher")
    engine.dispose()
    assert "order_list" not in old.columns(path)


def _newer(path: Path, *statements: str) -> Engine:
    """A database that a newer release has migrated by *statements*."""
    upgraded(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for one in ("UPDATE alembic_version SET version_num = 'teacher_9999'", *statements):
            connection.execute(one)
    return open_database(f"sqlite:///{path}")


def test_a_newer_database_serves_an_older_program_if_changes_only_added(tmp_path: Path) -> None:
    """What this program does not know stays as it is, and nothing of it is in its way."""
    path = tmp_path / "teacher.db"
    engine = _newer(
        path,
        "ALTER TABLE order_list ADD COLUMN mood VARCHAR(20)",
        "ALTER TABLE order_list ADD COLUMN loud INTEGER NOT NULL DEFAULT 0",
        "CREATE TABLE moods (mood VARCHAR(20) PRIMARY KEY)",
    )
    schema.check(engine, "teacher")
    assert schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("teacher_9999",)]
    engine.dispose()


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (
            ["CREATE TABLE oldest_reader (revision VARCHAR(32))", "INSERT INTO oldest_reader VALUES ('teacher_9000')"],
            "only a program that knows revision teacher_9000",
        ),
        (
            ["DROP TABLE inbox_list", "CREATE TABLE inbox_list (id INTEGER PRIMARY KEY, mood TEXT NOT NULL)"],
            "inbox_list.mood must have a value",
        ),
        (["ALTER TABLE video_list DROP COLUMN owner"], "no column owner of video_list"),
    ],
)
def test_a_newer_database_that_an_older_program_cannot_use_is_refused(
    tmp_path: Path, statements: list[str], why: str
) -> None:
    """A mark of the newer release, a needed value, or a lost column calls a person, whoever asks."""
    engine = _newer(tmp_path / "teacher.db", *statements)
    for attempt in (schema.check, schema.plan, schema.upgrade):
        with pytest.raises(CallAPerson, match=why):
            attempt(engine, "teacher")
    engine.dispose()


def test_a_mark_that_is_known_here_is_no_obstacle(tmp_path: Path) -> None:
    """The newest program that the mark lets in is the one that knows its revision."""
    mark = "INSERT INTO oldest_reader VALUES ('teacher_0001')"
    engine = _newer(tmp_path / "teacher.db", "CREATE TABLE oldest_reader (revision VARCHAR(32))", mark)
    schema.check(engine, "teacher")
    engine.dispose()


def test_what_somebody_took_away_is_named(tmp_path: Path) -> None:
    """A missing column or table is said by check and by upgrade, with the way to have it made anew."""
    path = tmp_path / "teacher.db"
    upgraded(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE video_list DROP COLUMN owner")
        connection.execute("DROP TABLE cancel_list")
    engine = open_database(f"sqlite:///{path}")
    for attempt in (schema.check, schema.upgrade):
        with pytest.raises(CallAPerson, match=r"no column owner of video_list, no table cancel_list"):
            attempt(engine, "teacher")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE alembic_version")
    assert schema.upgrade(engine, "teacher") == ["video_list: new column owner", "cancel_list: new table"]
    schema.check(engine, "teacher")
    engine.dispose()


def test_in_memory_too(tmp_path: Path) -> None:
    """A database without a file is upgraded the same way, and the plan is taken back."""
    engine = open_database("sqlite://")
    assert schema.plan(engine, "teacher") == schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") != []
    schema.check(engine, "teacher")
    engine.dispose()


ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=8),
    st.sampled_from(["6666", "6666.0", "1e3", " 7", "x" * 300, "🎓'\"--", ""]),
)
KEYS = st.one_of(st.sampled_from([6666, 7, "7", 7.5, None]), ODD)
RESOLUTIONS = st.one_of(st.sampled_from(["720P", "480P", "720p", None]), ODD)
STATUSES = st.one_of(st.sampled_from(["success", "transcoding", "failed", "转码成功", None]), ODD)
NAMES = st.sampled_from(
    ["note", "rowid", "É", "é", "Owner", "reason", "a:b", 'q"q', "select", "课", "address", "place"]
)
KINDS = st.sampled_from(["", "INTEGER", "VARCHAR(20)", "TEXT COLLATE NOCASE", "DATETIME", "NUMERIC(10, 2)", "REAL"])


@settings(max_examples=share(0.15), deadline=None)
@given(
    rows=st.lists(st.tuples(KEYS, RESOLUTIONS, STATUSES, ODD, ODD), max_size=12),
    extra=st.lists(st.tuples(NAMES, KINDS), min_size=2, max_size=2, unique_by=lambda column: column[0]),
)
def test_no_odd_old_database_loses_a_value(rows: list[tuple[object, ...]], extra: list[tuple[str, str]]) -> None:
    """Whatever the rows and the further columns are, each old value is there after the upgrade, to the byte."""
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
