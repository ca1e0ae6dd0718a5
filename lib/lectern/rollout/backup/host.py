"""A backup of a host: of its database, the code folder, the files that the window changes, and what is wanted.

It is made while the old program works; what the window changes is copied once more after the stop, and a rollback
restores that.
"""

import asyncio
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lectern import subprocesses
from lectern.errors import CallAPerson, Misuse
from lectern.i18n import Text, joined, msgid
from lectern.rollout import files
from lectern.rollout.backup import nightly, store
from lectern.rollout.backup.nightly import NightlyBackup
from lectern.rollout.backup.sqlite import Row, SqliteFile
from lectern.rollout.files import sha256
from lectern.rollout.journal import RolloutJournal, locked
from lectern.rollout.result import StepAnswer
from lectern.rollout.spec import WANTED, Spec
from lectern.storage.disk import MANIFEST

CACHES = ("__pycache__", ".cache", ".pytest_cache", ".mypy_cache")
TAR_S = 3600.0
_CHANGED = 1
"""The exit code of tar that says only that a file changed while it was read."""


def archive_size_bytes(folder: Path, left_out: Iterable[Path]) -> int:
    """Size of the archive of *folder* in bytes, found without reading a file."""
    errors = _tar(folder, Path(os.devnull), left_out).errors
    counted = re.search(r"^Total bytes written: (\d+)", errors, re.MULTILINE)
    assert counted is not None  # --totals
    return int(counted[1])


def archive(folder: Path, target: Path, left_out: Iterable[Path]) -> list[str]:
    """Write the live *folder* to *target*, for people, then read it back to its end; raises CallAPerson if that fails.

    Returns the files that changed while they were read: they are in it as they were at some moment.
    """
    files.make_private(target)
    errors = _tar(folder, target, left_out).errors
    files.sync(target)
    try:
        with tarfile.open(target) as tar:
            tar.getmembers()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CallAPerson(
            "{target}: the archive cannot be read back ({error}). Is the disk sound?", target=target, error=error
        ) from error
    return re.findall(r"^tar: \./(.*): file changed as we read it", errors, re.MULTILINE)


def _tar(folder: Path, target: Path, left_out: Iterable[Path]) -> subprocesses.Finished:
    """Archive all of *folder* but caches, sockets, and what is *left_out*."""
    base = folder.absolute()
    out = [f"./{path.relative_to(base)}" for path in map(Path.absolute, left_out) if path.is_relative_to(base)]
    argv = ["tar", "--create", f"--file={target}", f"--directory={folder}", "--totals", "--sort=name"]
    argv += [f"--exclude={name}" for name in CACHES]
    argv += ["--anchored", "--no-wildcards", *(f"--exclude={excluded}" for excluded in out), "."]
    done = asyncio.run(subprocesses.run(argv, timeout_s=TAR_S, env={"LC_ALL": "C"}))
    if done.returncode not in {0, _CHANGED}:
        raise CallAPerson(
            "{target}: {folder} cannot be archived ({last_words}). Nothing was changed.",
            target=target,
            folder=folder,
            last_words=done.last_words,
        )
    return done


class KeptFile(BaseModel):
    """One file as it was: the name of its copy, and its text if it was a link; None if there was no such file."""

    model_config = ConfigDict(frozen=True)

    path: Path
    stored: str | None = None
    link: str | None = None
    owner: files.Owner | None = None


class FilesBefore(BaseModel):
    """The files that the window changes, and the former target of the link."""

    model_config = ConfigDict(frozen=True)

    link: str | None
    files: list[KeptFile]
    folder: Path

    def kept(self, path: Path) -> KeptFile:
        """The copy of *path*; for a path that was not kept, a copy that says that there was no such file."""
        return next((file for file in self.files if file.path == path), KeptFile(path=path))

    def data(self, path: Path) -> bytes | None:
        """The bytes that *path* held; None if there was no such file."""
        stored = self.kept(path).stored
        return None if stored is None else (self.folder / stored).read_bytes()

    def text(self, path: Path) -> str:
        """The text that *path* held; empty if there was no such file. A comment in it may be in any encoding."""
        return (self.data(path) or b"").decode(errors="surrogateescape")


def keep_before(wanted: Spec, folder: Path) -> FilesBefore:
    """Copy into *folder* every file that the window of *wanted* can change."""
    paths = [path for path in (wanted.env_path, wanted.config_path, wanted.conf, *wanted.old_confs) if path is not None]
    files.make_folder(folder)
    copies = []
    for number, path in enumerate(paths):
        kept = KeptFile(path=path, link=files.link_target(path))
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            known = {"stored": f"{number}-{path.name}", "owner": files.Owner.of(path)}
            kept = kept.model_copy(update=known)
            files.write(folder / f"{number}-{path.name}", data, files.PRIVATE)
        copies.append(kept)
    return FilesBefore(link=files.link_target(wanted.current), files=copies, folder=folder)


SILENT = "silent"
"""The folder inside the backup with what was copied after the stop, which a rollback restores."""


