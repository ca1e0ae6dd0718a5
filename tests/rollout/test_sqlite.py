"""Copies of a database are proved, whoever writes to it, and whatever crash it comes from."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lectern.db import engine as db_engine
from lectern.db import schema
from lectern.db.engine import open_database
from lectern.errors import CallAPerson, Misuse
from lectern.rollout import files
from lectern.rollout.backup import rows, sqlite
from lectern.rollout.backup.sqlite import SqliteFile
from lectern.rollout.files import sha256

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
connection.execute("PRAGMA journal_mode=" + sys.argv[2])
number = 0
while True:
    connection.execute("BEGIN IMMEDIATE")
    for table in ("a", "b"):
        connection.execute(f"INSERT INTO {table} VALUES (?, zeroblob(2000))", [number])
    connection.execute("COMMIT")
    number += 1
    print(number, flush=True)
"""
HOT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=DELETE")
connection.execute("PRAGMA cache_size=2")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE a SET n = n + 1000000, filler = randomblob(3000)")
connection.execute("UPDATE b SET n = n + 1000000, filler = randomblob(3000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A database with two tables that always have the same rows."""
    file = tmp_path / "live" / "task list?.db"  # a name that a URI must quote
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        for table in ("a", "b"):
            connection.execute(f"CREATE TABLE {table} (n INTEGER, filler BLOB)")
            connection.executemany(f"INSERT INTO {table} VALUES (?, zeroblob(3000))", [(-n,) for n in range(1, 200)])
        connection.commit()
    return file


@pytest.fixture(params=["WAL", "DELETE"])
def writer(request: pytest.FixtureRequest, live: Path) -> Iterator[Path]:
    """The database, while another process writes to it without a pause."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(live), request.param], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield live
        process.kill()


def write_and_be_killed(file: Path) -> None:
    """Seven rows of each table lie in the WAL of a writer that is gone."""
    code = WRITER.replace("number += 1\n", "number += 1\n    import os; number == 7 and os.kill(os.getpid(), 9)\n")
    subprocess.run([sys.executable, "-c", code, str(file), "WAL"], check=False, capture_output=True)


def test_a_copy_of_a_live_database_is_one_instant_of_it(writer: Path, tmp_path: Path) -> None:
    for _ in range(3):
        copied = SqliteFile(writer).copy(tmp_path)
        assert copied.rows["a"] == copied.rows["b"]
        assert copied.rows["a"] >= 199 + 1
        SqliteFile(writer).try_restore(copied, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"live", writer.name}


def test_a_database_whose_writer_was_killed_is_copied_as_it_was_before_transaction(live: Path, tmp_path: Path) -> None:
    """Over what an earlier try has left."""
    process = subprocess.run([sys.executable, "-c", HOT, str(live)], check=False)
    assert process.returncode == -signal.SIGKILL
    journal = live.with_name(f"{live.name}-journal")
    assert journal.stat().st_size > 0, "the journal must be hot"
    (tmp_path / live.name).write_bytes(b"half a copy")
    SqliteFile(live).copy(tmp_path)
    with closing(sqlite3.connect(tmp_path / live.name)) as connection:
        assert connection.execute("SELECT max(n) FROM a").fetchone()[0] < 0
        assert connection.execute("SELECT max(n) FROM b").fetchone()[0] < 0


def test_what_lies_in_the_wal_of_a_killed_writer_is_in_the_copy_and_stays_there(live: Path, tmp_path: Path) -> None:
    """Also after a look."""
    write_and_be_killed(live)
    assert live.with_name(f"{live.name}-wal").stat().st_size > 0
    before = {path.name: path.read_bytes() for path in live.parent.iterdir() if not path.name.endswith("-shm")}
    with SqliteFile(live).reading() as connection:
        assert rows(connection) == {"a": 199 + 7, "b": 199 + 7}
    after = {path.name: path.read_bytes() for path in live.parent.iterdir() if not path.name.endswith("-shm")}
    assert after == before
    assert SqliteFile(live).copy(tmp_path).rows == {"a": 199 + 7, "b": 199 + 7}


def test_what_is_damaged_or_no_database_is_refused_in_words(live: Path, tmp_path: Path) -> None:
    data = bytearray(live.read_bytes())
    data[4096 * 5 : 4096 * 12] = b"\xff" * 4096 * 7
    live.write_bytes(data)
    with pytest.raises(CallAPerson, match=r"damaged|malformed"):
        SqliteFile(live).copy(tmp_path)
    live.write_text("no database, but long enough to be taken for one" * 100)
    with pytest.raises(CallAPerson, match="SQLite cannot read it"):
        SqliteFile(live).copy(tmp_path)
    with pytest.raises(CallAPerson, match=r"read it \(file is not a database\)"), SqliteFile(live).reading() as look:
        look.exec_driver_sql("SELECT 1 FROM sqlite_master")


def test_a_copy_is_tried_by_a_restore_that_the_program_s_own_engine_opens(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by looking at the same bytes a second time."""
    opened: list[str] = []

    def noted(url: str) -> Engine:
        opened.append(url)
        return open_database(url)

    monkeypatch.setattr(db_engine, "open_database", noted)
    found, copied = SqliteFile(live), SqliteFile(live).copy(tmp_path)
    found.try_restore(copied, tmp_path)
    assert opened == [f"sqlite:///{tmp_path}/.restored.db"]
    assert {path.name for path in tmp_path.iterdir()} == {"live", live.name}
    with pytest.raises(CallAPerson, match="other rows"):
        found.try_restore(copied.model_copy(update={"rows": {**copied.rows, "a": 1}}), tmp_path)


def test_a_restore_does_not_play_the_old_wal_into_the_new_file(live: Path, tmp_path: Path) -> None:
    SqliteFile(live).copy(tmp_path)
    write_and_be_killed(live)
    live.chmod(0o640)
    SqliteFile(live).put_back(tmp_path / live.name, {}, "nobody")
    assert sqlite.proved(live).rows == {"a": 199, "b": 199}
    assert sha256(live) == sha256(tmp_path / live.name)
    assert [path.name for path in live.parent.iterdir()] == [live.name]
    assert files.Owner.of(live).mode == 0o640


def test_the_rows_since_a_copy_are_those_that_a_restore_would_lose(live: Path, tmp_path: Path) -> None:
    """New rows, changed rows, rows of new tables, with columns that were added since; not those that were there."""
    SqliteFile(live).copy(tmp_path)
    with closing(sqlite3.connect(live)) as connection:
        connection.execute("ALTER TABLE a ADD COLUMN institution_id TEXT")
        connection.execute("INSERT INTO a VALUES (7, x'00ff', 'i-7')")
        connection.execute("INSERT INTO a VALUES (NULL, NULL, NULL)")
        connection.execute("UPDATE b SET filler = 'changed' WHERE n = -3")
        connection.execute('CREATE TABLE c ("odd "" name" TEXT)')
        connection.execute("INSERT INTO c VALUES ('x')")
        connection.commit()
    assert [*SqliteFile(live).rows_since(tmp_path / live.name)] == [
        ("a", {"n": 7, "filler": {"base64": "AP8="}, "institution_id": "i-7"}),
        ("a", {"n": None, "filler": None, "institution_id": None}),
        ("b", {"n": -3, "filler": "changed"}),
        ("c", {'odd " name': "x"}),
    ]
    assert len([*SqliteFile(live).rows_since(None)]) == 201 + 199 + 1, "there was no database"


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_look_leaves_nothing_beside_a_database_and_changes_no_byte_of_it(live: Path, mode: str) -> None:
    """Neither does a look at what the migration would change."""
    live = live.rename(live.with_name("task_list.db"))  # the migration takes a URL, which cannot hold each name
    with closing(sqlite3.connect(live)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    before = {path: path.read_bytes() for path in live.parent.iterdir()}
    with SqliteFile(live).reading() as connection:
        assert rows(connection) == {"a": 199, "b": 199}
    assert {path: path.read_bytes() for path in live.parent.iterdir()} == before
    with db_engine.opened(SqliteFile(live).url) as engine:
        assert schema.plan(engine, "streamer")
        with pytest.raises(Misuse, match="the database is behind this program"):
            schema.check(engine, "streamer")
    assert {path: path.read_bytes() for path in live.parent.iterdir()} == before
