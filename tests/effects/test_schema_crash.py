"""A schema upgrade that is killed, disturbed or given a wrong file leaves the database as it was, or done."""

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Engine, event

from lectern.effects.rows import schema
from lectern.effects.rows.tables.engine import open_database
from lectern.errors import CallAPerson, Misuse, TryAgain
from tests.effects import old_databases as old

ROOT = Path(__file__).parents[2]
SOME = 8
"""Kills a kind of which not all are tried."""
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a kill, unlike a power cut, does not ask for a disk
Unit = Literal["statement", "step"]
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


def _watched(path: Path, unit: Unit, tick: Callable[[], None]) -> Engine:
    """An engine that calls *tick* at every statement, or at every 25 steps of SQLite's machine."""
    engine = open_database(f"sqlite:///{path}")

    def watch(connection: sqlite3.Connection, _record: Any) -> None:
        if unit == "statement":
            connection.set_trace_callback(lambda _: tick())
        else:
            connection.set_progress_handler(tick, 25)

    event.listen(engine, "connect", watch, insert=True)
    return engine


def _ticks(path: Path, role: schema.Role, unit: Unit) -> int:
    """Upgrade to the end, and count."""
    ticks: list[None] = []
    engine = _watched(path, unit, lambda: ticks.append(None))
    schema.upgrade(engine, role)
    engine.dispose()
    return len(ticks)


def _killed(path: Path, role: schema.Role, unit: Unit, fatal: int) -> None:
    """A child starts the upgrade and kills itself at the tick *fatal*."""
    child = os.fork()
    if child == 0:
        left = [fatal]

        def tick() -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            schema.upgrade(_watched(path, unit, tick), role)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the kill at {unit} {fatal} never fired"


def matrix(kind: str, unit: Unit, most: int) -> int:
    """Kill the upgrade at each of its ticks (*most* of them, evenly spread), then run it again; returns how many."""
    role, statements = OLD[kind]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        template = old.build(Path(folder) / "old.db", statements)
        columns, before = old.columns(template), old.dump(template)
        whole = Path(shutil.copy(template, Path(folder) / "whole.db"))
        ticks = _ticks(whole, role, unit)
        wanted_schema, wanted_rows = old.schema_of(whole), old.dump(whole)
        fatal = sorted({1 + at * ticks // most for at in range(most)}) if ticks > most else range(1, ticks + 1)
        tried: set[bytes] = set()  # what a kill left, to the byte: the next run need not be tried on the same twice
        gc.collect()
        gc.freeze()  # so that a fork copies less
        for at in fatal:
            path = Path(shutil.copy(template, Path(folder) / f"{at}.db"))
            _killed(path, role, unit, at)
            left = b"|".join(part.read_bytes() for part in sorted(path.parent.glob(f"{path.name}*")) if _lasts(part))
            if left in tried:
                continue
            tried.add(left)
            assert old.columns(path) == columns, at
            assert old.dump(path) == before, at
            engine = open_database(f"sqlite:///{path}")
            assert schema.upgrade(engine, role), at
            engine.dispose()
            assert old.schema_of(path) == wanted_schema, at
            assert old.dump(path) == wanted_rows, at
        return len(fatal)


def _lasts(part: Path) -> bool:
    # The -shm file is made anew by the first who comes after a crash.
    return part.suffix != ".db-shm"


@pytest.fixture(scope="module")
def crashes() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process a kind of database: of their own, because the tests' has threads, which a fork must not."""
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, kind],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            )
            for kind in OLD
        }


@pytest.mark.live
@pytest.mark.parametrize("kind", OLD)
def test_killed_anywhere_then_run_again_it_is_done(crashes: dict[str, subprocess.Popen[str]], kind: str) -> None:
    """SIGKILL at every statement, and inside them: the database is as before, and the next run finishes it."""
    told, wrong = crashes[kind].communicate()
    assert crashes[kind].returncode == 0, wrong
    statements, steps = map(int, told.split())
    assert steps == SOME
    assert statements == SOME if "empty" in kind else statements > 60


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
    monkeypatch.setattr("lectern.effects.rows.tables.engine.BUSY_TIMEOUT_S", 0.3)
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


if __name__ == "__main__":
    every = SOME if "empty" in sys.argv[1] else sys.maxsize
    sys.stdout.write(f"{matrix(sys.argv[1], 'statement', every)} {matrix(sys.argv[1], 'step', SOME)}")
