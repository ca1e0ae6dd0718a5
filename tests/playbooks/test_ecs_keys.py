"""A teacher and a transcoding server know each other by their keys, and go on doing so whatever a run leaves out."""

import base64
import getpass
import json
import subprocess
from pathlib import Path

import pytest

from lectern.ecs.ssh import SshHost
from tests.playbooks import here
from tests.playbooks.here import ROOT
from tests.playbooks.test_prefect_apart import played as rendered

pytestmark = pytest.mark.live
TASKS = ROOT / "playbooks" / "roles" / "provision" / "tasks"
HOSTS = {
    "teachers": {"hosts": {"teacher1": {}, "teacher10": {}}},
    "ecs": {"hosts": {"ecs1": {"ansible_host": "192.0.2.41"}, "ecs2": {"ansible_host": "192.0.2.4"}}},
}
KEYS = {name: f"ssh-ed25519 AAAA{name} lectern {name}" for name in ("teacher1", "teacher10")}
HOST_KEYS = {name: f"ssh-ed25519 BBBB{name} root@{name}" for name in ("ecs1", "ecs2")}
SETTING = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: "{{ teacher_ecs_hosts }}", dest: "{{ out }}/hosts"}
"""
HEAD = "# Written by playbooks/provision.yml.\n"


def played(folder: Path, tasks: str, host: str, read: dict[str, str], *more: str) -> "subprocess.CompletedProcess[str]":
    """Does the *tasks* of *host* in *folder* after the keys of *read* were read in the same run."""
    text = (TASKS / tasks).read_text().replace("/etc/lectern", str(folder)).replace("/var/lib/transcode", str(folder))
    (folder / "tasks.yml").write_text(text.replace("owner: transcode", f"owner: {getpass.getuser()}"))
    (folder / "hosts.json").write_text(json.dumps(HOSTS))
    name = "provision_ecs_key" if tasks == "ecs_teachers.yml" else "provision_ecs_host_key"
    plays = [
        {
            "hosts": one,
            "gather_facts": False,
            "tasks": [{"set_fact": {name: {"content": base64.b64encode(f"{key}\n".encode()).decode()}}}],
        }
        for one, key in read.items()
    ]
    plays.append({"hosts": host, "gather_facts": False, "tasks": [{"include_tasks": str(folder / "tasks.yml")}]})
    (folder / "play.yml").write_text(json.dumps(plays))
    local = json.dumps({"ansible_connection": "local"})
    done = here.played(folder / "play.yml", "-i", str(folder / "hosts.json"), "-e", local, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("left_out", [{"teacher1"}, {"teacher1", "teacher10"}], ids=["one", "all"])
def test_a_teacher_that_a_run_leaves_out_is_still_let_in(tmp_path: Path, left_out: set[str]) -> None:
    """As with `--limit ecs1`, or while the teacher is away."""
    file = tmp_path / ".ssh" / "authorized_keys"
    played(tmp_path, "ecs_teachers.yml", "ecs1", KEYS)
    assert file.read_text() == HEAD + "".join(f"restrict {one}\n" for one in KEYS.values())
    read = {name: key for name, key in KEYS.items() if name not in left_out}
    again = played(tmp_path, "ecs_teachers.yml", "ecs1", read)
    assert "changed=0" in again.stdout.splitlines()[-2] + again.stdout.splitlines()[-1]
    assert file.read_text() == HEAD + "".join(f"restrict {one}\n" for one in KEYS.values())


def test_a_teacher_that_has_another_name_now_is_still_let_in(tmp_path: Path) -> None:
    """Its key keeps the name under which it was made."""
    file = tmp_path / ".ssh" / "authorized_keys"
    played(tmp_path, "ecs_teachers.yml", "ecs1", {"teacher1": "ssh-ed25519 AAAAold lectern old-name"})
    assert "AAAAold" in file.read_text()
    played(tmp_path, "ecs_teachers.yml", "ecs1", {})
    assert "AAAAold" in file.read_text()


def test_a_key_that_a_teacher_has_no_more_and_one_of_nobody_lets_in_nobody(tmp_path: Path) -> None:
    file = tmp_path / ".ssh" / "authorized_keys"
    file.parent.mkdir()
    file.write_text("restrict ssh-ed25519 AAAAold lectern teacher1\nrestrict ssh-ed25519 AAAAgone lectern teacher9\n")
    played(tmp_path, "ecs_teachers.yml", "ecs1", {"teacher1": KEYS["teacher1"]})
    assert file.read_text() == f"{HEAD}restrict {KEYS['teacher1']}\n"


@pytest.mark.parametrize("left_out", [{"ecs2"}, {"ecs1", "ecs2"}], ids=["one", "all"])
def test_a_transcoding_server_that_a_run_leaves_out_is_still_known(tmp_path: Path, left_out: set[str]) -> None:
    """As with `--limit control:prefect`, which RUNBOOK.md types, and which is a teacher's host, too."""
    file = tmp_path / "ecs_known_hosts"
    known = f"{HEAD}192.0.2.41 ssh-ed25519 BBBBecs1\n192.0.2.4 ssh-ed25519 BBBBecs2\n"
    played(tmp_path, "ecs_hosts.yml", "teacher1", HOST_KEYS)
    assert file.read_text() == known
    read = {name: key for name, key in HOST_KEYS.items() if name not in left_out}
    played(tmp_path, "ecs_hosts.yml", "teacher1", read)
    assert file.read_text() == known


def test_a_transcoding_server_at_another_port_is_reached_and_known_there(tmp_path: Path) -> None:
    """As the inventory has it for Ansible: at the usual port nobody answers, or another host."""
    hosts = {"ecs1": {"ansible_host": "192.0.2.41", "ansible_port": 2222}, "ecs2": {"ansible_host": "fd00::7"}}
    (tmp_path / "setting").mkdir()
    done = rendered(tmp_path / "setting", SETTING, json.dumps({"ecs": {"hosts": hosts}}))
    assert done.returncode == 0, done.stdout + done.stderr
    found = [SshHost.parse(one) for one in (tmp_path / "setting/out/hosts").read_text().split(",")]
    assert found == [SshHost("transcode", "192.0.2.41", 2222), SshHost("transcode", "fd00::7")]
    played(tmp_path, "ecs_hosts.yml", "teacher1", HOST_KEYS, "-e", json.dumps({"ansible_port": 2222}))
    written = (tmp_path / "ecs_known_hosts").read_text()
    assert written == f"{HEAD}[192.0.2.41]:2222 ssh-ed25519 BBBBecs1\n[192.0.2.4]:2222 ssh-ed25519 BBBBecs2\n"


def test_a_check_that_reads_no_key_says_that_none_would_go(tmp_path: Path) -> None:
    played(tmp_path, "ecs_teachers.yml", "ecs1", KEYS)
    assert "AAAA" not in played(tmp_path, "ecs_teachers.yml", "ecs1", {}, "--check", "--diff").stdout
