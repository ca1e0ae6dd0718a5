"""Plays a playbook on this machine, with a home of its own, where no host is reached."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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


def tasks_played(
    folder: Path, tasks: Sequence[object], given: Mapping[str, object], *arguments: str, **more: object
) -> tuple["subprocess.CompletedProcess[str]", set[str]]:
    """Play *tasks* with the variables *given*; and which files `did-…` they made in *folder*, where they are gone."""
    (folder / "play.yml").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks, **more}])
    )
    variables = json.dumps({"ansible_connection": "local", **given})
    done = played(folder / "play.yml", *(arguments or ("-i", "localhost,")), "-e", variables)
    did = {path.name for path in folder.glob("did-*")}
    for name in did:
        (folder / name).unlink()
    return done, did
