"""Plays a playbook on this machine, with a home of its own, where no host is reached."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(home: Path) -> dict[str, str]:
    """What Ansible's tools see: the project's settings, and nothing of the person's who runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOME": str(home / "a"),
        "COLUMNS": "1000",
    }


def played(playbook: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Play it from the project's folder; its own folder is the home."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), *arguments],
        cwd=ROOT,
        env=environment(playbook.parent),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
