"""Asks the release that a rollback would start, before anything is stopped, whether it can start."""

import asyncio

from lectern.effects import process
from lectern.errors import CallAPerson
from lectern.rollout.backup.before import Before
from lectern.rollout.wanted import Wanted

ASK_TIMEOUT_S = 60.0


def refuse_unready(wanted: Wanted, kept: Before) -> None:
    """Raise CallAPerson if the release that a rollback would start is gone, or cannot use the database as it is now.

    If the database is restored, too, it does not matter how it is now. Else that release is asked itself, by its own
    program: an older release knows best what it can read.
    """
    if kept.link is None:
        return  # a rollback would start the old program
    program = wanted.current.parent / kept.link / "venv/bin/lectern"
    version = program.parents[1].resolve().parent.name
    if not program.exists():
        raise CallAPerson(
            f"{program}: the release that a rollback would start is gone. Nothing was stopped. Stage it again: "
            f"ansible-playbook playbooks/rollout.yml -e release={version} --tags prepare."
        )
    if wanted.restore_database:
        return
    argv = [str(program), "init", wanted.role, "--check", "--json"]
    answer = asyncio.run(process.run(argv, timeout_s=ASK_TIMEOUT_S, cwd=wanted.code_dir))
    if answer.returncode != 0:
        raise CallAPerson(
            f"lectern {version}, which a rollback would start, cannot use the database as it is now "
            f"({answer.last_words or 'it gives no reason'}). Nothing was stopped. Go on with {wanted.version}; or add "
            f"-e restore_database=true, which loses what was written since the rollout (it is exported first)."
        )
