"""An instance is what one rollout runs; the link `current` and supervisor's files name the one at work."""

import os
import shutil
from pathlib import Path

from lectern.i18n import Text, msgid
from lectern.rollout.backup.host import FilesBefore
from lectern.rollout.host import files
from lectern.rollout.host import files as host_files
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import TextDifference
from lectern.rollout.settings import env_file
from lectern.rollout.spec import Spec

# An instance: what one rollout runs, in a folder of its own beside the earlier ones; `current` points to one.


SETTINGS, PROGRAM = "settings.env", "program.conf"


def render_instance(wanted: Spec, journal: RolloutJournal) -> None:
    """Write the instance of *wanted*, to which no link points yet; delete those of rollouts that do not stand or run.

    What the journal does not know is somebody else's, and stays. The instance's ``venv`` points to that of the release;
    a program that is called by this path finds the settings beside it.
    """
    for path in (wanted.instance.parent, wanted.instance):
        files.make_folder(path, 0o755)
    files.switch_link(wanted.instance / "venv", f"../../releases/{wanted.version}/venv")
    files.write(wanted.instance / SETTINGS, _settings(wanted).encode(), files.Owner.user(wanted.user, 0o600))
    files.write(wanted.instance / PROGRAM, wanted.program_conf.encode(), files.PUBLIC)
    stays = {wanted.id, wanted.current.resolve().name, *journal.history().standing}
    for name in {note.id for note in journal.notes()} - stays:
        if (folder := wanted.instance.parent / name).is_dir():
            shutil.rmtree(folder)


def pending_settings(wanted: Spec) -> list[TextDifference]:
    """How the new settings differ from those in use, masked; empty if the instance has them already."""
    file, new = wanted.instance / SETTINGS, _settings(wanted)
    if env_file.read(file) == new:
        return []
    shown = [env_file.shown(text, env_file.values(text)) for text in (env_file.read(wanted.current / SETTINGS), new)]
    return [TextDifference(str(file), *shown)]


def _settings(wanted: Spec) -> str:
    return env_file.edited("", wanted.own)


def pending(wanted: Spec) -> list[TextDifference]:
    """The differences that `apply` would make."""
    differences: list[TextDifference] = []
    target, now = _target(wanted), host_files.link_target(wanted.current)
    if now != target:
        differences.append(TextDifference(str(wanted.current), f"{now}\n" if now else "", f"{target}\n"))
    differences += pending_settings(wanted)
    text = wanted.conf.read_text(encoding="utf-8") if wanted.conf.exists() else ""
    if text != wanted.program_conf or host_files.link_target(wanted.conf) != _program(wanted):
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


def _places(wanted: Spec) -> list[Path]:
    return [wanted.current, wanted.conf, *wanted.old_confs]


def apply(wanted: Spec) -> list[str]:
    """Point the link to the instance, remove the old programs' files, and link the new program's file."""
    host_files.sweep(*_places(wanted))
    sentences: list[str] = []
    if host_files.link_target(wanted.current) != _target(wanted):
        host_files.switch_link(wanted.current, _target(wanted))
        sentences.append(_leads(wanted.current, _target(wanted)))
    sentences += [
        Text("{path}: taken out; it is in the backup.", path=old) for old in wanted.old_confs if host_files.remove(old)
    ]
    if host_files.link_target(wanted.conf) != _program(wanted):
        host_files.remove(wanted.conf)
        host_files.switch_link(wanted.conf, _program(wanted))
        sentences.append(_leads(wanted.conf, _program(wanted)))
    return sentences


def _leads(path: Path, target: str) -> str:
    return Text("{path}: leads to {target} now.", path=path, target=target)


def take_back(wanted: Spec, before: FilesBefore) -> list[str]:
    """Restore the link and supervisor's files as they were *before*; what a person has put there since stays."""
    host_files.sweep(*_places(wanted))
    sentences: list[str] = []
    if host_files.link_target(wanted.current) != before.link:
        if before.link is None:
            host_files.remove(wanted.current)
        else:
            host_files.switch_link(wanted.current, before.link)
        target = before.link or Text("nothing")
        sentences.append(Text("{path}: leads to {target} again.", path=wanted.current, target=target))
    # If a release is behind, the new program's file leads to its instance by now, unless somebody took it away.
    if before.data(wanted.conf) is not None and not wanted.conf.exists():
        host_files.switch_link(wanted.conf, _program(wanted))
        sentences.append(Text("{path}: put back.", path=wanted.conf))
    elif before.data(wanted.conf) is None and host_files.remove(wanted.conf):
        sentences.append(Text("{path}: taken out.", path=wanted.conf))
    for path in wanted.old_confs:
        data = before.data(path)
        if data is None or (path.exists() and path.read_bytes() == data):
            continue
        if path.exists():
            text = msgid("{path}: somebody wrote it since the window; left as it is, the old one is in the backup.")
            sentences.append(Text(text, path=path))
        else:
            host_files.write(path, data, before.kept(path).owner)
            sentences.append(Text("{path}: put back.", path=path))
    return sentences


def is_back(wanted: Spec, before: FilesBefore) -> bool:
    """Whether the link and supervisor's files are as they were *before*."""
    files = (wanted.conf, *wanted.old_confs)
    return host_files.link_target(wanted.current) == before.link and all(
        (path.read_bytes() if path.exists() else None) == before.data(path) for path in files
    )
