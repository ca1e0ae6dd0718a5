"""A proved backup of one database, made at any time, copied off the host; deletes older ones, and restores one."""

import asyncio
import fcntl
import os
import pwd
import re
import shutil
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

from lectern import __version__, subprocesses
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout import files
from lectern.rollout.backup import Copy, rows
from lectern.rollout.backup.postgres import DUMP, PostgresServer
from lectern.rollout.backup.store import Store
from lectern.rollout.files import sha256
from lectern.storage import disk

SLACK_BYTES = 64 << 20


class NightlyBackup(Copy):
    """The manifest of a finished backup, which is written last."""

    name: str
    folder: str
    database: str
    made_at: float
    version: str = __version__
    copy_to: str = ""  # where a copy is wanted off this host
    copied_to: str = ""
    copied_at: float = 0.0

    @property
    def path(self) -> Path:
        """The folder of the backup."""
        return Path(self.folder)

    def whole_in(self, folder: Path) -> Path | None:
        """The database's copy in *folder*, None if there was no database; raises CallAPerson if it is another now."""
        if not self.file:
            return None
        if sha256(folder / self.file) != self.sha256:
            raise CallAPerson(
                "{file}: it is not what was copied (its SHA-256 differs). The database was left as it is.",
                file=folder / self.file,
            )
        return folder / self.file


M = TypeVar("M", bound=NightlyBackup)


def make(database: Store, name: str, into: Path, copy_to: str = "") -> NightlyBackup:
    """Copy the database of *name* into a new folder of *into*, prove the copy, and test its restore.

    Its manifest has *copy_to*, where a copy off this host is wanted, so that one that never comes is missed.
    Raises Misuse if there is no such database or no room, TryAgain if another backup is under way, CallAPerson
    if the database or its copy is damaged.
    """
    if not database.exists():
        raise Misuse(
            "{shown}: there is no such database. Set the database URL, or go to its folder.", shown=database.shown
        )
    sweep(into, name)
    refuse_small_disk(database, into, "keep fewer, or name another folder by --into")
    at = time.time()
    target = into / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}"
    if target.exists():
        raise TryAgain("{target}: a backup of this second is there already.", target=target)
    with begun(target) as part:
        copied = proved(database, part).model_dump()
        made = NightlyBackup(
            name=name, folder=str(target), database=database.shown, made_at=at, copy_to=copy_to, **copied
        )
        return finished(made, part)


def sweep(into: Path, prefix: str) -> None:
    """Delete what killed backups have left half done; the caller holds the lock, so nobody is writing one."""
    for half in into.glob(f"{prefix}-*.part"):
        shutil.rmtree(half)


def swept_bytes(into: Path, prefix: str) -> int:
    """The room that `sweep` would make."""
    taken = 0
    for file in into.glob(f"{prefix}-*.part/**/*"):
        with suppress(FileNotFoundError):  # another backup is under way, and ends now
            taken += file.lstat().st_blocks * 512
    return taken


@contextmanager
def begun(target: Path) -> Iterator[Path]:
    """The new folder in which the backup *target* is made.

    Nothing is left of it if that fails: on a full disk, half a copy would take the room of the programs, and of the
    next try.
    """
    part = target.with_name(f"{target.name}.part")
    if part.exists():
        shutil.rmtree(part)
    files.make_folder(part)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def proved(database: Store, part: Path) -> Copy:
    """Copy the database into *part*, and try its restore."""
    copied = database.copy(part)
    try_restore(database, copied, part)
    return copied


def try_restore(database: Store, copied: Copy, folder: Path) -> None:
    """Restore the copy in *folder* as a scratch database; raises CallAPerson if it has other rows than were copied."""
    with database.restored(folder / copied.file) as connection:
        counted = rows(connection)
    if counted != copied.rows:
        raise CallAPerson(
            "{file}: restored to try it, it has other rows ({counted}) than were copied ({copied}). Does the disk keep "
            "what is written to it? Nothing was changed.",
            file=folder / copied.file,
            counted=counted,
            copied=copied.rows,
        )


def finished(manifest: M, part: Path) -> M:
    """Write the manifest, and give *part* its name; all of it is on the disk when this returns."""
    files.write_json(part / disk.MANIFEST, manifest.model_dump(mode="json"))
    files.sync(part)
    part.rename(manifest.path)
    files.sync(manifest.path.parent)
    return manifest


