"""A schema upgrade that is killed, disturbed or given a wrong file leaves the database as it was, or done."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from lectern.db import schema
from lectern.db.engine import open_database
from lectern.errors import CallAPerson, Misuse, TryAgain
from tests.effects import old_databases as old

OLD: dict[str, tuple[schema.Role, tuple[str, ...]]] = {
    "teacher, odd": ("teacher", tuple(old.TEACHERS["odd"][:5])),
    "teacher, empty": ("teacher", ()),
    "streamer, model.py was run": ("streamer", tuple(old.STREAMERS["model.py was run"])),
    "streamer, empty": ("streamer", ()),
}
WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
written = 0
while written < 400:
    connection.execute(sys.argv[2], [written + 100])
    written += 1
    print(written, flush=True)
    time.sleep(0.005)
"""


class Struck(BaseException):
    """The end of whoever upgrades."""


def upgraded(path: Path, role: schema.Role, fatal: int = 0) -> int:
    """Upgrade, or break off at the statement number *fatal*; returns how many there were."""
    engine, number = open_database(f"sqlite:///{path}"), 0

    def strike(*_: object) -> None:
        nonlocal number
        number += 1
        if number == fatal:
            raise Struck

    event.listen(engine, "before_cursor_execute", strike)
    try:
        schema.upgrade(engine, role)
    finally:
        engine.dispose()
    return number


@pytest.mark.parametrize("kind", OLD)
def test_broken_off_anywhere_then_run_again_it_is_done(tmp_path: Path, kind: str) -> None:
    """At every statement: the database is as before, so that the next run, whenever it comes, finishes it."""
    role, statements = OLD[kind]
    path = old.build(tmp_path / "old.db", statements)
    columns, before = old.columns(path), old.dump(path)
    whole = Path(shutil.copy(path, tmp_path / "whole.db"))
    number = upgraded(whole, role)
    assert number > 20
    for fatal in range(1, number + 1):
        with pytest.raises(Struck):
            upgraded(path, role, fatal)
        assert (old.columns(path), old.dump(path)) == (columns, before), fatal
    upgraded(path, role)
    assert (old.schema_of(path), old.dump(path)) == (old.schema_of(whole), old.dump(whole))


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
@pytest.mark.parametrize("role", ["teacher", "streamer"])
def test_a_writer_at_work_loses_no_row(tmp_path: Path, role: schema.Role, wal: bool) -> None:
    """The old program inserts every 5 ms while the upgrade runs: all of its rows are there."""
    insert = {
        "teacher": "INSERT INTO video_list (record_id, resolution, status) VALUES (?, '720P', '转码中')",
        "streamer": "INSERT INTO task_list (class_id, teacher_name) VALUES ('w-' || ?, 'Li')",
    }[role]
    count = {"teacher": "video_list WHERE record_id >= 100", "streamer": "task_list WHERE class_id LIKE 'w-%'"}[role]
    kinds = {"teacher": old.PLAIN_TEACHER[:1], "streamer": old.STREAMERS["tasks only"]}
    path = old.build(tmp_path / "old.db", kinds[role], wal=wal)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), insert], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout
        assert writer.stderr
        for _ in range(20):
            assert writer.stdout.readline()
        engine = open_database(f"sqlite:///{path}")
        assert schema.upgrade(engine, role)
        for _ in range(20):
            assert writer.stdout.readline(), writer.stderr.read()
        writer.kill()
        told = 40 + len(writer.stdout.read().split())
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT count(*) FROM {count}").fetchone()[0]
    assert told <= found <= told + 1


@contextmanager
def holder(path: Path) -> Iterator[None]:
    """Another program that has begun to write and does not end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_a_program_that_holds_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bool) -> None:
    """The wait ends in words: what to stop, and that the same command can then be run again."""
    monkeypatch.setattr("lectern.db.engine.BUSY_TIMEOUT_S", 0.3)
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["tasks only"], wal=wal)
    engine = open_database(f"sqlite:///{path}")
    with holder(path):
        assert schema.plan(engine, "streamer")
        with pytest.raises(TryAgain, match=r"task_list.db: another program .* Stop the old program"):
            schema.upgrade(engine, "streamer")
    assert schema.upgrade(engine, "streamer")
    engine.dispose()


def _damaged(path: Path) -> None:
    old.build(path, old.STREAMERS["model.py was run"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO task_list (class_id, teacher_name) VALUES (?, ?)", [(f"c{n}", "x" * 99) for n in range(500)]
        )
    with path.open("r+b") as file:
        file.seek(4096 * 9)
        file.write(b"\xff" * 4096)


def _cut(path: Path) -> None:
    _damaged(path)
    os.truncate(path, 4096 * 3)


FILES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("wget_path=/usr/bin/wget\n" * 99),
    "short text": lambda path: path.write_text("no"),
    "a page overwritten": _damaged,
    "cut": _cut,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    """Text files and corrupt databases are named, said what to do with, and not touched."""
    path = tmp_path / "task_list.db"
    FILES[kind](path)
    raw = path.read_bytes()
    engine = open_database(f"sqlite:///{path}")
    for attempt in (schema.check, schema.plan, schema.upgrade):
        with pytest.raises(
            CallAPerson, match=r"task_list\.db: the file is damaged, or is no .* restore the last backup"
        ):
            attempt(engine, "streamer")
    engine.dispose()
    assert path.read_bytes() == raw


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    """Nothing there: check says so, plan tells all of it and makes nothing. A folder is refused."""
    path = tmp_path / "task_list.db"
    engine = open_database(f"sqlite:///{path}")
    with pytest.raises(Misuse, match=r"no such database. Make it with `lectern init`"):
        schema.check(engine, "streamer")
    planned = schema.plan(engine, "streamer")
    assert list(tmp_path.iterdir()) == []
    assert schema.upgrade(engine, "streamer") == planned
    engine.dispose()
    folder = open_database(f"sqlite:///{tmp_path}")
    with pytest.raises(Misuse, match=r"it is a folder"):
        schema.upgrade(folder, "streamer")


def test_what_a_killed_writer_left_half_done_is_taken_back(tmp_path: Path) -> None:
    """A hot journal stops a reader that may only read: it is rolled back first, and the plan is told."""
    path = old.build(tmp_path / "task_list.db", old.STREAMERS["tasks only"])
    columns, before = old.columns(path), old.dump(path)
    half = "PRAGMA cache_size=1", "BEGIN IMMEDIATE", "DELETE FROM task_list", "CREATE TABLE t AS SELECT zeroblob(99999)"
    script = f"import sqlite3,os\nc=sqlite3.connect({str(path)!r}, isolation_level=None)\n"
    script += "".join(f"c.execute({line!r})\n" for line in half) + "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert path.with_name("task_list.db-journal").stat().st_size > 0
    engine = open_database(f"sqlite:///{path}")
    assert schema.plan(engine, "streamer") == schema.upgrade(engine, "streamer") != []
    engine.dispose()
    assert old.dump(path, columns) == before
