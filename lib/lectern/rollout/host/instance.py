"""An instance: what one rollout runs, in a folder of its own beside the earlier ones; `current` points to one."""

import shutil

from lectern.rollout.answer import Difference
from lectern.rollout.host import durable
from lectern.rollout.journal import Journal
from lectern.rollout.settings import env_file
from lectern.rollout.wanted import Wanted

SETTINGS, PROGRAM = "settings.env", "program.conf"


def render(wanted: Wanted, journal: Journal) -> None:
    """Write the instance of *wanted*, to which no link points yet; delete those of rollouts that do not stand or run.

    What the journal does not know is somebody else's, and stays. The instance's ``venv`` points to that of the release;
    a program that is called by this path finds the settings beside it.
    """
    for one in (wanted.instance.parent, wanted.instance):
        durable.make_folder(one, 0o755)
    durable.switch_link(wanted.instance / "venv", f"../../releases/{wanted.version}/venv")
    durable.write(wanted.instance / SETTINGS, _settings(wanted).encode(), durable.Owner.user(wanted.user, 0o600))
    durable.write(wanted.instance / PROGRAM, wanted.program_conf.encode(), durable.PUBLIC)
    stays = {wanted.id, wanted.current.resolve().name, *journal.history().standing}
    for name in {note.id for note in journal.notes()} - stays:
        if (folder := wanted.instance.parent / name).is_dir():
            shutil.rmtree(folder)


def pending(wanted: Wanted) -> list[Difference]:
    """How the new settings differ from those in use, masked; empty if the instance has them already."""
    file, new = wanted.instance / SETTINGS, _settings(wanted)
    if env_file.read(file) == new:
        return []
    shown = [env_file.shown(one, env_file.values(one)) for one in (env_file.read(wanted.current / SETTINGS), new)]
    return [Difference(str(file), *shown)]


def _settings(wanted: Wanted) -> str:
    return env_file.edited("", wanted.own)
