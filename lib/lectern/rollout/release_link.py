"""An instance is what one rollout runs; the link `current` and supervisor's files name the one at work."""

import os
import shutil
from pathlib import Path

from lectern.i18n import Text, msgid
from lectern.rollout import env_file, files
from lectern.rollout.backup.host import FilesBefore
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import TextDifference
from lectern.rollout.spec import Spec

SETTINGS, PROGRAM = "settings.env", "program.conf"
_LEADS = msgid("{path}: leads to {target} now.")


def render_instance(wanted: Spec, journal: RolloutJournal) -> None:
    """Write the instance of *wanted*, to which no link points yet; delete those of rollouts that do not stand or run.

    What the journal does not know is somebody else's, and stays. The instance's ``venv`` points to that of the release;
    a program that is called by this path finds the settings beside it.
    """
    for path in (wanted.instance.parent, wanted.instance):
        files.make_folder(path, 0o755)
    files.switch_link(wanted.instance / "venv", f"../../releases/{wanted.version}/venv")
    settings = env_file.edited("", wanted.own)
    files.write(wanted.instance / SETTINGS, settings.encode(), files.Owner.user(wanted.user, 0o600))
    files.write(wanted.instance / PROGRAM, wanted.program_conf.encode(), files.PUBLIC)
    stays = {wanted.id, wanted.current.resolve().name, *journal.history().standing}
    for name in {note.id for note in journal.notes()} - stays:
        if (folder := wanted.instance.parent / name).is_dir():
            shutil.rmtree(folder)


def pending(wanted: Spec) -> list[TextDifference]:
    """The differences that `apply` would make; those of settings are masked."""
    differences: list[TextDifference] = []
    target, now = _target(wanted), files.link_target(wanted.current)
    if now != target:
        differences.append(TextDifference(str(wanted.current), f"{now}\n" if now else "", f"{target}\n"))
    file, new = wanted.instance / SETTINGS, env_file.edited("", wanted.own)
    if env_file.read(file) != new:
        texts = env_file.read(wanted.current / SETTINGS), new
        differences.append(TextDifference(str(file), *(env_file.shown(it, env_file.values(it)) for it in texts)))
    text = wanted.conf.read_text(encoding="utf-8", errors="replace") if wanted.conf.exists() else ""
    if text != wanted.program_conf or files.link_target(wanted.conf) != _program(wanted):
        differences.append(TextDifference(str(wanted.conf), text, wanted.program_conf))
    # An old file can hold secrets (environment=), so only its removal is shown.
    differences += [
        TextDifference(str(old), "in use\n", "kept in the backup\n") for old in wanted.old_confs if old.exists()
    ]
    return differences


def _target(wanted: Spec) -> str:
    return os.path.relpath(wanted.instance, wanted.current.parent)


def _program(wanted: Spec) -> str:
    return str(wanted.current / PROGRAM)


def apply(wanted: Spec) -> list[str]:
    """Point the link to the instance, and remove the old programs' files."""
    sentences: list[str] = []
    if files.link_target(wanted.current) != _target(wanted):
        files.switch_link(wanted.current, _target(wanted))
        sentences.append(Text(_LEADS, path=wanted.current, target=_target(wanted)))
    sentences += [
        Text("{path}: taken out; it is in the backup.", path=old) for old in wanted.old_confs if files.remove(old)
    ]
    return sentences


def declare(wanted: Spec) -> list[str]:
    """Link the new program's file: from now on supervisord starts the program, also after a power cut."""
    if files.link_target(wanted.conf) == _program(wanted):
        return []
    files.remove(wanted.conf)
    files.switch_link(wanted.conf, _program(wanted))
    return [Text(_LEADS, path=wanted.conf, target=_program(wanted))]


def undeclare(wanted: Spec) -> list[str]:
    """Remove the link to the new program's file, so that supervisord starts it no more; another file stays."""
    is_ours = files.link_target(wanted.conf) == _program(wanted)
    return [Text("{path}: taken out.", path=wanted.conf)] if is_ours and files.remove(wanted.conf) else []


def take_back(wanted: Spec, before: FilesBefore) -> list[str]:
    """Restore the link and supervisor's files as they were *before*; what a person has put there since stays."""
    files.sweep(wanted.current, wanted.conf, *wanted.old_confs)
    sentences: list[str] = []
    if files.link_target(wanted.current) != before.link:
        if before.link is None:
            files.remove(wanted.current)
        else:
            files.switch_link(wanted.current, before.link)
        target = before.link or Text("nothing")
        sentences.append(Text("{path}: leads to {target} again.", path=wanted.current, target=target))
    for path in (wanted.conf, *wanted.old_confs):
        if not _is_as_before(path, before):
            sentences += _taken_back(wanted, before, path)
    return sentences


def _taken_back(wanted: Spec, before: FilesBefore, path: Path) -> list[str]:
    """Restore one of supervisor's files, which is not as it was *before*."""
    kept, data = before.kept(path), before.data(path)
    is_foreign = os.path.lexists(path) and files.link_target(path) != _program(wanted)
    if data is None and kept.link is None:
        if path != wanted.conf:
            return []
        # It goes even if somebody wrote it: supervisord would start both programs.
        if is_foreign and not path.is_symlink():
            written = files.free(wanted.backup_dir / f"since-{path.name}")
            files.write(written, path.read_bytes(), files.PRIVATE)
            files.remove(path)
            text = msgid("{path}: taken out; what somebody has written there is in the backup, as {file}.")
            return [Text(text, path=path, file=written.name)]
        files.remove(path)
        return [Text("{path}: taken out.", path=path)]
    if is_foreign:
        text = msgid("{path}: somebody wrote it since the window; left as it is, the old one is in the backup.")
        return [Text(text, path=path)]
    if kept.link is not None:
        files.switch_link(path, kept.link)
    elif data is not None:
        files.write(path, data, kept.owner)
    return [Text("{path}: put back.", path=path)]


def is_back(wanted: Spec, before: FilesBefore) -> bool:
    """Whether the link and supervisor's files are as they were *before*."""
    paths = (wanted.conf, *wanted.old_confs)
    return files.link_target(wanted.current) == before.link and all(_is_as_before(path, before) for path in paths)


def _is_as_before(path: Path, before: FilesBefore) -> bool:
    """Whether *path* holds what it held *before*, and leads where it led if it was a link."""
    kept, data = before.kept(path), before.data(path)
    was_there = data is not None or kept.link is not None
    return (
        (path.read_bytes() if path.exists() else None) == data
        and kept.link in {None, files.link_target(path)}
        and os.path.lexists(path) == was_there
    )