class Backup(NightlyBackup):
    """The manifest of a host's backup."""

    before: FilesBefore
    unsteady: Sequence[str] = ()
    """Files of the code folder that changed while they were archived."""


def read(folder: Path) -> Backup | None:
    """The finished backup in *folder*, None if there is none; raises CallAPerson if its manifest is damaged."""
    try:
        backup = Backup.model_validate_json((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CallAPerson("{file}: it cannot be read. Look at the backup by hand.", file=folder / MANIFEST) from error
    return backup.model_copy(update={"before": backup.before.model_copy(update={"folder": folder / "files"})})


def silent(wanted: Spec) -> Backup | None:
    """What was copied after the stop; None if the window has not come that far."""
    return read(wanted.backup_dir / SILENT)


def left_out(wanted: Spec) -> list[Path]:
    """Paths that the archive of the code folder leaves out: the database, which SQLite copies, and the recordings."""
    roots = [*wanted.old_video_roots, *([wanted.video_root] if wanted.video_root else [])]
    return [*store.of(wanted).files, *roots, wanted.root]


def refuse_small_disk(wanted: Spec) -> None:
    """Raise Misuse if the backup would not fit: the code, the database twice (copy and scratch), and some slack."""
    code_bytes = archive_size_bytes(wanted.code_dir, left_out(wanted))
    place = next(path for path in (wanted.rollout_dir, *wanted.rollout_dir.parents) if path.exists())
    freed_bytes = nightly.swept_bytes(wanted.backups_dir, wanted.role)  # of the preflight, which may not sweep itself
    nightly.refuse_small_disk(store.of(wanted), place, "or set another root", code_bytes, freed_bytes)


def make(wanted: Spec, *, check: bool = False, files_only: bool = False) -> StepAnswer:
    """Back up the host while it works; a finished backup of this rollout is never written again.

    It stays as long as the rollout stands. One that stops nothing changes neither code nor database: *files_only*.
    """
    answer, journal = StepAnswer(), RolloutJournal.of(wanted)
    with nullcontext() if check else locked(wanted.rollout_dir):
        _say_what_is_due(wanted, journal, answer, files_only=files_only)
        if check or not answer.changed:
            return answer
        answer.said.clear()
        nightly.sweep(wanted.backups_dir, wanted.role)
        if not files_only:
            refuse_small_disk(wanted)
        if wanted.backup_dir.exists():
            answer.say(Text("An older backup is now {path}.", path=set_aside(wanted.backup_dir, "older")))
        files.make_folder(wanted.backups_dir)
        journal.note(wanted.id, "backup", "begin")
        backup = _build(wanted, wanted.backup_dir, answer, live=True, files_only=files_only)
        journal.note(wanted.id, "backup", "done", {"rows": backup.rows if backup.file else None})
        rows = Text("only settings change") if files_only else Text("there is no database yet")
        if backup.file:
            rows = Text("rows: {rows}", rows=counted_rows(backup))
        answer.say(Text("{path}: backed up and proved; {rows}.", path=wanted.backup_dir, rows=rows))
        if backup.unsteady:
            names = ", ".join(backup.unsteady[:10])
            answer.say(Text("Written to while they were archived: {names}.", names=names))
        answer.more["backup"] = str(wanted.backup_dir)
        answer.say(*_prune(wanted, journal))
    return answer


def _say_what_is_due(wanted: Spec, journal: RolloutJournal, answer: StepAnswer, *, files_only: bool) -> None:
    state = journal.state(wanted.id)
    backup = read(wanted.backup_dir)
    used = any(note.id == wanted.id and note.step == "window" for note in journal.notes())
    if backup is not None and (state in {"half", "finished"} or not used):
        text = msgid("{path}: the backup is there, made {made_at:moment}.")
        answer.say(Text(text, path=wanted.backup_dir, made_at=backup.made_at))
    elif state in {"half", "finished"}:
        raise CallAPerson(
            "{backup_dir}: the window of this rollout was begun, and its backup is gone. Nothing was changed. Find "
            "the backup (ls {backups_dir}) before anything else.",
            backup_dir=wanted.backup_dir,
            backups_dir=wanted.backups_dir,
        )
    else:
        answer.changed = True
        text = msgid("{path}: the code folder and {database} would be backed up.")
        text = msgid("{path}: the files of the settings would be backed up.") if files_only else text
        answer.say(Text(text, path=wanted.backup_dir, database=store.of(wanted).shown))


def counted_rows(backup: NightlyBackup) -> str:
    """The rows of the copy, by table, in words."""
    counted = [Text("{n} in {table}", n=number, table=table) for table, number in backup.rows.items()]
    return joined(counted, msgid("{first}, {second}")) or Text("none")


def copy_in_silence(wanted: Spec, *, files_only: bool = False) -> Backup:
    """Copy what the window is about to change, a copy from before is replaced; *files_only* if nothing is stopped."""
    target = wanted.backup_dir / SILENT
    if target.exists():
        shutil.rmtree(target)
    return _build(wanted, target, StepAnswer(), live=False, files_only=files_only)


def _build(wanted: Spec, target: Path, answer: StepAnswer, *, live: bool, files_only: bool = False) -> Backup:
    database, copied, unsteady = store.of(wanted), None, list[str]()
    with nightly.begun(target) as part:
        if database.exists() and not files_only:
            with answer.timed("1 copy the database"):
                copied = nightly.proved(database, part) if live else database.copy(part)
        if live and not files_only:
            with answer.timed("1 archive the code folder"):
                unsteady = archive(wanted.code_dir, part / "code.tar", left_out(wanted))
        if live:
            files.write_json(part / WANTED, wanted.model_dump(mode="json"))
        backup = Backup(
            name=f"{wanted.role}-{wanted.name}",
            folder=str(target),
            database=database.shown,
            version=wanted.version,
            made_at=time.time(),
            before=keep_before(wanted, part / "files"),
            unsteady=unsteady,
            **(copied.model_dump() if copied else {}),
        )
        return nightly.finished(backup, part)


def set_aside(folder: Path, why: str) -> Path:
    """Rename the backup in *folder*, with a time, so that nobody takes it for the present one; returns the new path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = files.free(folder.with_name(f"{folder.name}.{why}-{stamp}"))
    folder.rename(target)
    files.sync(folder.parent)
    return target


def _prune(wanted: Spec, journal: RolloutJournal) -> list[str]:
    """Delete the oldest backups beyond `keep`, except those of rollouts that can still be rolled back; says which.

    One whose manifest is damaged stays, and is named: it is no fault of the backup that was just made. A file that a
    person has put there is no backup.
    """
    history, folder = journal.history(), wanted.backups_dir
    dated: list[tuple[float, Path]] = []
    damaged: list[str] = []
    for path in folder.iterdir():
        try:
            backup = read(path)
        except CallAPerson as error:
            damaged.append(error.message)
        else:
            dated += [(backup.made_at, path)] if backup is not None else []
    needed = {wanted.id, history.half, *history.standing}
    newest = [path for _, path in sorted(dated, reverse=True)]
    gone = nightly.prune(newest, wanted.keep, needed)
    return [*damaged, *(Text("Took away the old backup {name}.", name=name) for name in gone)]


def restorable(wanted: Spec) -> SqliteFile:
    """The database of *wanted*; raises Misuse for one on a server, where others may work in it."""
    database = store.of(wanted)
    if isinstance(database, SqliteFile):
        return database
    raise Misuse(
        "{shown}: restore_database restores SQLite files only. Nothing was changed. Roll back without it; then "
        "read RUNBOOK.md, How do I restore the database?",
        shown=database.shown,
    )


def refuse_unrestorable(wanted: Spec, copied: Backup) -> None:
    """Raise, before a stop, CallAPerson if the database's copy is another by now, Misuse if a restore lacks room."""
    database = restorable(wanted)
    copied.whole_in(wanted.backup_dir / SILENT)
    nightly.refuse_small_disk(database, database.file.parent, "or roll back without restore_database")


def restore(wanted: Spec, copied: Backup) -> list[str]:
    """Keep what was written since the copy as JSON, then put the copy in the database's place; returns sentences."""
    folder, database = wanted.backup_dir, restorable(wanted)
    file = copied.whole_in(folder / SILENT)
    sentences: list[str] = []
    if database.exists():
        # This also brings into the file what a killed program has only written beside it: else it would be overlooked.
        database.refuse_company()
        if file is not None and copied.sha256 == sha256(database.file):
            return [Text("{database}: it is the copy already.", database=database.shown)]
        target = files.free(folder / "rows-since.json")
        try:
            number = _keep(database.rows_since(file), target)
            # The backup's folder is renamed at the end, and the last sentence of the answer has its new name.
            text = msgid("{file} in the backup: {n:,} rows written since the copy.")
            sentences.append(Text(text, file=target.name, n=number))
        except CallAPerson:  # a damaged database is what a restore is for
            text = msgid("{database}: what was written since the copy cannot be read; it is kept whole as {aside}.")
            sentences.append(Text(text, database=database.shown, aside=database.keep_aside()))
    if file is None:
        database.clear()
        return [*sentences, Text("{database}: taken away, as there was none.", database=database.shown)]
    database.put_back(file, copied.rows, wanted.user)
    return [*sentences, Text("{database}: restored from {file}.", database=database.shown, file=file)]


def _keep(since: Iterator[tuple[str, Row]], target: Path) -> int:
    """Write each row below its table, as it comes; returns how many there are."""
    number = 0
    with files.replaced(target) as part, part.open("w", encoding="utf-8") as file:
        file.write("{")
        for at, (table, changed) in enumerate(groupby(since, lambda pair: pair[0])):
            file.write(f"{',' if at else ''}\n {json.dumps(table, ensure_ascii=False)}: [")
            for row, (_, values) in enumerate(changed):
                file.write(f"{',' if row else ''}\n  {json.dumps(values, ensure_ascii=False, default=str)}")
                number += 1
            file.write("\n ]")
        file.write("\n}\n")
        file.flush()
        files.sync(part)
    return number