def restore(database: Store, name: str, folder: Path) -> NightlyBackup:
    """Put the backup of *name* in *folder* in the place of the database, which no program may have open.

    Raises Misuse if it is no backup of *name*, of another kind of database, or somebody uses the database, CallAPerson
    if the backup is damaged.
    """
    try:
        manifest = NightlyBackup.model_validate_json((folder / disk.MANIFEST).read_text(encoding="utf-8"))
    except PermissionError as error:  # of who is not the user of the backups
        raise Misuse("{path}: cannot be read: {reason}", path=folder, reason=error.strerror) from error
    except (OSError, ValueError) as error:
        raise Misuse(
            "{folder}: it holds no finished backup. See what there is: ls {parent}", folder=folder, parent=folder.parent
        ) from error
    if manifest.name != name or not manifest.file:
        raise Misuse(
            "{folder}: it is a backup of {what}, and {name} was named.",
            folder=folder,
            what=manifest.name if manifest.file else "no database",
            name=name,
        )
    manifest.whole_in(folder)
    _refuse_other_kind(database, manifest, folder)
    database.refuse_company()
    # Not by the environment: who became another user has the former name there.
    database.put_back(folder / manifest.file, manifest.rows, pwd.getpwuid(os.geteuid()).pw_name)
    return manifest


def _refuse_other_kind(database: Store, manifest: NightlyBackup, folder: Path) -> None:
    """Raise Misuse if the backup is one of PostgreSQL's and *database* a file, or the other way round."""
    with (folder / manifest.file).open("rb") as copy:
        is_dump = copy.read(len(DUMP)) == DUMP
    if is_dump != isinstance(database, PostgresServer):
        raise Misuse(
            "{folder}: it is a backup of {what}, and {shown} is another kind of database. Nothing was changed. To put "
            "it back where it was, type, with user and password before a server's host: lectern backup --database "
            "{url} --name {name} --restore {folder}",
            folder=folder,
            what=manifest.database,
            shown=database.shown,
            url=f"{'postgresql://' if is_dump else 'sqlite:///'}{manifest.database}",
            name=manifest.name,
        )


def prune(newest: Iterable[Path], keep: int, needed: Container[str | None]) -> list[str]:
    """Of the *newest* backups first, delete those beyond *keep* that are not *needed*; returns their names."""
    gone = [path for path in [*newest][keep:] if path.name not in needed]
    for folder in gone:
        half = folder.rename(folder.with_name(f"{folder.name}.part"))  # if this is killed, `sweep` deletes it
        (half / disk.MANIFEST).unlink()  # without a manifest it is no backup any more
        shutil.rmtree(half)
    return [folder.name for folder in gone]


