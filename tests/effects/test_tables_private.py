"""Database files are not for everybody's eyes: they hold URLs with keys and signatures."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from lectern.db import account, schema, timetable
from lectern.db.engine import close_to_others, open_database, reading
from tests.rows import commit


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def written(path: Path) -> dict[str, int]:
    """The modes of the database and of what SQLite keeps beside it, while it is open."""
    engine = open_database(f"sqlite:///{path}")
    close_to_others(engine)
    commit(engine, Connection.execute, text("create table if not exists t (x)"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir() if file.is_file()}
    engine.dispose()
    return modes


def test_a_new_database_is_its_owners_alone(tmp_path: Path) -> None:
    modes = written(tmp_path / "teacher.db")
    assert {"teacher.db", "teacher.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_database_of_the_old_program_is_its_groups_as_before_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "task_list.db"
    path.touch()
    path.chmod(0o664)
    before = path.stat()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/link.db").symlink_to(path)
    written(tmp_path / "beside/link.db")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660, "a link leads to the file that is closed"
    path.chmod(0o664)
    assert set(written(path).values()) == {0o660}
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_ino) == (before.st_uid, before.st_gid, before.st_ino)


def test_a_migration_closes_it_and_who_only_looks_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "teacher.db"
    engine = open_database(f"sqlite:///{path}")
    assert schema.upgrade(engine, "teacher")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    looks = open_database(f"sqlite:///{path}")
    schema.plan(looks, "teacher")
    schema.check(looks, "teacher")
    with reading(looks) as connection:
        timetable.status_of_teacher(connection, 0.0, "teacher")
        account.at_teacher(connection, "teacher", "c-1")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o644}
    looks.dispose()
    schema.upgrade(engine, "teacher")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}
    engine.dispose()
