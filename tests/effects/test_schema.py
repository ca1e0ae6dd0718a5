"""A database of either role, old or new, comes up to the code; nothing in it is lost."""

import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from lectern.db import schema
from lectern.db.engine import open_database, transaction
from lectern.errors import CallAPerson, ForbiddenMove, Misuse
from lectern.model.tables.streamer import StreamerTable
from lectern.model.tables.teacher import TeacherTable
from tests.effects import old_databases as old
from tests.marks import share

MODELS = {"teacher": TeacherTable.metadata, "streamer": StreamerTable.metadata}
ALLOWED: dict[schema.Role, list[list[str]]] = {"teacher": [[]], "streamer": [[], ["dir_info.size", "dir_info.num"]]}
"""Columns without a default: those of the old program's documents."""

INDEXES: dict[schema.Role, set[tuple[str, str]]] = {
    "teacher": set(),
    "streamer": {("video_list", "num_cite,update_time"), ("task_list", "end_time")},
}
OLD: dict[schema.Role, Mapping[str, Sequence[str]]] = {"teacher": old.TEACHERS, "streamer": old.STREAMERS}
KINDS_OF_OLD = [("teacher", kind, False) for kind in old.TEACHERS]
KINDS_OF_OLD += [("streamer", kind, wal) for kind in old.STREAMERS for wal in (True, False)]
UPSERTS = {
    "teacher": [
        (
            "INSERT INTO video_list (record_id, resolution, status) VALUES (6666, '720P', 'transcoding')"
            " ON CONFLICT (record_id, resolution) DO UPDATE SET status = excluded.status"
        )
    ],
    "streamer": [
        "INSERT INTO video_list (id, num_cite) VALUES ('new', 1) ON CONFLICT (id) DO UPDATE SET num_cite = 2",
        "INSERT INTO class_list (class_id, video_id) VALUES ('n', 'v') ON CONFLICT (class_id) DO UPDATE SET site = 'w'",
        "INSERT INTO dir_info (dir, size, num) VALUES ('/new', 0, 0) ON CONFLICT (dir) DO UPDATE SET num = num + 1",
    ],
}
AFTER = {
    "teacher": "SELECT count(*) = 1 FROM video_list WHERE record_id = 6666",
    "streamer": "SELECT num_cite = 2 FROM video_list WHERE id = 'new'",
}
OLD_COLUMNS = ("class_id", "video_url", "push_url", "start_time", "end_time", "status")


def upgraded(path: Path, role: schema.Role = "teacher") -> list[str]:
    engine = open_database(f"sqlite:///{path}")
    try:
        return schema.upgrade(engine, role)
    finally:
        engine.dispose()


