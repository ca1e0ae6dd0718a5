"""Plays a playbook on this machine, with a home of its own, where no host is reached."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a package of their own

ROOT = Path(__file__).parents[2]
PROVISION = ROOT / "playbooks/roles/provision"


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


def played(playbook: Path, *arguments: str, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Play it from the project's folder; its own folder is the home, if no other is."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), *arguments],
        cwd=ROOT,
        env=environment(home or playbook.parent),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def play_of(hosts: str, role: str, part: str = "main") -> str:
    task = {"import_role": {"name": role, "tasks_from": part}}
    return json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": [task]}])


def told(kind: str, value: str) -> str:
    """A task that writes the JSON of what Jinja makes of *value* to `HOST.KIND`: a module takes ten times as long."""
    written = "{{ out }}/{{ inventory_hostname }}." + kind
    return json.dumps(
        {"ansible.builtin.raw": f"echo {{{{ ({value}) | to_json | b64encode }}}} | base64 -d > {written}"}
    )


def texts(files: Mapping[str, str], program: str = "prefect") -> str:
    """For Jinja: what becomes of templates of `provision`, by their names in *files*."""
    paths = ", ".join(repr(str(PROVISION / "templates" / file)) for file in files.values())
    lookup = f"query('ansible.builtin.template', {paths}, template_vars={{'provision_program': '{program}'}})"
    return f"dict({[*files]} | zip({lookup}))"


def played_with(
    folder: Path, text: str, hosts: str = "all: {}", inventory: str = "production", /, *arguments: str, **given: object
) -> "subprocess.CompletedProcess[str]":
    """Play *text* with an inventory of the project's, to which *hosts* are added, and the secrets of the example."""
    (folder / "play.yml").write_text(text)
    (folder / "more.yml").write_text(hosts)
    (folder / "out").mkdir(exist_ok=True)
    values = {"out": str(folder / "out"), "release": "2.0.0"}
    local = {"ansible_connection": "local", "ansible_become": False}
    inventories = ("-i", f"inventory/{inventory}", "-i", str(folder / "more.yml"))
    secrets = ("-e", f"@{ROOT}/inventory/vault.yml.example", "-e", json.dumps({**values, **local, **given}))
    return played(folder / "play.yml", *inventories, *secrets, *arguments)


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """What a play that must fail has said, without its line ends."""
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def written(folder: Path, text: str, hosts: str = "all: {}", /, **given: object) -> Path:
    """Where the files are that such a play has made."""
    done = played_with(folder, text, hosts, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def tasks(name: str, folder: Path) -> list[dict[str, Any]]:
    """Those of `provision` in the file *name*; *folder* is their /etc/lectern."""
    found: list[dict[str, Any]] = yaml.safe_load(
        (PROVISION / f"tasks/{name}.yml").read_text().replace("/etc/lectern", str(folder))
    )
    return found


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


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
