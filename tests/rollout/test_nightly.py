"""`lectern backup`: proved copies while the program writes, pruned, copied off the host, their age told."""

import asyncio
import errno
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from typer.testing import CliRunner, Result

from lectern.cli.app import app
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.rollout.backup import nightly, opened, store
from lectern.rollout.files import sha256
from lectern.storage import disk
from tests.stage.town import Background

pytestmark = pytest.mark.live


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a streamer, with its database."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STREAMER_NAME", "streamer1")
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path / "backups"))
    with closing(sqlite3.connect(folder / "task_list.db")) as connection:
        connection.execute("CREATE TABLE task_list (class_id TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO task_list VALUES (?)", [(f"c-{n}",) for n in range(100)])
        connection.commit()
    return folder / "task_list.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, ["backup", *words])


def told(*words: str) -> dict[str, object]:
    done = typed(*words, "--json")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def misuse(*words: str) -> str:
    """Why it is refused."""
    error = typed(*words).exception
    assert isinstance(error, Misuse), error
    return error.message


def backup(folder: Path, name: str, manifest: dict[str, object] | bytes) -> None:
    """One that was made before."""
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (folder / f"streamer-{name}").mkdir(parents=True)
    (folder / f"streamer-{name}" / disk.MANIFEST).write_bytes(content)


def test_a_backup_has_the_rows_of_one_instant_a_checksum_and_was_restored(live: Path, folder: Path) -> None:
    """People are told sizes and rows; the Prefect database is backed up, too."""
    found = told("streamer")
    path = Path(str(found["folder"]))
    assert path.parent == folder
    assert path.name.startswith("streamer-streamer1-2")
    assert found["rows"] == {"task_list": 100}
    assert found["sha256"] == sha256(path / "task_list.db")
    assert [one.name for one in sorted(path.iterdir())] == ["manifest.json", "task_list.db"], "no scratch file is left"
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "task_list.db").stat().st_mode & 0o777 == 0o600
    said = typed("--database", f"sqlite+aiosqlite:///{live}", "--name", "prefect").stdout
    assert f"{folder}/prefect-2" in said
    assert "100 rows in 1 table" in said
    assert "Its restore was tried." in said


PLACES = ("/a", "scp://a@b/c", "sftp://b/c", "sftp://a:p@b/c", "sftp://a@b", "sftp://a@b/c d")


def test_what_is_no_database_and_no_place_is_refused_before_anything(live: Path, tmp_path: Path) -> None:
    """A folder that cannot hold a backup, one whose name is no text, which no manifest could name, a missing database.

    No password is in the words.
    """
    for given in ("task_list.db", "postgresql://u:secret@there:543x/name"):
        said = misuse("--database", given, "--name", "x")
        assert "--database is no URL. Write sqlite:////folder/file.db" in said
        assert "secret" not in said
    for url in PLACES:
        misuse("streamer", "--to", url)
    misuse("streamer", "--into", os.fsdecode(bytes(tmp_path) + b"/\xb1\xb8"))
    assert [one.name for one in tmp_path.iterdir()] == ["code"]
    (tmp_path / "file").touch()
    for words in (["streamer", "--into", str(tmp_path / "file")], [], ["streamer", "--database", "sqlite:///x"]):
        misuse(*words)
    live.unlink()
    misuse("streamer")


