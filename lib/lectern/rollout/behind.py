"""Asks the release that a rollback would start, before anything is stopped, whether it can start."""

import asyncio
from pathlib import Path

from lectern.effects import process
from lectern.errors import CallAPerson
from lectern.rollout.backup.before import Before
from lectern.rollout.settings import env_file
from lectern.rollout.wanted import Wanted

ASK_TIMEOUT_S = 60.0


def release(wanted: Wanted, kept: Before) -> Path | None:
    """The release that ran *before*; None if it was the old program."""
    return None if kept.link is None else wanted.current.parent / kept.link


def refuse_unready(wanted: Wanted, kept: Before) -> None:
    """Raise CallAPerson if the release behind cannot start on the database as it is now.

    It is asked itself, with the settings that it had: an older release knows best what it can read.
    """
    folder = release(wanted, kept)
    if folder is None:
        return
    program = folder / "venv/bin/lectern"
    if not program.exists():
        raise CallAPerson(
            f"{program}: the release that a rollback would start is gone. Nothing was stopped. Stage it again: "
            f"ansible-playbook playbooks/rollout.yml -e release={folder.name} --tags prepare."
        )
    settings = {name: value for name, value in env_file.values(kept.text(wanted.env_path)).items() if value is not None}
    argv = [str(program), "init", wanted.role, "--check", "--json"]
    answer = asyncio.run(process.run(argv, timeout_s=ASK_TIMEOUT_S, cwd=wanted.code_dir, env=settings))
    if answer.returncode != 0:
        raise CallAPerson(
            f"lectern {folder.name}, which a rollback would start, cannot use the database as it is now "
            f"({answer.last_words or 'it gives no reason'}). Nothing was stopped. Go on with {wanted.version}; or add "
            f"-e restore_database=true, which loses what was written since the rollout (it is exported first)."
        )
