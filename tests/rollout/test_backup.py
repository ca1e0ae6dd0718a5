"""The backup is proved before it is called one, and a finished one is never written again."""

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
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lectern.errors import CallAPerson, Misuse
from lectern.rollout import files, release_link, rollback
from lectern.rollout.backup import host as backup_host
from lectern.rollout.files import sha256
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.spec import Spec
from lectern.storage import disk
from tests.rollout.host import Host, a_host, classes


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Its programs are not started: what is copied here does not change."""
    with a_host(tmp_path, start=False) as found:
        yield found


@pytest.fixture
def wanted(host: Host) -> Spec:
    return host.parsed()


def test_a_backup_holds_the_code_the_database_and_every_file_that_will_change(host: Host, wanted: Spec) -> None:
    """Nobody else can read it."""
    (host.code / "__pycache__").mkdir()
    (host.code / "__pycache__" / "x.pyc").write_bytes(b"x")
    (host.code / "link").symlink_to("idc_client.py")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host.short / "s"))
        (host.short / "s").rename(host.code / "socket")
    os.mkfifo(host.code / "fifo")
    assert backup_host.make(wanted, check=True).changed
    assert backup_host.make(wanted).changed
    found = backup_host.read(wanted.backup_dir)
    assert found is not None
    assert found.code is not None
    with tarfile.open(wanted.backup_dir / "code.tar") as tar:
        names = [".", "./.env", "./config", "./config/default.json", "./fifo", "./idc_client.py", "./link", "./logs"]
        assert sorted(tar.getnames()) == names
        content = tar.extractfile("./idc_client.py")
        assert content is not None
        assert content.read() == (host.code / "idc_client.py").read_bytes()
    assert found.code.sha256 == sha256(wanted.backup_dir / "code.tar")
    assert found.rows == {"task_list": 1}
    assert found.sha256 == sha256(wanted.backup_dir / "task_list.db")
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
    with pytest.raises(Misuse, match=r"the backup needs \d+ MB .* and 1 MB are free"):
        backup_host.make(wanted)
    assert not wanted.backups_dir.exists()


def test_recordings_in_the_code_folder_are_neither_counted_nor_archived(host: Host) -> None:
    videos = host.code / "videos"
    videos.mkdir()
    with (videos / "6666.flv").open("wb") as file:
        file.truncate(1 << 40)
    wanted = host.parsed(old_video_roots=[str(videos)])
    assert backup_host.archive_size_bytes(wanted.code_dir, backup_host.left_out(wanted)) < 1 << 20
    backup_host.make(wanted)
    with tarfile.open(wanted.backup_dir / "code.tar") as tar:
        assert "./videos" not in tar.getnames()


def test_old_backups_go_but_never_the_one_that_a_rollback_needs(host: Host) -> None:
    standing = host.parsed(keep=1)
    backup_host.make(standing)
    note = RolloutJournal(standing.rollout_dir / "journal.jsonl", "streamer").note
    note(standing.id, "window", "begin")
    note(standing.id, "committed", "done")
    said: list[str] = []
    for number in range(3):
        newest = host.parsed({"MAX_VIDEO_NUM": str(number)}, keep=1)
        said += backup_host.make(newest).said
        left = {path.name for path in standing.backups_dir.iterdir()}
        assert left == {standing.id, newest.id}
    assert any("Took away the old backup" in one for one in said)


def test_an_old_backup_whose_manifest_is_damaged_stays_and_fails_no_new_one(host: Host) -> None:
    old = host.parsed()
    backup_host.make(old)
    manifest = old.backup_dir / disk.MANIFEST
    manifest.write_text('{"id": 1}')
    newest = host.parsed({"MAX_VIDEO_NUM": "7"}, keep=1)
    said = backup_host.make(newest).said
    assert backup_host.read(newest.backup_dir) is not None
    assert manifest.exists()
    assert any(f"{manifest}: it cannot be read" in one for one in said)


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
    assert found.unsteady == ["busy.log"]
    with tarfile.open(tmp_path / "code.tar") as tar:
        assert tar.getmember("./steady").size == 1000
        assert tar.getmember("./busy.log").size >= 64 << 20


def test_a_folder_that_cannot_be_read_calls_a_person(tmp_path: Path) -> None:
    with pytest.raises(CallAPerson, match="cannot be archived"):
        backup_host.archive(tmp_path / "nowhere", tmp_path / "code.tar", [])


def test_a_host_without_a_database_has_a_backup_that_says_so(host: Host) -> None:
    wanted = host.parsed(database=str(host.code / "none.db"))
    backup_host.make(wanted)
    found = backup_host.read(wanted.backup_dir)
    assert found is not None
    assert not found.file


KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("INSERT INTO task_list (class_id) VALUES ('since')")
os.kill(os.getpid(), 9)
"""


def stopped(wanted: Spec) -> backup_host.Backup:
    """What a window copies of the host while all is stopped."""
    backup_host.make(wanted)
    backup_host.copy_in_silence(wanted)
    copied = backup_host.silent(wanted)
    assert copied is not None
    return copied


def test_a_restore_takes_rows_back_that_a_killed_program_has_only_written_beside_the_file(wanted: Spec) -> None:
    """The file alone has the bytes of the copy already; the rows in its log are exported, and gone."""
    with closing(sqlite3.connect(wanted.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    copied = stopped(wanted)
    backup_host.restore(wanted, copied)  # of a first try that was killed before it could say so
    subprocess.run([sys.executable, "-c", KILLED, str(wanted.database)], check=False)
    assert sha256(wanted.database) == copied.sha256
    backup_host.restore(wanted, copied)
    assert classes(wanted.database) == {"c-1"}
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


def test_a_copy_that_was_changed_is_refused_before_a_rollback_stops_anything(wanted: Spec) -> None:
    """Afterwards the programs would stay stopped."""
    stopped(wanted)
    asked = wanted.model_copy(update={"restore_database": True})
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


def test_a_database_that_is_a_link_is_restored_where_the_link_leads(wanted: Spec, tmp_path: Path) -> None:
    """SQLite keeps its log there, too; the link stays."""
    data = tmp_path / "disk" / wanted.database.name
    data.parent.mkdir()
    wanted.database.rename(data)
    wanted.database.symlink_to(data)
    copied = stopped(wanted)
    subprocess.run([sys.executable, "-c", KILLED, str(wanted.database)], check=False)
    backup_host.restore(wanted, copied)
    assert wanted.database.readlink() == data
    assert classes(data) == {"c-1"}
    assert [path.name for path in data.parent.iterdir()] == [data.name]


def test_supervisors_files_come_back_as_what_they_were(host: Host, wanted: Spec) -> None:
    """A file as a file, though the new program's has its name; a link as a link, though it leads nowhere."""
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
    release_link.apply(wanted)
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