def test_a_folder_that_the_terminal_cannot_show_is_shown_in_numbers(live: Path) -> None:
    """The backup is made: it would be wrong to end with a traceback."""
    lectern = [sys.executable, "-c", "from lectern.cli.app import main; main()"]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    argv = [*lectern, "backup", "streamer", "--into", "备份"]
    done = subprocess.run(argv, env=env, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"/\u5907\u4efd/" in done.stdout


def test_the_oldest_beyond_those_that_are_kept_go_and_what_a_killed_one_left(live: Path, folder: Path) -> None:
    """Nothing goes while another one is under way."""
    for number in range(4):
        backup(folder, f"streamer1-2020010{number}T000000Z", {"name": "streamer-streamer1", "made_at": number})
    (folder / "streamer-streamer1-20200109T000000Z.part").mkdir()
    (folder / "teacher-t-20200101T000000Z").mkdir()
    with nightly.alone(folder):
        busy = typed("streamer", "--keep", "2").exception
    assert isinstance(busy, TryAgain)
    assert "under way" in busy.message
    found = told("streamer", "--keep", "2")
    assert found["pruned"] == [f"streamer-streamer1-2020010{n}T000000Z" for n in (2, 1, 0)]
    assert {one.name for one in folder.iterdir() if one.is_dir()} == {
        Path(str(found["folder"])).name,
        "streamer-streamer1-20200103T000000Z",
        "teacher-t-20200101T000000Z",
    }


def test_the_room_that_a_killed_one_has_taken_is_there_for_the_next_night(
    live: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = folder / "streamer-streamer1-20200109T000000Z.part"
    half.mkdir(parents=True)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 0 if half.exists() else 1 << 40))
    assert told("streamer")["rows"] == {"task_list": 100}


