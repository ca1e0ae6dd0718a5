"""A teacher and a transcoding server know each other by their keys, and go on doing so whatever a run leaves out."""

import base64
import getpass
import json
import subprocess
from pathlib import Path

import pytest

from lectern.ecs.ssh import SshHost
from tests.playbooks import here
from tests.playbooks.here import PROVISION

pytestmark = pytest.mark.live
HOSTS = {
    "teachers": {"hosts": {"teacher1": {}, "teacher10": {}}},
    "ecs": {"hosts": {"ecs1": {"ansible_host": "192.0.2.4"}, "ecs2": {"ansible_host": "192.0.2.41"}}},
}
KEYS = {name: f"ssh-ed25519 AAAA{name} lectern {name}" for name in ("teacher1", "teacher10")}
HOST_KEYS = {name: f"ssh-ed25519 BBBB{name} root@{name}" for name in ("ecs1", "ecs2")}
KNOWN = ["192.0.2.4 ssh-ed25519 BBBBecs1", "192.0.2.41 ssh-ed25519 BBBBecs2"]
SETTING = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: "{{ teacher_ecs_hosts }}", dest: "{{ out }}/hosts"}
"""
HEAD = "# Written by playbooks/provision.yml.\n"


def played(folder: Path, tasks: str, host: str, read: dict[str, str], *more: str) -> "subprocess.CompletedProcess[str]":
    """Does the *tasks* of *host* in *folder* after the keys of *read* were read in the same run."""
    text = (PROVISION / "tasks" / tasks).read_text()
    for place in ("/etc/lectern", "/var/lib/transcode"):
        text = text.replace(place, str(folder))
    (folder / "tasks.yml").write_text(text.replace("owner: transcode", f"owner: {getpass.getuser()}"))
    (folder / "hosts.json").write_text(json.dumps(HOSTS))
    name = "provision_ecs_key" if tasks == "ecs_teachers.yml" else "provision_ecs_host_key"
    done_there: list[tuple[str, dict[str, object]]] = [
        (one, {"set_fact": {name: {"content": base64.b64encode(f"{key}\n".encode()).decode()}}})
        for one, key in read.items()
    ]
    done_there.append((host, {"include_tasks": str(folder / "tasks.yml")}))
    plays = [{"hosts": one, "gather_facts": False, "tasks": [task]} for one, task in done_there]
    (folder / "play.yml").write_text(json.dumps(plays))
    local = json.dumps({"ansible_connection": "local"})
    done = here.played(folder / "play.yml", "-i", str(folder / "hosts.json"), "-e", local, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("tasks", "host", "keys", "file", "known"),
    [
        ("ecs_teachers.yml", "ecs1", KEYS, ".ssh/authorized_keys", [f"restrict {one}" for one in KEYS.values()]),
        ("ecs_hosts.yml", "teacher1", HOST_KEYS, "ecs_known_hosts", KNOWN),
    ],
    ids=["teachers", "transcoding servers"],
)
def test_whom_a_run_leaves_out_is_still_let_in_and_known(
    tmp_path: Path, tasks: str, host: str, keys: dict[str, str], file: str, known: list[str]
) -> None:
    """As with `--limit ecs1` or `control:prefect`, which RUNBOOK.md types, or while a host is away."""
    whole = HEAD + "".join(f"{line}\n" for line in known)
    played(tmp_path, tasks, host, keys)
    assert (tmp_path / file).read_text() == whole
    again = played(tmp_path, tasks, host, dict([*keys.items()][1:]))
    assert "changed=0" in again.stdout.splitlines()[-2] + again.stdout.splitlines()[-1]
    assert (tmp_path / file).read_text() == whole


def test_a_key_that_a_teacher_has_no_more_lets_in_nobody_and_that_of_a_renamed_one_goes_on(tmp_path: Path) -> None:
    """A key keeps the name under which it was made; a check, which reads no key, says that none would go."""
    file = tmp_path / ".ssh" / "authorized_keys"
    file.parent.mkdir()
    file.write_text("restrict ssh-ed25519 AAAAold lectern teacher1\nrestrict ssh-ed25519 AAAAgone lectern teacher9\n")
    for keys in ({"teacher1": "ssh-ed25519 AAAAnew lectern old-name"}, {}):
        played(tmp_path, "ecs_teachers.yml", "ecs1", keys)
        assert file.read_text() == f"{HEAD}restrict ssh-ed25519 AAAAnew lectern teacher1\n"
    assert "AAAA" not in played(tmp_path, "ecs_teachers.yml", "ecs1", {}, "--check", "--diff").stdout


def test_a_transcoding_server_at_another_port_is_reached_and_known_there(tmp_path: Path) -> None:
    """As the inventory has it for Ansible: at the usual port nobody answers, or another host."""
    hosts = {"ecs1": {"ansible_host": "192.0.2.41", "ansible_port": 2222}, "ecs2": {"ansible_host": "fd00::7"}}
    out = here.written(tmp_path, SETTING, json.dumps({"ecs": {"hosts": hosts}}))
    found = [SshHost.parse(one) for one in (out / "hosts").read_text().split(",")]
    assert found == [SshHost("transcode", "192.0.2.41", 2222), SshHost("transcode", "fd00::7")]
    played(tmp_path, "ecs_hosts.yml", "teacher1", HOST_KEYS, "-e", json.dumps({"ansible_port": 2222}))
    written = (tmp_path / "ecs_known_hosts").read_text()
    assert written == f"{HEAD}[192.0.2.4]:2222 ssh-ed25519 BBBBecs1\n[192.0.2.41]:2222 ssh-ed25519 BBBBecs2\n"
