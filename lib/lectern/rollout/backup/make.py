"""The proved backup of a host: made while the old program works; what the window changes is copied after the stop."""

import shutil
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lectern.errors import CallAPerson, Misuse
from lectern.rollout.answer import Answer
from lectern.rollout.backup import archive, before, store
from lectern.rollout.backup.archive import Archive
from lectern.rollout.backup.before import Before
from lectern.rollout.backup.copies import Copy
from lectern.rollout.host import durable
from lectern.rollout.journal import Journal, locked
from lectern.rollout.wanted import Wanted

MANIFEST = "manifest.json"
WANTED = "wanted.json"
SILENT = "silent"
"""The folder inside the backup with what was copied after the stop, which a rollback restores."""
SLACK_BYTES = 64 << 20


class Backup(BaseModel):
    """The manifest of a finished backup, which is written last."""

    model_config = ConfigDict(frozen=True)

    id: str
    role: str
    name: str
    version: str
    made_at: float
    database: Copy | None
    before: Before
    code: Archive | None = None

    def database_in(self, folder: Path) -> Path | None:
        """The path of the database's copy in *folder*; None if there was no database."""
        return None if self.database is None else folder / self.database.file


def read(folder: Path) -> Backup | None:
    """The finished backup in *folder*, None if there is none; raises CallAPerson if its manifest is damaged."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        found = Backup.model_validate_json(text)
    except ValueError as error:
        raise CallAPerson(f"{folder / MANIFEST}: it cannot be read. Look at the backup by hand.") from error
    return found.model_copy(update={"before": found.before.model_copy(update={"folder": folder / "files"})})


def silent(wanted: Wanted) -> Backup | None:
    """What was copied after the stop; None if the window has not come that far."""
    return read(wanted.backup_dir / SILENT)


def left_out(wanted: Wanted) -> list[Path]:
    """Paths that the archive of the code folder leaves out: the database, which SQLite copies, and the recordings."""
    roots = [*wanted.old_video_roots, *([wanted.video_root] if wanted.video_root else [])]
    return [*store.of(wanted).files, *roots, wanted.root]


def refuse_small_disk(wanted: Wanted) -> None:
    """Raise Misuse if the backup would not fit: the code, the database twice (copy and scratch), and some slack."""
    code = archive.size_bytes(wanted.code_dir, left_out(wanted))
    size = store.of(wanted).needs_bytes
    needed = code + 2 * size + SLACK_BYTES
    place = next(one for one in (wanted.rollout_dir, *wanted.rollout_dir.parents) if one.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise Misuse(
            f"{place}: the backup needs {_megabytes(needed)} ({_megabytes(code)} of code, twice {_megabytes(size)} of "
            f"database, {_megabytes(SLACK_BYTES)} of slack), and {_megabytes(free)} are free. Free some (du -xh "
            f"{place} | sort -h | tail), or set another root."
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def make(wanted: Wanted, *, check: bool = False) -> Answer:
    """Back up the host while it works; a finished backup of this rollout is never written again."""
    answer = Answer()
    if check:
        _say_what_is_due(wanted, Journal.of(wanted), answer)
        return answer
    with locked(wanted.rollout_dir):
        journal = Journal.of(wanted)
        _say_what_is_due(wanted, journal, answer)
        if not answer.changed:
            return answer
        answer.said.clear()
        refuse_small_disk(wanted)
        if wanted.backup_dir.exists():
            answer.say(f"An older backup is now {set_aside(wanted.backup_dir, 'older')}.")
        durable.make_folder(wanted.backups_dir)
        journal.note(wanted.id, "backup", "begin")
        made = _build(wanted, wanted.backup_dir, answer, live=True)
        journal.note(wanted.id, "backup", "done", {"rows": made.database.rows if made.database else None})
        _say_what_was_made(wanted, made, answer)
        answer.say(*(f"Took away the old backup {name}." for name in _prune(wanted, journal)))
    return answer


def _say_what_is_due(wanted: Wanted, journal: Journal, answer: Answer) -> None:
    state = journal.state(wanted.id)
    found = read(wanted.backup_dir)
    used = any(note.id == wanted.id and note.step == "window" for note in journal.notes())
    if found is not None and (state in {"half", "finished"} or not used):
        answer.say(f"{wanted.backup_dir}: the backup is there, made {_at(found.made_at)}.")
    elif state in {"half", "finished"}:
        raise CallAPerson(
            f"{wanted.backup_dir}: the window of this rollout was begun, and its backup is gone. Nothing was changed. "
            f"Find the backup (ls {wanted.backups_dir}) before anything else."
        )
    else:
        answer.changed = True
        answer.say(f"{wanted.backup_dir}: the code folder and {store.of(wanted).shown} would be backed up.")


def _say_what_was_made(wanted: Wanted, made: Backup, answer: Answer) -> None:
    rows = "there is no database yet" if made.database is None else f"rows: {counted_rows(made.database)}"
    answer.say(f"{wanted.backup_dir}: backed up and proved; {rows}.")
    if made.code is not None and made.code.unsteady:
        answer.say(f"Written to while they were archived: {', '.join(made.code.unsteady[:10])}.")
    answer.more["backup"] = str(wanted.backup_dir)


def counted_rows(copied: Copy) -> str:
    """The rows of a copy, by table, in words."""
    return ", ".join(f"{number} in {table}" for table, number in copied.rows.items()) or "none"


def copy_in_silence(wanted: Wanted) -> Backup:
    """Copy, after the stop, what the window is about to change; a copy from before is replaced."""
    target = wanted.backup_dir / SILENT
    if target.exists():
        shutil.rmtree(target)
    return _build(wanted, target, Answer(), live=False)


def _build(wanted: Wanted, target: Path, answer: Answer, *, live: bool) -> Backup:
    part = target.with_name(f"{target.name}.part")
    if part.exists():
        shutil.rmtree(part)
    durable.make_folder(part)
    copied, found = None, store.of(wanted)
    if found.exists():
        with answer.timed("1 copy the database"):
            copied = found.copy(part)
            if live:
                found.try_restore(copied, part)
    code = None
    if live:
        with answer.timed("1 archive the code folder"):
            code = archive.make(wanted.code_dir, part / "code.tar", left_out(wanted))
        durable.write_json(part / WANTED, wanted.model_dump(mode="json"))
    made = Backup(
        id=wanted.id,
        role=wanted.role,
        name=wanted.name,
        version=wanted.version,
        made_at=time.time(),
        database=copied,
        before=before.keep(wanted, part / "files"),
        code=code,
    )
    durable.write_json(part / MANIFEST, made.model_dump(mode="json"))
    durable.sync_folder(part)
    part.rename(target)
    durable.sync_folder(target.parent)
    written = read(target)
    assert written is not None  # it was just renamed to this folder
    return written


def set_aside(folder: Path, why: str) -> Path:
    """Rename the backup in *folder*, with a time, so that nobody takes it for the present one; returns the new path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = durable.free(folder.with_name(f"{folder.name}.{why}-{stamp}"))
    folder.rename(target)
    durable.sync_folder(folder.parent)
    return target


def _prune(wanted: Wanted, journal: Journal) -> list[str]:
    """Delete the oldest backups beyond `keep`, except those of rollouts that can still be rolled back."""
    history = journal.history()
    needed = {wanted.id, history.half, *history.standing}
    made = sorted(
        ((found.made_at, folder) for folder in wanted.backups_dir.iterdir() if (found := read(folder)) is not None),
        reverse=True,
    )
    gone = [folder for _, folder in made[wanted.keep :] if folder.name not in needed]
    for half in wanted.backups_dir.glob("*.part"):
        shutil.rmtree(half)  # a crash left it; this backup has already been renamed
    for folder in gone:
        (folder / MANIFEST).unlink()  # without a manifest it is no backup any more
        shutil.rmtree(folder)
    return [folder.name for folder in gone]


def _at(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))
