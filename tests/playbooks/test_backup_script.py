"""The script of a night's backup may be typed by root, too: what it makes belongs to the user of every other night."""

import getpass
import os
import pwd
import subprocess
from pathlib import Path

import jinja2
import pytest

from tests.playbooks import here
from tests.playbooks.here import PROVISION

COMMAND = "backup --name prefect --into /backups"


def typed(folder: Path, user: str, number: int) -> list[str]:
    """What is done when the user with *number* types the script of *user*."""
    (folder / "prefect.env").write_text("PREFECT_SERVER_DATABASE_CONNECTION_URL='sqlite:///x'\n")
    programs = {"lectern": 'echo "$*"', "setpriv": 'echo "setpriv $*"', "id": f"echo {number}"}
    for name, does in programs.items():
        here.program(folder / name, f"#!/bin/sh\n{does}\n")
    given = {
        "item": {"user": user, "program": str(folder / "lectern"), "into": "/backups", "what": "--name prefect"},
        "provision_backup_keep": 14,
        "provision_backup_to": "",
    }
    text = jinja2.Template((PROVISION / "templates/backup.sh.j2").read_text()).render(given)
    script = folder / "backup.sh"
    script.write_text(text.replace("/etc/lectern", str(folder)))
    env = {"PATH": f"{folder}:{os.defpath}"}
    done = subprocess.run(["sh", str(script)], env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_root_types_is_done_as_the_user_of_every_night(tmp_path: Path) -> None:
    """Else root's lock and backups would keep each later night from making one."""
    words = ["setpriv", "--reuid=nobody", "--regid=0", "--init-groups", "env", f"HOME={pwd.getpwnam('nobody').pw_dir}"]
    assert typed(tmp_path, "nobody", 0) == [*words, "sh", str(tmp_path / "backup.sh")]


@pytest.mark.parametrize(("user", "number"), [(getpass.getuser(), 1000), ("root", 0)])
def test_its_own_user_does_it_at_once(tmp_path: Path, user: str, number: int) -> None:
    assert typed(tmp_path, user, number) == COMMAND.split()
