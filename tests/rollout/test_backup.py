"""The backup is proved before it is called one, and a finished one is never written again."""

import errno
import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lectern.db import engine as db_engine
from lectern.db import schema
from lectern.db.engine import open_database
from lectern.errors import CallAPerson, Misuse
from lectern.rollout import files, release_link, rollback, takeover
from lectern.rollout.backup import host as backup_host
from lectern.rollout.backup import nightly, rows, sqlite
from lectern.rollout.backup.sqlite import SqliteFile
from lectern.rollout.files import sha256
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import StepAnswer
from lectern.rollout.spec import Spec
from lectern.rollout.steps import StepWork
from lectern.rollout.supervisord import Supervisord
from lectern.storage import disk
from tests.rollout.host import Host, classes


@pytest.fixture
def wanted(host: Host) -> Spec:
    return host.parsed()


def test_a_backup_holds_the_code_the_database_and_every_file_that_will_change(host: Host) -> None:
    """Nobody else can read it; recordings in the code folder are neither counted nor archived."""
    for folder in ("__pycache__", "videos"):
        (host.code / folder).mkdir()
        with (host.code / folder / "x.pyc").open("wb") as file:
            file.truncate(1 << 40)
    (host.code / "link").symlink_to("model.py")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host.short / "s"))
        (host.short / "s").rename(host.code / "socket")
    os.mkfifo(host.code / "fifo")
    wanted = host.parsed(old_video_roots=[str(host.code / "videos")])
    assert backup_host.archive_size_bytes(wanted.code_dir, backup_host.left_out(wanted)) < 1 << 20
    assert backup_host.make(wanted, check=True).changed
    assert backup_host.make(wanted).changed
    found = backup_host.read(wanted.backup_dir)
    assert found is not None
    with tarfile.open(wanted.backup_dir / "code.tar") as tar:
        code = ["./env_settings.py", "./fifo", "./idc_client_nsp.py", "./link", "./model.py"]
        assert sorted(tar.getnames()) == [".", "./.env", *code]
        content = tar.extractfile("./model.py")
        assert content is not None
        assert content.read() == (host.code / "model.py").read_bytes()
    assert (found.rows, found.sha256) == ({"task_list": 1}, sha256(wanted.backup_dir / "task_list.db"))
    for path in (host.code / ".env", host.programs / "idc_client.conf"):
        assert found.before.data(path) == path.read_bytes()
        assert found.before.kept(path).owner == files.Owner.of(path)
    assert found.before.data(wanted.conf) is None
    for path in [wanted.rollout_dir, *wanted.rollout_dir.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_finished_one_is_never_written_again(wanted: Spec) -> None:
    backup_host.make(wanted)
    before = {path: path.stat().st_mtime_ns for path in wanted.backup_dir.rglob("*")}
    wanted.database.write_bytes(b"")
    answer = backup_host.make(wanted)
    assert not answer.changed
    assert {path: path.stat().st_mtime_ns for path in wanted.backup_dir.rglob("*")} == before


def test_what_a_crash_left_half_is_no_backup(wanted: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.write_json

    def dies(path: Path, value: object) -> None:
        if path.name == disk.MANIFEST:
            raise KeyboardInterrupt
        real(path, value)

    monkeypatch.setattr(files, "write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        backup_host.make(wanted)
    assert backup_host.read(wanted.backup_dir) is None
    monkeypatch.undo()
    assert backup_host.make(wanted).changed
    assert [path.name for path in wanted.backups_dir.iterdir()] == [wanted.id]


def test_a_disk_that_is_too_small_is_refused_in_words(wanted: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1_000_000))
    with pytest.raises(Misuse, match=r"\d+ MB are needed for the copies .* and 1 MB are free"):
        backup_host.make(wanted)
    assert not wanted.backups_dir.exists()


def test_a_backup_that_fails_leaves_no_half_that_would_take_the_room_of_the_next_try(
    wanted: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backup_host, "archive", full)
    with pytest.raises(OSError, match="No space left on device"):
        backup_host.make(wanted)
    assert [*wanted.backups_dir.iterdir()] == []


def test_the_room_that_a_killed_backup_has_taken_is_there_for_the_next_one(
    wanted: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each later one would be refused until a person comes, already by the preflight, which changes nothing."""
    half = wanted.backups_dir / "streamer-1.9.0-01234567.part"
    half.mkdir(parents=True)
    (half / "code.tar").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(nightly, "SLACK_BYTES", 0)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 0 if half.exists() else 1 << 40))
    backup_host.refuse_small_disk(wanted)
    assert half.exists()
    assert backup_host.make(wanted).changed


def test_old_backups_go_but_never_the_one_that_a_rollback_needs(host: Host) -> None:
    """One whose manifest is damaged is named, stays too, and fails no new one; neither does a file of somebody's."""
    standing = host.parsed(keep=1)
    backup_host.make(standing)
    note = RolloutJournal(standing.rollout_dir / "journal.jsonl", "streamer").note
    note(standing.id, "window", "begin")
    note(standing.id, "committed", "done")
    newest = standing
    for number in range(3):
        newest = host.parsed({"MAX_VIDEO_NUM": str(number)}, keep=1)
        said = backup_host.make(newest).said
        assert {path.name for path in standing.backups_dir.iterdir()} == {standing.id, newest.id}
        assert any("Took away the old backup" in one for one in said) == (number > 0)
    manifest, notes = newest.backup_dir / disk.MANIFEST, newest.backups_dir / "notes.txt"
    notes.touch()
    for number, damage in enumerate((b'{"id": 1}', b"\xff\0")):
        manifest.write_bytes(damage)
        later = host.parsed({"DOWNLOAD_RATE": f"{number}k"}, keep=1)
        said = backup_host.make(later).said
        assert backup_host.read(later.backup_dir) is not None
        assert any(f"{manifest}: it cannot be read" in one for one in said)
    assert manifest.exists()
    assert notes.exists()


def test_a_file_that_changes_while_it_is_read_spoils_nothing_and_is_named(tmp_path: Path) -> None:
    folder, busy = tmp_path / "code", tmp_path / "code/busy.log"
    folder.mkdir()
    (folder / "steady").write_bytes(b"s" * 1000)
    with busy.open("wb") as log:
        log.truncate(64 << 20)
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.001):
            with busy.open("ab") as log:
                log.write(b"a line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = backup_host.archive(folder, tmp_path / "code.tar", [])
    finally:
        over.set()
        writer.join()
    assert found == ["busy.log"]
    with tarfile.open(tmp_path / "code.tar") as tar:
        assert tar.getmember("./steady").size == 1000
        assert tar.getmember("./busy.log").size >= 64 << 20
    with pytest.raises(CallAPerson, match="cannot be archived"):
        backup_host.archive(tmp_path / "nowhere", tmp_path / "code.tar", [])


def test_a_host_without_a_database_has_a_backup_that_says_so(host: Host) -> None:
    wanted = host.parsed(database=str(host.code / "none.db"))
    backup_host.make(wanted)
    found = backup_host.read(wanted.backup_dir)
    assert found is not None
    assert not found.file


def stopped(wanted: Spec) -> backup_host.Backup:
    """What a window copies of the host while all is stopped."""
    backup_host.make(wanted)
    backup_host.copy_in_silence(wanted)
    copied = backup_host.silent(wanted)
    assert copied is not None
    return copied


def test_a_restore_takes_rows_back_that_a_killed_program_has_only_written_beside_the_file(
    wanted: Spec, tmp_path: Path
) -> None:
    """The file alone has the bytes of the copy already; the rows in its log are exported, and gone.

    It is restored where a link leads, and SQLite keeps its log there, too; the link stays.
    """
    data = tmp_path / "disk" / wanted.database.name
    data.parent.mkdir()
    wanted.database.rename(data)
    wanted.database.symlink_to(data)
    with closing(sqlite3.connect(wanted.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    copied = stopped(wanted)
    backup_host.restore(wanted, copied)  # of a first try that was killed before it could say so
    data = as_killed(data, "INSERT INTO task_list (class_id) VALUES ('since')")
    wanted.database.unlink()
    wanted.database.symlink_to(data)
    assert sha256(wanted.database) == copied.sha256
    backup_host.restore(wanted, copied)
    assert (wanted.database.readlink(), classes(data)) == (data, {"c-1"})
    assert [path.name for path in data.parent.iterdir()] == [data.name]
    since = json.loads((wanted.backup_dir / "rows-since-2.json").read_text())
    assert [row["class_id"] for row in since["task_list"]] == ["since"]


def test_a_restore_puts_nothing_in_the_place_of_a_database_that_a_program_has_open(wanted: Spec) -> None:
    """Whoever is outside supervisord would go on writing into the file that is gone."""
    copied = stopped(wanted)
    with closing(sqlite3.connect(wanted.database, isolation_level=None)) as another:
        another.execute("PRAGMA journal_mode=WAL")
        another.execute("INSERT INTO task_list (class_id) VALUES ('since')")
        with pytest.raises(Misuse, match="another program has it open"):
            backup_host.restore(wanted, copied)
        another.execute("INSERT INTO task_list (class_id) VALUES ('later')")
    assert classes(wanted.database) == {"c-1", "since", "later"}


def test_what_keeps_a_restore_from_its_end_is_refused_before_a_rollback_stops_anything(
    wanted: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that was changed, or a disk without room for it and the exported rows: the programs would stay stopped.

    The disk is that of the database, wherever the releases are.
    """
    stopped(wanted)
    asked = wanted.model_copy(update={"restore_database": True})
    rollback.refuse_harm(asked, RolloutJournal.of(asked))
    usage = namedtuple("usage", "total used free")
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage(0, 0, 0) if at == wanted.code_dir else real(at))
    rollback.refuse_harm(wanted, RolloutJournal.of(wanted))
    with pytest.raises(Misuse, match=r"\d+ MB are needed for the copies .* or roll back without restore_database"):
        rollback.refuse_harm(asked, RolloutJournal.of(asked))
    monkeypatch.undo()
    with (wanted.backup_dir / backup_host.SILENT / wanted.database.name).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(CallAPerson, match="not what was copied"):
        rollback.refuse_harm(asked, RolloutJournal.of(asked))


def test_a_database_that_cannot_be_read_is_kept_whole_when_the_copy_takes_its_place(wanted: Spec) -> None:
    """Such a one is what a restore is for; whoever can read more of it finds it beside the copy."""
    copied = stopped(wanted)
    wanted.database.write_bytes(b"no database, and long enough to be taken for one" * 100)
    said = backup_host.restore(wanted, copied)
    assert classes(wanted.database) == {"c-1"}
    (aside,) = wanted.database.parent.glob("*.damaged")
    assert aside.read_bytes().startswith(b"no database")
    assert str(aside) in str(said[0])


def test_a_class_that_was_moved_meanwhile_does_not_come_back_with_the_database(
    host: Host, wanted: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old program would push it beside the streamer that has it now; also if the restore is killed on the way."""
    for name in ("begin_anew", "stop_all", "states"):
        monkeypatch.setattr(Supervisord, name, lambda *_: {})
    for class_id in ("kept", "moved"):
        host.book(class_id, time.time() + 3600, time.time() + 7200)
    stopped(wanted)
    host.write("CREATE TABLE class_list (class_id TEXT PRIMARY KEY, video_id TEXT NOT NULL, site TEXT, state TEXT)")
    host.write("INSERT INTO class_list VALUES ('moved', '6666', NULL, 'cancelled')")
    asked = wanted.model_copy(update={"restore_database": True})
    journal, answer = RolloutJournal.of(wanted), StepAnswer()
    journal.note(wanted.id, "window", "begin", {"states": {}})
    for step in ("copy", "reload"):
        journal.note(wanted.id, step, "done")
        journal.note(wanted.id, step, "begin")

    def dies(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(rollback, "opened", dies)
        with pytest.raises(KeyboardInterrupt):
            rollback.take_back(asked, journal, answer)
    assert "moved" in classes(host.database), "it was killed when the former database was back"
    rollback.take_back(asked, journal, answer)
    assert classes(host.database) == {"c-1", "kept"}
    assert any("1 class taken out of task_list, as cancelled or moved meanwhile: 'moved'" in one for one in answer.said)


def test_supervisors_files_come_back_as_what_they_were(host: Host, wanted: Spec) -> None:
    """A file as a file, though the new program's has its name; a link as a link, though it leads nowhere.

    A real folder stays where it is.
    """
    wanted = host.parsed(old_programs=["idc_client.conf", "gone.conf"])
    available = host.folder / "available.conf"
    (host.programs / "idc_client.conf").rename(available)
    (host.programs / "idc_client.conf").symlink_to(available)
    (host.programs / "gone.conf").symlink_to(host.folder / "nowhere.conf")
    wanted.conf.write_text("; somebody's own\n")
    wanted.conf.chmod(0o640)
    before = {path: files.link_target(path) or path.read_bytes() for path in host.programs.iterdir()}
    copied = stopped(wanted)
    release_link.render_instance(wanted, RolloutJournal.of(wanted))
    wanted.current.mkdir()
    with pytest.raises(CallAPerson, match="it is no link"):
        release_link.apply(wanted)
    wanted.current.rmdir()
    release_link.apply(wanted)
    release_link.declare(wanted)
    assert [path.name for path in host.programs.iterdir()] == [wanted.conf.name]
    release_link.take_back(wanted, copied.before)
    assert {path: files.link_target(path) or path.read_bytes() for path in host.programs.iterdir()} == before
    assert stat.S_IMODE(wanted.conf.stat().st_mode) == 0o640
    assert release_link.is_back(wanted, copied.before)
    assert release_link.take_back(wanted, copied.before) == []


def test_what_somebody_wrote_into_supervisors_files_is_not_lost(wanted: Spec) -> None:
    """That file itself may not stay: supervisord would start both programs."""
    copied = stopped(wanted)
    release_link.render_instance(wanted, RolloutJournal.of(wanted))
    release_link.apply(wanted)
    release_link.declare(wanted)
    (old,) = wanted.old_confs
    wanted.conf.unlink()
    for file in (wanted.conf, old):
        file.write_text("; a person\n")
    said = " ".join(release_link.take_back(wanted, copied.before))
    assert not wanted.conf.exists()
    kept = wanted.backup_dir / f"since-{wanted.conf.name}"
    assert kept.read_text() == old.read_text() == "; a person\n"
    assert kept.name in said
    assert f"{old}: somebody wrote it since" in said


def test_after_a_power_cut_supervisord_starts_no_program_among_files_that_are_half_taken_over(
    host: Host, wanted: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one would put each recording that no row of its own names yet into quarantine, where most are deleted.

    The same holds on the way back, while the files go to their old places.
    """
    declared: list[list[str]] = []

    def look(*_: object) -> list[str]:
        declared.append([path.name for path in host.programs.iterdir()])
        return []

    for step in ("adopt", "undo"):
        monkeypatch.setattr(takeover, step, look)
    monkeypatch.setattr(Supervisord, "begin_anew", look)
    monkeypatch.setattr(Supervisord, "stop_all", lambda _: None)
    monkeypatch.setattr(Supervisord, "states", lambda _: {})
    journal, answer = RolloutJournal.of(wanted), StepAnswer()
    stopped(wanted)
    release_link.render_instance(wanted, journal)
    journal.note(wanted.id, "window", "begin", {"states": {}})
    for step in ("switch", "adopt", "reload"):
        journal.note(wanted.id, step, "begin")
        getattr(StepWork(wanted, journal), step)(answer)
    rollback.take_back(wanted, journal, answer)
    new, (old,) = wanted.conf.name, (conf.name for conf in wanted.old_confs)
    assert declared == [[], [new], [], [old]]


# -- the database in it, whoever writes to it, and whatever crash it comes from ----------------------------------------

WRITER = """
import sqlite3, sys, time
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
    time.sleep(0.002)  # with a rollback journal, SQLite gives readers no turn against one who never pauses
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
    """The database, while another process writes to it again and again."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(live), request.param], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        yield live
        process.kill()


def test_a_copy_of_a_live_database_is_one_instant_of_it(writer: Path, tmp_path: Path) -> None:
    for _ in range(3):
        copied = SqliteFile(writer).copy(tmp_path)
        assert copied.rows["a"] == copied.rows["b"]
        assert copied.rows["a"] >= 199 + 1
        nightly.try_restore(SqliteFile(writer), copied, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"live", writer.name}


def as_killed(live: Path, *statements: str) -> Path:
    """The files as a writer that is killed behind *statements* leaves them."""
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        for statement in ("PRAGMA cache_size=2", *statements):
            connection.execute(statement)
        return Path(shutil.copytree(live.parent, live.parent.with_name("killed"))) / live.name


def test_a_database_whose_writer_was_killed_is_copied_as_it_was_before_transaction(live: Path, tmp_path: Path) -> None:
    """Over what an earlier try has left."""
    changes = (f"UPDATE {table} SET n = n + 1000000, filler = randomblob(3000)" for table in ("a", "b"))
    killed = as_killed(live, "PRAGMA journal_mode=DELETE", "BEGIN IMMEDIATE", *changes)
    assert killed.with_name(f"{live.name}-journal").stat().st_size > 0, "the journal must be hot"
    (tmp_path / live.name).write_bytes(b"half a copy")
    SqliteFile(killed).copy(tmp_path)
    with closing(sqlite3.connect(tmp_path / live.name)) as connection:
        assert connection.execute("SELECT max(n) FROM a").fetchone()[0] < 0
        assert connection.execute("SELECT max(n) FROM b").fetchone()[0] < 0


def test_rows_in_the_wal_of_a_killed_writer_are_copied_and_not_played_into_a_restored_file(
    live: Path, tmp_path: Path
) -> None:
    """A look changes nothing of them."""

    def files_there() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in killed.parent.iterdir() if not path.name.endswith("-shm")}

    SqliteFile(live).copy(tmp_path)
    killed = as_killed(live, "PRAGMA journal_mode=WAL", *["INSERT INTO a VALUES (7, zeroblob(2000))"] * 7)
    before = files_there()
    assert before[f"{live.name}-wal"]
    with SqliteFile(killed).reading() as connection:
        assert rows(connection) == {"a": 199 + 7, "b": 199}
    assert files_there() == before
    (tmp_path / "later").mkdir()
    assert SqliteFile(killed).copy(tmp_path / "later").rows == {"a": 199 + 7, "b": 199}
    killed.chmod(0o640)
    SqliteFile(killed).put_back(tmp_path / live.name, {}, "nobody")
    assert sqlite.proved(killed).rows == {"a": 199, "b": 199}
    assert sha256(killed) == sha256(tmp_path / live.name)
    assert [path.name for path in killed.parent.iterdir()] == [live.name]
    assert files.Owner.of(killed).mode == 0o640


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
    nightly.try_restore(found, copied, tmp_path)
    assert opened == [f"sqlite:///{tmp_path}/.restored.db"]
    assert {path.name for path in tmp_path.iterdir()} == {"live", live.name}
    with pytest.raises(CallAPerson, match="other rows"):
        nightly.try_restore(found, copied.model_copy(update={"rows": {**copied.rows, "a": 1}}), tmp_path)


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
