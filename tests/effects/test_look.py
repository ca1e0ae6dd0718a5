"""Who only looks needs no key, makes no file, changes no file, and is told in words what is not there."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lectern.db import schema
from tests import laid
from tests.typed import lectern

LOOKING = (("status",), ("explain", "c-1"), ("cache", "ls"), ("status", "--json"))


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_in_an_empty_folder_it_says_so_and_leaves_nothing_there(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = lectern(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "database is not there" in done.stderr
    assert "lectern init" in done.stderr
    assert "TRANSCODE_SIGN_KEY" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", LOOKING, ids=" ".join)
def test_a_file_without_our_tables_is_named_and_not_changed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for name in ("teacher.db", "task_list.db"):
        with closing(sqlite3.connect(tmp_path / name)) as made:
            made.execute("CREATE TABLE other (x)")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    done = lectern(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "database of this release (no such table: " in done.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_looking_leaves_the_journal_mode_and_no_other_file(tmp_path: Path, mode: str) -> None:
    roles: tuple[tuple[schema.Role, str], ...] = (("teacher", "teacher.db"), ("streamer", "task_list.db"))
    for role, name in roles:
        laid.database(role, tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as made:
            assert made.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0] == mode
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"teacher.db", "task_list.db"}
    for arguments in LOOKING:
        done = lectern(tmp_path, *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        assert "Redis does not answer" in done.stderr or arguments[0] != "status"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_redis_status_tells_what_the_database_knows_and_exits_1(tmp_path: Path) -> None:
    laid.database("teacher", tmp_path / "teacher.db")
    done = lectern(tmp_path, "status")
    assert done.returncode == 1
    assert "inbox       0 messages wait" in done.stdout
    assert "Redis does not answer" in done.stderr


def test_somebody_who_may_only_read_a_database_can_look(tmp_path: Path) -> None:
    source = tmp_path / "made.db"
    laid.database("teacher", source)
    with closing(sqlite3.connect(source)) as made:
        made.execute("PRAGMA journal_mode = delete")
    (tmp_path / "read").mkdir()
    copy = Path(shutil.copy(source, tmp_path / "read" / "teacher.db"))
    copy.chmod(0o400)
    done = lectern(tmp_path, "status", "--json", TEACHER_DATABASE_URL=f"sqlite:///{copy}")
    assert '"inbox": 0' in done.stdout, done.stderr


def _gone() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.live
@pytest.mark.parametrize(
    ("opened", "words"),
    [
        pytest.param(_gone, "", id="reader gone, as with head"),
        pytest.param(
            lambda: os.open("/dev/full", os.O_WRONLY), "could not be written: No space left on device", id="disk full"
        ),
    ],
)
@pytest.mark.parametrize("typed", ["status --json", "book --example", "--version", "report --help"])
def test_what_cannot_be_written_is_an_end_in_words(
    tmp_path: Path, opened: Callable[[], int], words: str, typed: str
) -> None:
    laid.database("teacher", tmp_path / "teacher.db")
    taking = opened()
    done = subprocess.run(
        [sys.executable, "-c", "from lectern.cli import main; main()", *typed.split()],
        env={"PATH": "/usr/bin:/bin", "REDIS_URL": "redis://127.0.0.1:1/0"},
        cwd=tmp_path,
        stdout=taking,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(taking)
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert done.returncode == 1
