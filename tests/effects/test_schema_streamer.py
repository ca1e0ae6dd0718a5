"""The streamer's database, old or new, comes up to the code; nothing in it is lost."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from lectern.effects.rows import schema
from lectern.effects.rows.tables.engine import open_database, transaction
from lectern.errors import CallAPerson, Misuse
from lectern.model.tables.streamer import StreamerTable
from tests.effects import old_databases as old
from tests.marks import share

UPSERTS = (
    "INSERT INTO video_list (id, num_cite) VALUES ('new', 1) ON CONFLICT (id) DO UPDATE SET num_cite = 2",
    "INSERT INTO class_list (class_id, video_id) VALUES ('n', 'v') ON CONFLICT (class_id) DO UPDATE SET video_id = 'w'",
    "INSERT INTO dir_info (dir, size, num) VALUES ('/new', 0, 0) ON CONFLICT (dir) DO UPDATE SET num = num + 1",
)
OLD_COLUMNS = ("class_id", "video_url", "push_url", "start_time", "end_time", "status")


def upgraded(path: Path) -> list[str]:
    engine = open_database(f"sqlite:///{path}")
    try:
        return schema.upgrade(engine, "streamer")
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


def test_models_and_migrations_agree(tmp_path: Path) -> None:
    """A column, type, key or index of a model that no migration makes is a failure here."""
    path = tmp_path / "task_list.db"
    upgraded(path)
    assert old.differences(path, StreamerTable.metadata) == []
    assert old.without_default(path, StreamerTable.metadata) in ([], ["dir_info.size", "dir_info.num"])  # documented


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
@pytest.mark.parametrize("kind", old.STREAMERS)
def test_every_kind_of_old_database_comes_up(tmp_path: Path, kind: str, wal: bool) -> None:
    """The plan changes no byte and says what the upgrade then does; all old rows stay; a second run does nothing."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS[kind], wal=wal)
    columns, before, raw = old.columns(path), old.dump(path), path.read_bytes()
    engine = open_database(f"sqlite:///{path}")
    with pytest.raises(Misuse, match=r"behind this program by .* Run `lectern init`"):
        schema.check(engine, "streamer")
    planned = schema.plan(engine, "streamer")
    assert path.read_bytes() == raw
    assert schema.upgrade(engine, "streamer") == planned != []
    assert old.dump(path, columns) == before
    schema.check(engine, "streamer")
    after = old.dump(path)
    assert schema.plan(engine, "streamer") == schema.upgrade(engine, "streamer") == []
    assert old.dump(path) == after
    assert {("video_list", "num_cite,update_time"), ("task_list", "end_time")} <= index_columns(path)
    with transaction(engine) as connection:
        for upsert in UPSERTS * 2:
            connection.execute(text(upsert))
        assert connection.execute(text("SELECT num_cite FROM video_list WHERE id = 'new'")).scalar() == 2
    engine.dispose()


def test_old_rows_get_defaults_that_make_sense(tmp_path: Path) -> None:
    """A rendition of the old program is ready, tried never; how far a class is, is not known."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["model.py was run"])
    upgraded(path)
    with closing(sqlite3.connect(path)) as connection:
        assert set(connection.execute("SELECT state, tries, size_bytes FROM video_list")) == {("ready", 0, None)}
        assert set(connection.execute("SELECT state, released_at FROM class_list")) == {(None, None)}
        assert set(connection.execute("SELECT reserved_bytes, reserved_num FROM dir_info")) == {(0, 0)}
        assert connection.execute("SELECT class_id, institution_id FROM task_list").fetchall()


@pytest.mark.parametrize("kind", ["tasks only", "altered by hand", "model.py was run"])
def test_the_old_program_goes_on_after_a_rollback(tmp_path: Path, kind: str) -> None:
    """Its statements, which name the documented columns, work on the upgraded file."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS[kind], wal=True)
    upgraded(path)
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
    assert upgraded(path) == []


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
    assert "task_list: new unique index on class_id" in upgraded(path)
    path = old.build(tmp_path / "doubled.db", [table, rows, "INSERT INTO task_list (class_id) VALUES ('c-1')"])
    with pytest.raises(CallAPerson, match=r"class_id must be unique, but 'c-1' is there more than once"):
        upgraded(path)
    assert list(old.columns(path)) == ["task_list"]


def test_a_table_of_ours_without_its_key_is_refused(tmp_path: Path) -> None:
    """No value can be made up for a key or for a column that must have one."""
    path = old.build(tmp_path / "task_list.db", ["CREATE TABLE event_list (id INTEGER PRIMARY KEY, what TEXT)"])
    with pytest.raises(Misuse, match=r"event_list: it is there, but has no column at"):
        upgraded(path)


ODD = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=8),
    st.sampled_from(["2025-11-24 19:00", "1e3", "x" * 300, "🎓'\"--", ""]),
)
KINDS = st.sampled_from(["", "INTEGER", "VARCHAR(20)", "FLOAT", "DATETIME", "TEXT COLLATE NOCASE", "NUMERIC(10, 2)"])
NAMES = st.sampled_from(["note", "rowid", "É", "Institution_ID", "a:b", "select", "课"])


@settings(max_examples=share(0.15), deadline=None)
@given(
    kinds=st.tuples(*[KINDS] * 6),
    extra=st.tuples(NAMES, KINDS),
    rows=st.lists(st.tuples(*[ODD] * 6), max_size=8),
    videos=st.lists(st.tuples(ODD, ODD, ODD), max_size=4),
)
def test_no_odd_old_database_loses_a_value(
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
        upgraded(path)
        assert old.dump(path, columns) == before
        assert upgraded(path) == []
