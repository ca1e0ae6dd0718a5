"""Builds databases as the old programs left them, and compares what is in them byte for byte."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData

OLD_TEACHER = "CREATE TABLE IF NOT EXISTS video_list (record_id INTEGER, resolution varchar(10), status varchar(20))"
OLD_TASKS = (
    "CREATE TABLE task_list (class_id VARCHAR(250) NOT NULL, video_url VARCHAR(500), push_url VARCHAR(500),"
    " start_time INTEGER, end_time VARCHAR(30), status INTEGER, teacher_name VARCHAR(20) NOT NULL,"
    " PRIMARY KEY (class_id))"
)
ALTERED = "ALTER TABLE task_list ADD COLUMN institution_id VARCHAR(250)"
DOCUMENTED = (
    "CREATE TABLE video_list (id VARCHAR(250) PRIMARY KEY NOT NULL, num_cite INTEGER, site VARCHAR, update_time FLOAT)",
    "CREATE TABLE class_list (class_id VARCHAR(250) PRIMARY KEY NOT NULL, video_id VARCHAR(250) NOT NULL, site TEXT)",
    "CREATE TABLE dir_info (dir VARCHAR(250) NOT NULL, size FLOAT NOT NULL, num INTEGER NOT NULL, PRIMARY KEY (dir))",
)
BOOKED = (
    "INSERT INTO video_list VALUES ('6666_720P', 2, '/home/video/6666', 1764010800.25), ('6666', NULL, NULL, 'never'),"
    " ('%s', 0, '''; drop table', NULL)" % ("x" * 300),
    "INSERT INTO class_list VALUES ('c-1', '6666_720P', NULL), ('课-2 🎓', '6666', '/home/video/\"6666\"')",
    "INSERT INTO dir_info VALUES ('/home/video', 12345678901234.5, 2), ('', 'full', 'two')",
)
TASKS = (
    "INSERT INTO task_list VALUES ('c-1', 'http://a/6666.flv', 'rtmp://b/c-1', 1764010800, '1764013500', 1, 'Li')",
    "INSERT INTO task_list VALUES ('c-''2''', NULL, '', NULL, '2025-11-24 19:00:00', 'done 🎓', '')",
    "INSERT INTO task_list VALUES ('%s', x'00ff', CAST(x'ff00fe' AS TEXT), 'soon', NULL, 3.5, '李')" % ("y" * 300),
)
PLAIN_TEACHER = (OLD_TEACHER, "INSERT INTO video_list VALUES (6666, '720P', 'success'), (7, '480P', '转码中')")
ODD_TEACHER = (
    OLD_TEACHER,
    "ALTER TABLE video_list ADD COLUMN \"odd: 'name'\" BLOB",
    "INSERT INTO video_list VALUES (6666, '720P', 'failed', 1), (6666, '720P', 'success', '1')",
    "INSERT INTO video_list VALUES (6666, '720P', NULL, 2), (8, '240P', 'x', x'00')",
    "INSERT INTO video_list VALUES (7, '480P', 'transcoding', NULL), (7, '480P', '转码失败', NULL)",
    "INSERT INTO video_list VALUES (NULL, '720P', 'success', NULL), (9, NULL, 'success', NULL), (NULL, NULL, NULL, 0)",
    "INSERT INTO video_list VALUES ('abc', '720P', 'x', 5), (3.5, '720P', 'success', 6), (1, x'ff', 'success', 7)",
    "INSERT INTO video_list VALUES (8, '1080P', NULL, '🎓'), (10, '720P', CAST(x'ff' AS TEXT), 10)",
)
STREAMERS: Mapping[str, Sequence[str]] = {
    "tasks only": (OLD_TASKS, *TASKS),
    "altered by hand": (OLD_TASKS, *TASKS, ALTERED, "UPDATE task_list SET institution_id = 'i-7' WHERE status = 1"),
    "model.py was run": (OLD_TASKS, *TASKS, ALTERED, *DOCUMENTED, *BOOKED),
    "model.py on a new streamer": DOCUMENTED,
    "half of our columns": (OLD_TASKS, *TASKS, *DOCUMENTED, *BOOKED, "ALTER TABLE video_list ADD COLUMN etag TEXT"),
    "our index": (OLD_TASKS, "CREATE INDEX mine ON task_list (end_time)"),
}
TEACHERS: Mapping[str, Sequence[str]] = {
    "plain": PLAIN_TEACHER,
    "odd": ODD_TEACHER,
    "no rows": (OLD_TEACHER,),
    "half of our columns": (*PLAIN_TEACHER, "ALTER TABLE video_list ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0"),
    "a unique index by hand": (OLD_TEACHER, "CREATE UNIQUE INDEX u ON video_list (resolution, record_id)"),
    "a key by hand": (
        "CREATE TABLE video_list (record_id INT, resolution TEXT, status TEXT, PRIMARY KEY (record_id, resolution))",
    ),
    "rows set aside before": (
        *ODD_TEACHER,
        "CREATE TABLE video_list_set_aside (record_id INTEGER, set_aside_reason TEXT)",
        "INSERT INTO video_list_set_aside VALUES (5, 'by hand')",
    ),
}


def build(path: Path, statements: Iterable[str], *, wal: bool = False) -> Path:
    """A database at *path* made by *statements*, or changed by them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)
    return path


def rows(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What *query* finds; bytes that are no text are signs in it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        return connection.execute(query, values).fetchall()


Columns = Mapping[str, Sequence[str]]


def columns(path: Path) -> dict[str, list[str]]:
    """The tables of a database and their columns."""
    tables = rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: [one for (one,) in rows(path, "SELECT name FROM pragma_table_xinfo(?)", name)] for (name,) in tables}


def dump(path: Path, wanted: Columns | None = None) -> dict[str, list[tuple[object, ...]]]:
    """Every value of the *wanted* columns with its type, to the byte; rows in an order of their own."""
    quoted = {
        table: ", ".join(
            f"typeof({name}), CAST({name} AS BLOB)" for name in ('"' + n.replace('"', '""') + '"' for n in names)
        )
        for table, names in (wanted or columns(path)).items()
    }
    return {table: sorted(rows(path, f'SELECT {names} FROM "{table}"'), key=repr) for table, names in quoted.items()}


def rows_with_set_aside(path: Path, wanted: Columns) -> dict[str, list[tuple[object, ...]]]:
    """As `dump`, but those of ``video_list`` wherever the migration put them."""
    found = dump(path, wanted)
    if "video_list_set_aside" in columns(path) and "video_list_set_aside" not in wanted:
        aside = dump(path, {"video_list_set_aside": wanted["video_list"]})["video_list_set_aside"]
        found["video_list"] = sorted(found["video_list"] + aside, key=repr)
    return found


def schema_of(path: Path) -> list[tuple[object, ...]]:
    """The statements that made a database's tables and indexes."""
    return sorted(rows(path, "SELECT type, name, tbl_name, sql FROM sqlite_master"), key=repr)


def without_default(path: Path, metadata: MetaData) -> list[str]:
    """Columns that a model fills by a default, must not be NULL, and that an old program's INSERT would leave out."""
    found: list[str] = []
    for table in metadata.tables.values():
        bare = rows(path, 'SELECT name FROM pragma_table_info(?) WHERE "notnull" AND dflt_value IS NULL', table.name)
        found += [f"{table.name}.{c.name}" for c in table.columns if (c.name,) in bare and c.default is not None]
    return found
