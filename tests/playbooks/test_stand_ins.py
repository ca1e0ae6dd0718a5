"""Playbooks on hosts whose `lectern` does nothing: what goes back where one fails, and where one is dead."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.playbooks.here import program
from tests.playbooks.hosts.controller import SIGN_KEY, Controller

pytestmark = pytest.mark.live

LECTERN = """#!{python} -S
import json, sys
step, given = sys.argv[2:], sys.stdin.read()
with open({did!r}, "a") as log:
    log.write(json.dumps([step, given]) + "\\n")
told = {told}
print(json.dumps({{"changed": True, "said": [], **told.get(step[0], {{}})}}))
"""
"""Writes down what it is asked for."""
FAILED = {"preflight": {"state": "untouched"}, "open": {"opened": True}, "ended": {"failed": True, "msg": "no"}}
ALL = {"streamer1": "streamer", "streamer2": "streamer", "teacher1": "teacher"}
DEAD = "streamer1"


def lectern(folder: Path, name: str, **told: object) -> None:
    """Let the host *name* have one that answers to some steps what it is *told*."""
    text = LECTERN.format(python=sys.executable, did=str(folder / name / "did"), told=told)
    programs = folder / name / "releases/2.0.0/venv/bin"
    program(programs / "lectern", text)
    if not (programs / "python").exists():
        (programs / "python").symlink_to(sys.executable)


def controller(folder: Path, roles: Mapping[str, str]) -> Controller:
    """Of hosts that have a release, and of which each can die."""
    fields = {"code_dir": str(folder), "log_dir": str(folder), "user": "root", "old_programs": []}
    groups: dict[str, dict[str, dict[str, object]]] = {"teachers": {"hosts": {}}, "streamers": {"hosts": {}}}
    for name, role in roles.items():
        lectern(folder, name)
        (folder / name / "current").symlink_to("releases/2.0.0")
        own = {f"{role}_{field}": value for field, value in {"root": str(folder / name), **fields}.items()}
        groups[f"{role}s"]["hosts"][name] = {**own, "mortal_dead_file": str(folder / f"{name}-is-dead")}
    here = {"ansible_connection": "mortal", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    here |= {"lectern_redis_url": "redis://127.0.0.1:1/0", "lectern_prefect_api_url": "http://127.0.0.1:1/api"}
    everywhere = {"vars": here | {"teacher_transcode_sign_key": SIGN_KEY}}
    return Controller(folder, {**groups, "all": everywhere}, os.environ["PATH"])


def asked(folder: Path, name: str) -> list[tuple[list[str], str]]:
    """What the `lectern` of the host *name* was asked for, with what was given to it."""
    did = folder / name / "did"
    return [(step, given) for step, given in map(json.loads, did.read_text().splitlines())] if did.exists() else []


@pytest.mark.parametrize("role", ["streamer", "teacher"])
def test_what_goes_back_is_the_rollout_that_failed_and_no_other_of_its_version(tmp_path: Path, role: str) -> None:
    """It may be above one of the same version, with other settings.

    By the time the playbook hears of the failure the host has gone back, and what stands there is the one below.
    """
    name = f"{role}1"
    hosts = controller(tmp_path, {name: role})
    lectern(tmp_path, name, **FAILED)
    played = hosts.run("rollout", "-e", "release=2.0.0", "--tags", "window").assert_failed()
    assert "What had been changed on the host was taken back" in " ".join(played.failures()), "the roll ends here"
    (back,) = [given for step, given in asked(tmp_path, name) if step == ["rollback"]]
    (begun,) = [given for step, given in asked(tmp_path, name) if step == ["open"]]
    harmless = dict.fromkeys(("even_on_air", "restore_database", "half_only", "further"), False)
    assert json.loads(back) == json.loads(begun) | harmless


def test_what_is_in_the_way_of_one_host_is_said_and_no_host_is_begun(tmp_path: Path) -> None:
    """Also not the teacher, which nothing is in the way of, and which would be the first to be stopped."""
    hosts = controller(tmp_path, ALL)
    lectern(tmp_path, DEAD, preflight={"failed": True, "msg": "Class 'live-1' is on air."})
    played = hosts.run("rollout", "-e", "release=2.0.0", "--tags", "window").assert_failed()
    assert any("Class 'live-1' is on air." in one for one in played.failures())
    assert [step for name in ALL for step, _ in asked(tmp_path, name)] == [["preflight"]] * 3


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("Ask the host for its Python", ["-v"], f"{DEAD} cannot be reached. If it was being rolled out"),
        ("What stands here goes back", [], f"{DEAD} is not rolled back: it cannot be reached"),
        ("", [], f"{DEAD} is not rolled back: no room"),
    ],
    ids=["dead before anything", "dead at its turn", "it fails"],
)
def test_a_streamer_that_cannot_go_back_keeps_no_other_host_from_it_and_is_named(
    tmp_path: Path, task: str, options: list[str], words: str
) -> None:
    """What each host answers stands under its task, once; only `-v` shows a task that says nothing."""
    hosts = controller(tmp_path, ALL)
    lectern(tmp_path, DEAD, rollback={"failed": True, "msg": "no room", "said": ["no room"]})
    steps = [{"step": "5 switch", "seconds": 0.25}]
    lectern(tmp_path, "teacher1", rollback={"said": ["One thing is done."], "steps": steps})
    fault = {"kind": "cut", "task": task, "command": ["touch", str(tmp_path / f"{DEAD}-is-dead")]} if task else None
    played = hosts.run("rollback", "-e", "release=2.0.0", *options, fault=fault).assert_failed()
    assert played.fault_fired is bool(task)
    back = {name: [step[0] for step, _ in asked(tmp_path, name)] for name in ALL}
    whole = ["rollback", "verify"]
    assert back == {DEAD: [] if task else ["rollback"], "streamer2": whole, "teacher1": whole}
    assert words in played.output
    assert "\n    One thing is done.\n    5 switch: 0.25 s\n\n" in played.output
    assert ("A release is named" in played.output) is bool(options)
    if not task:
        assert "    msg: no room\n\n" in played.output, "and not once more as what it said"
