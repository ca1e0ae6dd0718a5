"""Teachers on PostgreSQL: copies that are proved by a restore, and a rollout there and back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import URL, make_url, text

from lectern.db import schema
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout import preflight, redis_keys, takeover
from lectern.rollout.backup import host, nightly, opened, quoted, rows, store, tables
from lectern.rollout.backup.postgres import PostgresServer
from lectern.rollout.files import sha256
from tests.effects.redis_servers import url_of
from tests.rollout.host import Host, a_host
from tests.stage.postgres import Databases, made, postgres_server
from town.ports import free_port

pytestmark = pytest.mark.live


@pytest.fixture
def address(postgresql: Databases) -> URL:
    """An empty database."""
    return make_url(postgresql.fresh()).set(drivername="postgresql+psycopg")


@pytest.fixture
def live(address: URL) -> URL:
    """A database with two tables of 200 rows."""
    with PostgresServer(address).connected() as connection, connection.begin():
        for table in ("a", 'odd "name"'):
            connection.execute(text(f"CREATE TABLE {quoted(table)} (n integer primary key, body bytea)"))
            connection.execute(text(f"INSERT INTO {quoted(table)} SELECT n, '\\x00ff' FROM generate_series(1, 200) n"))
    return address


def execute(url: URL, statement: str) -> None:
    with PostgresServer(url).connected() as connection, connection.begin():
        connection.execute(text(statement))


def names(server: URL) -> set[str]:
    with PostgresServer(server).connected() as connection:
        return set(connection.execute(text("SELECT datname FROM pg_database")).scalars())


def test_a_copy_is_of_one_instant_and_its_restore_has_the_rows_that_were_counted(live: URL, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 1000
        while not stop.is_set():
            number += 1
            with PostgresServer(live).connected() as connection, connection.begin():
                connection.execute(text("INSERT INTO a VALUES (:n)"), {"n": number})
                connection.execute(text('INSERT INTO "odd ""name""" VALUES (:n)'), {"n": number})

    found, folders = PostgresServer(live), [tmp_path / number for number in "012"]
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for folder in folders:
            folder.mkdir()
        copies = [found.copy(folder) for folder in folders]
    finally:
        stop.set()
        writer.join()
    for folder, copied in zip(folders, copies, strict=True):
        assert copied.rows["a"] == copied.rows['odd "name"'] >= 200
        assert copied.sha256 == sha256(folder / copied.file)
        nightly.try_restore(found, copied, folder)
    assert (folders[2] / copies[2].file).stat().st_mode & 0o777 == 0o600
    assert not [name for name in names(live) if name.startswith("lectern_scratch")]