def index_columns(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(
            connection.execute(
                "SELECT m.tbl_name, group_concat(i.name) FROM sqlite_master AS m, pragma_index_info(m.name) AS i"
                " WHERE m.type = 'index' GROUP BY m.name"
            )
        )


@pytest.mark.parametrize("role", MODELS)
def test_models_and_migrations_agree(tmp_path: Path, role: schema.Role) -> None:
    """A column, type, key or index of a model that no migration makes is a failure here."""
    path = tmp_path / "rows.db"
    upgraded(path, role)
    assert old.differences(path, MODELS[role]) == []
    assert old.without_default(path, MODELS[role]) in ALLOWED[role]


@pytest.mark.parametrize(("role", "kind", "wal"), KINDS_OF_OLD)
def test_every_kind_of_old_database_comes_up(tmp_path: Path, role: schema.Role, kind: str, wal: bool) -> None:
    """The plan changes no byte and says what the upgrade then does; all old rows stay; a second run does nothing."""
    path = old.build(tmp_path / "it's 100% old.db", OLD[role][kind], wal=wal)
    columns, before, raw = old.columns(path), old.dump(path), path.read_bytes()
    engine = open_database(f"sqlite:///{path}")
    with pytest.raises(Misuse, match=r"behind this program by .* Run `lectern init`"):
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
    assert INDEXES[role] <= index_columns(path)
    with transaction(engine) as connection:
        for upsert in UPSERTS[role] * 2:
            connection.execute(text(upsert))
        assert connection.execute(text(AFTER[role])).scalar() == 1
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
def test_the_old_teacher_goes_on_after_a_rollback(tmp_path: Path, kind: str) -> None:
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
def test_a_newer_database_that_we_cannot_use_is_refused(tmp_path: Path, statements: list[str], why: str) -> None:
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


def test_a_failure_of_any_kind_is_raised_with_the_name_of_the_database(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/teacher.db")
    words = r"teacher\.db: c-1: may not go from \"aired\" to \"placed\""
    with pytest.raises(CallAPerson, match=words), schema.in_words(engine):
        raise ForbiddenMove("c-1", "aired", "placed")
    engine.dispose()


def test_in_memory_too(tmp_path: Path) -> None:
    """A database without a file is upgraded the same way, and the plan is taken back."""
    engine = open_database("sqlite://")
    assert schema.plan(engine, "teacher") == schema.plan(engine, "teacher") == schema.upgrade(engine, "teacher") != []
    schema.check(engine, "teacher")
    engine.dispose()


def test_old_rows_get_defaults_that_make_sense(tmp_path: Path) -> None:
    """A rendition of the old program is ready, tried never; how far a class is, is not known."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["model.py was run"])
    upgraded(path, "streamer")
    with closing(sqlite3.connect(path)) as connection:
        assert set(connection.execute("SELECT state, tries, size_bytes FROM video_list")) == {("ready", 0, None)}
        assert set(connection.execute("SELECT state, released_at FROM class_list")) == {(None, None)}
        assert set(connection.execute("SELECT reserved_bytes, reserved_num FROM dir_info")) == {(0, 0)}
        assert connection.execute("SELECT class_id, institution_id FROM task_list").fetchall()


@pytest.mark.parametrize("kind", ["tasks only", "altered by hand", "model.py was run"])
def test_the_old_streamer_goes_on_after_a_rollback(tmp_path: Path, kind: str) -> None:
    """Its statements, which name the documented columns, work on the upgraded file."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS[kind], wal=True)
    upgraded(path, "streamer")
    task = f"INSERT INTO task_list ({', '.join(OLD_COLUMNS)}, teacher_name, institution_id)"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"{task} VALUES ('c-9', 'u', 'p', 1, '2', 0, 'Li', 'i-7')")
        connection.execute("UPDATE task_list SET status = 2 WHERE class_id = 'c-9'")
        connection.execute("INSERT INTO video_list (id, num_cite, site, update_time) VALUES ('9', 1, '/v/9', 1.5)")
        connection.execute("UPDATE video_list SET num_cite = num_cite - 1 WHERE id = '9'")
        connection.execute("INSERT INTO class_list (class_id, video_id, site) VALUES ('c-9', '9', '/v/9')")
        connection.execute("INSERT INTO dir_info (dir, size, num) VALUES ('/v', 1.5, 1)")
        found = connection.execute(
            "SELECT t.status, v.num_cite, v.tries FROM task_list t JOIN class_list c USING (class_id)"
            " JOIN video_list v ON v.id = c.video_id WHERE t.class_id = 'c-9'"
        )
        assert found.fetchall() == [(2, 0, 0)]
        connection.execute("DELETE FROM task_list WHERE class_id = 'c-9'")
    assert upgraded(path, "streamer") == []


@pytest.mark.parametrize("missing", OLD_COLUMNS)
def test_a_missing_assumed_column_is_refused_in_words(tmp_path: Path, missing: str) -> None:
    """The text names the table, the column and what to type; nothing was changed."""
    names = ", ".join(f"{name} TEXT" for name in OLD_COLUMNS if name != missing)
    path = old.build(tmp_path / "task_list.db", [f"CREATE TABLE task_list ({names})"])
    engine = open_database(f"sqlite:///{path}")
    words = f"task_list.db: task_list: .* no column {missing}; .* alter table task_list add column {missing} "
    for attempt in (schema.plan, schema.check, schema.upgrade):
        with pytest.raises(Misuse, match=words):
            attempt(engine, "streamer")
    engine.dispose()
    assert list(old.columns(path)) == ["task_list"]


def test_doubled_classes_are_left_to_a_person(tmp_path: Path) -> None:
    """A task_list without a key gains a unique index, unless two rows have the same class_id."""
    table = f"CREATE TABLE task_list ({', '.join(OLD_COLUMNS)})"
    rows = "INSERT INTO task_list (class_id) VALUES ('c-1'), (NULL), (NULL)"
    path = old.build(tmp_path / "task_list.db", [table, rows])
    assert "task_list: new unique index on class_id" in upgraded(path, "streamer")
    path = old.build(tmp_path / "doubled.db", [table, rows, "INSERT INTO task_list (class_id) VALUES ('c-1')"])
    with pytest.raises(CallAPerson, match=r"class_id must be unique, but 'c-1' is there more than once"):
        upgraded(path, "streamer")
    assert list(old.columns(path)) == ["task_list"]


def test_a_table_of_ours_without_its_key_is_refused(tmp_path: Path) -> None:
    """No value can be made up for a key or for a column that must have one."""
    path = old.build(tmp_path / "task_list.db", ["CREATE TABLE event_list (id INTEGER PRIMARY KEY, what TEXT)"])
    with pytest.raises(Misuse, match=r"event_list: it is there, but has no column at"):
        upgraded(path, "streamer")


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
    """Whatever the types, the values and a further column are, each old value is there afterwards, to the byte."""
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