def test_what_is_left_of_a_backup_whose_deletion_was_killed_goes_at_the_next_night(
    live: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database takes its time to go, and its room would never be free again."""
    backup(folder, "streamer1-20200101T000000Z", {"name": "streamer-streamer1", "made_at": 1})
    old = folder / "streamer-streamer1-20200101T000000Z"
    (old / "task_list.db").write_bytes(b"x")

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            nightly.prune([old], 0, ())
    found = told("streamer")
    assert [str(one) for one in folder.iterdir() if one.is_dir()] == [found["folder"]]


def test_the_backup_that_is_made_stays_though_older_ones_look_newer(live: Path, folder: Path) -> None:
    """The clock was ahead for some nights, and is set back: no night may take its own backup away."""
    for number in range(2):
        manifest = {"name": "streamer-streamer1", "made_at": 4e9 + number}
        backup(folder, f"streamer1-2099010{number + 1}T000000Z", manifest)
    found = told("streamer", "--keep", "2")
    assert found["pruned"] == []
    assert Path(str(found["folder"])).is_dir()


def test_a_backup_whose_manifest_is_damaged_is_named_and_hides_no_other(live: Path, folder: Path) -> None:
    """Each later night would fail at it, and the age of the newest one would be told as infinite."""
    for number, content in enumerate([b"", b"[]", b"\xff"]):
        backup(folder, f"streamer1-2026010{number}T000000Z", content)
    said = typed("streamer").stdout
    for number in range(3):
        assert f"streamer-streamer1-2026010{number}T000000Z: its manifest cannot be read" in said
    assert len(disk.backups(folder, "streamer-streamer1")[0]) == 1
    assert disk.backup_ages_s(folder, "streamer-streamer1", time.time())["here"] < 600


def test_a_backup_is_put_back_but_not_another_ones_and_not_a_damaged_one(
    live: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who types it: `/usr/local/bin/lectern` becomes lectern's user, and root's LOGNAME stays.

    Not under a program that is at work: it would go on writing into the file that is gone.
    """
    path = str(told("streamer")["folder"])
    with opened(f"sqlite:///{live}") as engine, engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1 FROM task_list")
        assert "another program has it open" in misuse("streamer", "--restore", path)
    for content in (b"damaged", None):
        live.write_bytes(content) if content else live.unlink()
        assert "is again what it was" in typed("streamer", "--restore", path).stdout
        assert sha256(live) == sha256(Path(path) / "task_list.db")
        monkeypatch.setenv("LOGNAME", "nobody")
    assert live.stat().st_uid == os.geteuid()
    misuse("streamer", "--name", "other", "--restore", path)
    misuse("streamer", "--restore", str(folder))
    (Path(path) / "task_list.db").write_bytes(b"x")
    assert isinstance(typed("streamer", "--restore", path).exception, CallAPerson)


def test_a_restore_for_which_the_disk_has_no_room_changes_nothing_and_takes_no_room(
    live: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left would keep the program, once it is started again, from taking any booking."""
    made = told("streamer")

    def there() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in live.parent.iterdir() if path.is_file()}

    def full(_: Path, to: Path) -> None:
        to.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = there()
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device"):
        nightly.restore(store.at(f"sqlite:///{live}"), "streamer-streamer1", Path(str(made["folder"])))
    assert there() == before


def test_a_backup_of_one_kind_of_database_takes_the_place_of_none_of_the_other(live: Path, folder: Path) -> None:
    """The sentence says what to type instead, and nothing is lost."""
    backup = Path(str(told("streamer")["folder"]))
    before, server = live.read_bytes(), "postgresql://user:hidden@127.0.0.1:1/lectern"
    why = misuse("--database", server, "--name", "streamer-streamer1", "--restore", str(backup))
    assert f"--database sqlite:///{live} --name streamer-streamer1 --restore {backup}" in why
    assert "hidden" not in why

    made = nightly.NightlyBackup.model_validate_json((backup / disk.MANIFEST).read_text())
    (backup / "lectern.dump").write_bytes(b"PGDMP and so on")
    digest = sha256(backup / "lectern.dump")
    dumped = made.model_copy(update={"database": "db1/lectern", "file": "lectern.dump", "sha256": digest})
    (backup / disk.MANIFEST).write_text(dumped.model_dump_json())
    why = misuse("streamer", "--restore", str(backup))
    assert f"--database postgresql://db1/lectern --name streamer-streamer1 --restore {backup}" in why
    assert live.read_bytes() == before


# -- its age ------------------------------------------------------------------------------------------------------


def test_its_age_is_infinite_before_the_first_one_and_nothing_where_no_backups_are_made(folder: Path) -> None:
    assert disk.backup_ages_s(folder, "streamer-s", 100) == {}
    folder.mkdir()
    assert disk.backup_ages_s(folder, "streamer-s", 100) == {"here": math.inf}
    for number, copied_at in ((10, 0), (20, 25), (30, 0)):
        manifest = {"name": "streamer-s", "made_at": number, "copied_at": copied_at}
        backup(folder, f"s-{number}", manifest)
    assert disk.backup_ages_s(folder, "streamer-s", 100) == {"here": 70, "away": 75}
    assert disk.backup_ages_s(folder, "streamer-s", 16) == {"here": 4, "away": 9}, "the clock was set back"
    (folder / "streamer-s-30" / "manifest.json").write_text("{")
    (folder / "streamer-s-40" / "manifest.json").mkdir(parents=True)  # as little to be read as another user's
    assert disk.backup_ages_s(folder, "streamer-s", 100) == {"here": 80, "away": 75}, "what cannot be read is no backup"
    assert [one.name for one in disk.backups(folder, "streamer-s")[1]] == ["streamer-s-30", "streamer-s-40"]


# -- off the host -------------------------------------------------------------------------------------------------


@contextmanager
def sftp_server(root: Path) -> Iterator[nightly.CopyTarget]:
    """A machine that lets one key in, by SFTP only, and sees *root* as its /."""
    keys, background = root.parent / "keys", Background()
    keys.mkdir()
    client, host = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    (keys / "id").touch(mode=0o600)
    client.write_private_key(keys / "id")

    async def serve() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host],
            authorized_client_keys=asyncssh.import_authorized_keys(client.export_public_key().decode()),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(root).encode()),
        )

    async def end() -> None:
        listener.close()
        await listener.wait_closed()
        await asyncio.sleep(0.1)  # its connections close

    listener = background.run(serve())
    try:
        port = listener.get_port()
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {host.export_public_key().decode()}")
        url = f"sftp://backup@127.0.0.1:{port}/lectern"
        yield nightly.CopyTarget.parse(url, keys / "id", keys / "known_hosts")
    finally:
        background.run(end())
        background.close()


def to(target: nightly.CopyTarget) -> tuple[str, ...]:
    return "--to", str(target), "--key", str(target.key), "--known-hosts", str(target.known_hosts)


def test_a_copy_goes_off_the_host_whole_and_what_is_old_or_half_there_goes(live: Path, tmp_path: Path) -> None:
    """However much else is in the folder, into which all hosts of a site copy; names may have blanks here."""
    there, database = tmp_path / "there" / "lectern", live.rename(live.with_name("task list.db"))
    older = [f"streamer-streamer1-2020010{number}T000000Z" for number in range(3)]
    others = {f"teacher-teacher{number}-20200101T000000Z" for number in range(400)}
    others |= {"streamer-streamer10-20200101T000000Z", "streamer-streamer10-20200101T000000Z.part"}
    for name in (*older, *others, f"{older[0]}.part"):
        (there / name).mkdir(parents=True)
        (there / name / "task_list.db").write_bytes(b"x")
    (there / f"{older[1]}.part").mkdir()
    with sftp_server(there.parent) as target:
        words = ("--name", "streamer-streamer1", "--keep", "2", "--into", str(tmp_path / "my [old] backups"))
        found = told("--database", f"sqlite:///{database}", *words, *to(target))
    path = Path(str(found["folder"]))
    assert sha256(there / path.name / database.name) == found["sha256"]
    assert {one.name for one in there.iterdir()} == {path.name, older[2], *others}
    assert (found["failed"], found["copied_to"]) == (None, str(target))
    assert disk.backup_ages_s(path.parent, "streamer-streamer1", time.time())["away"] < 60


def test_an_old_copy_of_which_the_files_are_gone_fails_no_night(live: Path, tmp_path: Path) -> None:
    """The connection was lost before its folder went, too; else no old copy would go any more."""
    there = tmp_path / "there" / "lectern"
    (there / "streamer-streamer1-20200101T000000Z").mkdir(parents=True)
    with sftp_server(there.parent) as target:
        found = told("streamer", "--keep", "1", *to(target))
    assert found["failed"] is None
    assert [one.name for one in there.iterdir()] == [Path(str(found["folder"])).name]


def test_a_copy_for_which_there_is_no_room_gets_no_name(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its files does not arrive."""
    plain = asyncssh.SFTPServer.write

    def full(server: Any, file: Any, offset: int, data: bytes) -> Any:
        if b'"sha256"' in data:
            raise asyncssh.SFTPFailure("No space left on device")
        return plain(server, file, offset, data)

    monkeypatch.setattr(asyncssh.SFTPServer, "write", full)
    there = tmp_path / "there" / "lectern"
    there.mkdir(parents=True)
    with sftp_server(there.parent) as target:
        done = typed("streamer", *to(target))
    assert isinstance(done.exception, LecternError)
    assert "no copy of it is off this host" in done.exception.message
    assert [one.suffix for one in there.iterdir()] == [".part"]


def test_an_unknown_machine_gets_nothing_and_the_backup_is_kept(live: Path, folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    with sftp_server(there) as target:
        assert target.known_hosts is not None
        target.known_hosts.write_text("")
        done = typed("streamer", *to(target))
    assert isinstance(done.exception, LecternError)
    assert "no copy of it is off this host" in done.exception.message
    assert "Host key verification failed" in done.exception.message
    assert [*there.iterdir()] == []
    assert len(disk.backups(folder, "streamer-streamer1")[0]) == 1


def test_a_copy_off_the_host_that_has_never_come_is_missed(live: Path, folder: Path) -> None:
    """Nobody looks at the result of each night: the alert of backups that are too old names this one, too."""
    assert isinstance(typed("streamer", "--to", "sftp://backup@127.0.0.1:1/lectern").exception, LecternError)
    assert disk.backup_ages_s(folder, "streamer-streamer1", time.time())["away"] == math.inf


def test_who_cannot_delete_old_copies_there_hears_that_the_new_one_has_come(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may let nobody delete what was copied to it, so that an intruder cannot."""

    def denied(*_: object) -> None:
        raise asyncssh.SFTPPermissionDenied("nothing is deleted here")

    monkeypatch.setattr(asyncssh.SFTPServer, "remove", denied)
    there = tmp_path / "there" / "lectern"
    (there / "streamer-streamer1-20200101T000000Z").mkdir(parents=True)
    (there / "streamer-streamer1-20200101T000000Z" / "task_list.db").touch()
    with sftp_server(there.parent) as target:
        done = typed("streamer", "--keep", "1", *to(target))
    assert isinstance(done.exception, LecternError)
    assert len([*there.iterdir()]) == 2
    assert "The backup is here and at sftp://127.0.0.1:" in done.exception.message