def test_a_copy_that_is_damaged_or_whose_restore_has_other_rows_is_no_backup(live: URL, tmp_path: Path) -> None:
    """Scratch databases of killed processes are dropped a day later."""
    with PostgresServer(live).connected(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE lectern_scratch_1000000_ab"))
        connection.execute(text("CREATE DATABASE lectern_scratch_9999999999_ab"))
    copied = PostgresServer(live).copy(tmp_path)
    other = copied.model_copy(update={"rows": {"a": 201, 'odd "name"': 200}})
    with pytest.raises(CallAPerson, match="other rows"):
        nightly.try_restore(PostgresServer(live), other, tmp_path)
    file = tmp_path / copied.file
    file.write_bytes(file.read_bytes()[: copied.size_bytes * 2 // 3])
    with pytest.raises(CallAPerson, match="pg_restore failed"):
        nightly.try_restore(PostgresServer(live), copied, tmp_path)
    assert {name for name in names(live) if name.startswith("lectern_scratch")} == {"lectern_scratch_9999999999_ab"}
    with PostgresServer(live).connected(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("DROP DATABASE lectern_scratch_9999999999_ab"))


def test_a_user_who_may_make_no_scratch_database_is_told_what_to_type(live: URL, tmp_path: Path) -> None:
    execute(live, "DROP ROLE IF EXISTS poor")
    execute(live, "CREATE ROLE poor LOGIN")
    execute(live, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO poor")
    poor = live.set(username="poor")
    copied = PostgresServer(poor).copy(tmp_path)
    with pytest.raises(Misuse, match="alter role poor createdb"):
        nightly.try_restore(PostgresServer(poor), copied, tmp_path)
    execute(live, "DROP OWNED BY poor")


def test_a_server_that_is_away_is_said_in_words_and_without_the_password(address: URL, tmp_path: Path) -> None:
    """An empty database is none."""
    with pytest.raises(Misuse, match="no such database"):
        nightly.make(PostgresServer(address), "teacher-t", tmp_path)
    away = URL.create("postgresql+psycopg", "lectern", "hidden", "127.0.0.1", 1, "lectern")
    with pytest.raises(TryAgain) as error:
        PostgresServer(away).copy(tmp_path)
    assert "127.0.0.1:1/lectern" in error.value.message
    assert "hidden" not in error.value.message


def test_of_several_servers_that_one_is_copied_and_restored_which_may_write(live: URL, tmp_path: Path) -> None:
    """As a teacher's URL may name them; else there is no backup of any night, and no rollout."""
    places = f"host=127.0.0.1:{free_port()}&host={live.host}:{live.port}"
    url = f"postgresql://{live.username}@/{live.database}?{places}&target_session_attrs=read-write"
    found = store.at(url)
    made = nightly.make(found, "teacher-t", tmp_path)
    execute(live, "DELETE FROM a")
    nightly.restore(found, "teacher-t", made.path)
    with found.reading() as connection:
        assert rows(connection) == made.rows == {"a": 200, 'odd "name"': 200}


def test_a_restore_brings_back_what_was_copied_but_not_under_another_teacher(live: URL, tmp_path: Path) -> None:
    found = store.at(live.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False))
    made = nightly.make(found, "teacher-t", tmp_path)
    copied = made.path / made.file
    execute(live, "UPDATE a SET body = '\\x01' WHERE n = 7")
    execute(live, "DELETE FROM a WHERE n = 8")
    execute(live, "CREATE TABLE newer AS SELECT 1 AS n")
    execute(live, "ALTER TABLE a ADD COLUMN added text")  # by a newer release: the rows stay what they were
    with (
        PostgresServer(live.update_query_dict({"application_name": "teacher2"})).connected(),
        pytest.raises(Misuse, match="teacher2"),
    ):
        found.put_back(copied, made.rows, "root")
    with found.reading() as connection:
        assert rows(connection) == {"a": 199, 'odd "name"': 200, "newer": 1}, "nothing was put back"
    found.put_back(copied, made.rows, "root")
    with found.reading() as connection:
        assert rows(connection) == made.rows == {"a": 200, 'odd "name"': 200}


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Host]:
    with a_host(tmp_path, "teacher") as host:
        yield host


def test_a_teacher_on_postgresql_goes_there_and_back(address: URL, client: redis.Redis, teacher: Host) -> None:
    settings = {"TEACHER_DATABASE_URL": address.render_as_string(hide_password=False)}
    wanted = teacher.wanted(settings, redis_url=url_of(client))
    parsed = teacher.parsed(**wanted)

    teacher.done("open", "--check", wanted=wanted)
    teacher.roll_out(wanted)
    assert teacher.done("verify", wanted=wanted)["state"] == "finished"
    with PostgresServer(address).reading() as connection:
        assert "order_list" in tables(connection)
    assert not (teacher.code / "teacher.db").exists(), "the file of the inventory is not its database"

    execute(address, "INSERT INTO event_list (at, host, what, class_id) VALUES (1, 'h', 'x', 'c-1')")
    second = {**wanted, "version": "2.0.1"}
    teacher.stage_release("2.0.1")
    teacher.roll_out(second)
    execute(address, "INSERT INTO event_list (at, host, what, class_id) VALUES (2, 'h', 'x', 'c-2')")
    refused = teacher.fails("rollback", wanted={**second, "restore_database": True}, code=2)
    assert "RUNBOOK.md, How do I restore the database?" in refused
    teacher.done("rollback", wanted=second)
    teacher.ctl("stop", "all")
    aside = next(parsed.backups_dir.glob("teacher-2.0.1-*.used-*"))
    nightly.restore(PostgresServer(address), "teacher-teacher1", aside / host.SILENT)
    with PostgresServer(address).reading() as connection:
        assert connection.execute(text("SELECT class_id FROM event_list")).scalars().all() == ["c-1"]
    teacher.ctl("start", "all")
    assert teacher.done("verify", wanted=wanted)["state"] == "finished"

    teacher.done("rollback", wanted=wanted)
    assert teacher.tree() == teacher.before
    aside = next(parsed.backups_dir.glob(f"{parsed.id}.used-*"))
    copied = host.read(aside)
    assert copied is not None
    assert not copied.file, "there was nothing in it before the first rollout"


def test_no_transaction_stands_still_while_redis_is_looked_through(
    address: URL, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends one after ten seconds, which many keys take, and the teacher could never be rolled out.

    Until then no other teacher could write.
    """
    url = address.render_as_string(hide_password=False)
    with a_host(tmp_path, "teacher", start=False) as teacher:
        wanted = teacher.parsed({"TEACHER_DATABASE_URL": url}, redis_url=url_of(client))
    with opened(url) as engine:
        schema.upgrade(engine, "teacher")
    states: list[set[str]] = []
    real = redis_keys.slices_of

    def slices_of(*given: Any) -> Any:
        others = "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with PostgresServer(address).connected() as connection:
            states.append(set(connection.execute(text(others)).scalars()))
        return real(*given)

    monkeypatch.setattr(redis_keys, "slices_of", slices_of)
    assert takeover.planned(wanted) == ([], [])
    assert takeover.adopt(wanted) == []
    assert [one & {"idle in transaction"} for one in states] == [set(), set()]


def test_a_database_on_another_port_is_another_one(address: URL, client: redis.Redis, teacher: Host) -> None:
    """As that of a new release of PostgreSQL, beside the old one: what is booked there would stay behind."""
    known = {"redis_url": url_of(client)}
    teacher.roll_out(teacher.wanted({"TEACHER_DATABASE_URL": address.render_as_string(hide_password=False)}, **known))
    columns = "class_id, state, start_time, end_time, payload, received_at, updated_at"
    execute(
        address, f"INSERT INTO order_list ({columns}) VALUES ('c-7', 'ready', 1, {time.time() + 9000}, '{{}}', 1, 1)"
    )
    with postgres_server() as second:
        moved = made(second, str(address.database)).render_as_string(hide_password=False)
        (said,) = preflight.left_behind(teacher.parsed({"TEACHER_DATABASE_URL": moved}, **known))
    assert "'c-7'" in said
