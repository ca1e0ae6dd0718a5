"""Switches a host between the old program and an instance: the link `current` and supervisor's files."""

import os
from pathlib import Path

from lectern.rollout.answer import Difference
from lectern.rollout.backup.before import Before
from lectern.rollout.host import durable, instance
from lectern.rollout.wanted import Wanted


def pending(wanted: Wanted) -> list[Difference]:
    """The differences that `apply` would make."""
    found: list[Difference] = []
    target, now = _target(wanted), durable.link_target(wanted.current)
    if now != target:
        found.append(Difference(str(wanted.current), f"{now}\n" if now else "", f"{target}\n"))
    found += instance.pending(wanted)
    text = wanted.conf.read_text(encoding="utf-8") if wanted.conf.exists() else ""
    if text != wanted.program_conf or durable.link_target(wanted.conf) != _program(wanted):
        found.append(Difference(str(wanted.conf), text, wanted.program_conf))
    # An old file can hold secrets (environment=), so only its removal is shown.
    found += [Difference(str(old), "in use\n", "kept in the backup\n") for old in wanted.old_confs if old.exists()]
    return found


def _target(wanted: Wanted) -> str:
    return os.path.relpath(wanted.instance, wanted.current.parent)


def _program(wanted: Wanted) -> str:
    return str(wanted.current / instance.PROGRAM)


def _places(wanted: Wanted) -> list[Path]:
    return [wanted.current, wanted.conf, *wanted.old_confs]


def apply(wanted: Wanted) -> list[str]:
    """Point the link to the instance, remove the old programs' files, and link the new program's file."""
    durable.sweep(*_places(wanted))
    said: list[str] = []
    if durable.link_target(wanted.current) != _target(wanted):
        durable.switch_link(wanted.current, _target(wanted))
        said.append(f"{wanted.current}: leads to {_target(wanted)} now.")
    said += [f"{old}: taken out; it is in the backup." for old in wanted.old_confs if durable.remove(old)]
    if durable.link_target(wanted.conf) != _program(wanted):
        durable.remove(wanted.conf)
        durable.switch_link(wanted.conf, _program(wanted))
        said.append(f"{wanted.conf}: leads to {_program(wanted)} now.")
    return said


def take_back(wanted: Wanted, before: Before) -> list[str]:
    """Restore the link and supervisor's files as they were *before*; what a person has put there since stays."""
    durable.sweep(*_places(wanted))
    said: list[str] = []
    if durable.link_target(wanted.current) != before.link:
        if before.link is None:
            durable.remove(wanted.current)
        else:
            durable.switch_link(wanted.current, before.link)
        said.append(f"{wanted.current}: leads to {before.link or 'nothing'} again.")
    # If a release is behind, the new program's file leads to its instance by now, unless somebody took it away.
    if before.data(wanted.conf) is not None and not wanted.conf.exists():
        durable.switch_link(wanted.conf, _program(wanted))
        said.append(f"{wanted.conf}: put back.")
    elif before.data(wanted.conf) is None and durable.remove(wanted.conf):
        said.append(f"{wanted.conf}: taken out.")
    for path in wanted.old_confs:
        data = before.data(path)
        if data is None or (path.exists() and path.read_bytes() == data):
            continue
        if path.exists():
            said.append(f"{path}: somebody wrote it since the window; left as it is, the old one is in the backup.")
        else:
            durable.write(path, data, before.kept(path).owner)
            said.append(f"{path}: put back.")
    return said


def is_back(wanted: Wanted, before: Before) -> bool:
    """Whether the link and supervisor's files are as they were *before*."""
    files = (wanted.conf, *wanted.old_confs)
    return durable.link_target(wanted.current) == before.link and all(
        (path.read_bytes() if path.exists() else None) == before.data(path) for path in files
    )