@contextmanager
def alone(into: Path) -> Iterator[None]:
    """Hold the lock of *into*, so that no other process makes or prunes backups there; raises TryAgain, Misuse."""
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(into / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misuse(
            "{into}: backups cannot be written there ({strerror}). Name another folder by --into, or run this as "
            "the user that owns it.",
            into=into,
            strerror=error.strerror,
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TryAgain("{into}: another backup is under way. Wait until it has ended.", into=into) from error
    finally:
        os.close(lock)


def refuse_small_disk(database: Store, place: Path, remedy: str, more_bytes: int = 0, freed_bytes: int = 0) -> None:
    """Raise Misuse if *place* has no room for the database twice and *more_bytes*.

    A backup has its copy, and tries a restore; a restore exports its rows, and puts a copy beside it. *freed_bytes* of
    what is taken now will be free by then.
    """
    size = database.needs_bytes
    needed, free = more_bytes + 2 * size + SLACK_BYTES, shutil.disk_usage(place).free + freed_bytes
    if free < needed:
        megabytes = {"needed": needed, "code": more_bytes, "size": size, "slack": SLACK_BYTES, "free": free}
        raise Misuse(
            "{place}: {needed:,.0f} MB are needed for the copies ({code:,.0f} MB of code, twice {size:,.0f} MB of "
            "database, {slack:,.0f} MB of slack), and {free:,.0f} MB are free. Free some (du -xh {place} | sort -h | "
            "tail), {remedy}.",
            place=place,
            remedy=remedy,
            **{name: number / 1e6 for name, number in megabytes.items()},
        )


COPY_TIMEOUT_S = 3600.0
CONNECT_TIMEOUT_S = 20
_PLAIN = re.compile(r"[A-Za-z0-9_./@:-]+")
_SFTP_OPTIONS = {"StrictHostKeyChecking": "yes", "PasswordAuthentication": "no", "ForwardAgent": "no"}
_SFTP_OPTIONS |= {"ConnectTimeout": f"{CONNECT_TIMEOUT_S}", "ServerAliveInterval": "15"}


@dataclass(frozen=True)
class CopyTarget:
    """A folder on another machine; *key* and *known_hosts* are files, None means those of the user's own ~/.ssh."""

    user: str
    host: str
    port: int
    folder: str
    key: Path | None = None
    known_hosts: Path | None = None

    @classmethod
    def parse(cls, url: str, key: Path | None = None, known_hosts: Path | None = None) -> Self:
        """The target of ``sftp://user@host:port/folder``; raises Misuse if *url* is something else."""
        try:
            parts = urlsplit(url)
            port = parts.port or 22
        except ValueError:
            parts, port = urlsplit(""), 0
        fits = parts.scheme == "sftp" and parts.hostname and parts.username and not parts.password
        if not fits or not parts.path.strip("/") or not _PLAIN.fullmatch(url):
            raise Misuse(
                "{url!r:.99} is no place to copy backups to. Write sftp://user@host/folder; it needs a key.", url=url
            )
        assert parts.username  # a URL that fits has a user and a host
        assert parts.hostname
        return cls(parts.username, parts.hostname, port, parts.path.rstrip("/"), key, known_hosts)

    def __str__(self) -> str:
        return f"sftp://{self.user}@{self.host}:{self.port}{self.folder}"


def copy_away(made: NightlyBackup, target: CopyTarget) -> NightlyBackup:
    """Copy a backup, and record that in its manifest, which is returned.

    It gets its name there only when all of it has arrived; copies that were broken off, which can fill a disk, are
    deleted first. Raises TryAgain if the machine does not answer, refuses the login, or has no room.
    """
    folder = made.path
    _sftp(target, f"-mkdir {target.folder}")
    for half in _named(made.name, target, r"\.part"):
        _sftp(target, f"-rm {target.folder}/{half}/*", f"rmdir {target.folder}/{half}")
    there = f"{target.folder}/{folder.name}"
    here = re.sub(r'(["\\])', r"\\\1", str(folder))  # quoted: else a blank would end it, and `[` be a pattern
    _sftp(target, f'put -pR "{here}" {there}.part', f"rename {there}.part {there}")
    copied = made.model_copy(update={"copied_to": str(target), "copied_at": time.time()})
    files.write_json(folder / disk.MANIFEST, copied.model_dump(mode="json"))
    return copied


def prune_away(made: NightlyBackup, target: CopyTarget, keep: int) -> list[str]:
    """Take the oldest copies beyond the newest *keep* away, but not that of *made*; returns their names."""
    gone = [one for one in _named(made.name, target)[:-keep] if one != made.path.name]
    for folder_name in gone:
        _sftp(target, f"-rm {target.folder}/{folder_name}/*", f"rmdir {target.folder}/{folder_name}")
    return gone


def _named(name: str, target: CopyTarget, more: str = "") -> list[str]:
    """The folders of *name* there, the oldest first; *more* is a pattern that ends their names."""
    listed = _sftp(target, f"ls -1 {target.folder}").splitlines()
    named = re.compile(rf"{re.escape(name)}-\d{{8}}T\d{{6}}Z{more}")
    return sorted({last for last in (line.strip().rpartition("/")[2] for line in listed) if named.fullmatch(last)})


def _sftp(target: CopyTarget, *commands: str) -> str:
    """Run the commands and return their output; the first that fails ends them, unless it begins with a dash."""
    options: dict[str, object] = {**_SFTP_OPTIONS}
    if target.key is not None:
        options |= {"IdentityFile": str(target.key), "IdentitiesOnly": "yes"}
    if target.known_hosts is not None:
        options |= {"UserKnownHostsFile": str(target.known_hosts)}
    argv = ["sftp", "-b", "-", "-P", str(target.port)]
    argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    lines: list[str] = []  # all of them: of a program's output only the end is kept
    argv.append(f"{target.user}@{target.host}")
    given = "".join(f"{command}\n" for command in commands).encode()
    done = asyncio.run(subprocesses.run(argv, timeout_s=COPY_TIMEOUT_S, stdin=given, on_line=lines.append))
    if done.returncode != 0:
        errors = " ".join(line for line in done.errors.splitlines() if "mkdir" not in line)[-300:].strip()
        raise TryAgain(
            "{target}: {program} failed ({why}).",
            target=target,
            program=commands[-1].partition(" ")[0],
            why=errors or "no reason",
        )
    return "\n".join(lines)
