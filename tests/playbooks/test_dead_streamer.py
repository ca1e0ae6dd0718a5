"""A streamer that is dead keeps no other host from going back, whenever it died, and is named at the end."""

import os
import sys
from pathlib import Path

import pytest

from tests.playbooks.hosts.controller import Controller

pytestmark = pytest.mark.live

LECTERN = """#!/bin/sh
cat > /dev/null
echo "$2" >> {did}
echo '{{"changed": true, "said": []}}'
"""
HOSTS = {"streamer1": "streamer", "streamer2": "streamer", "teacher1": "teacher"}
DEAD = "streamer1"


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    """Of three hosts with a release whose `lectern` only writes down what it is asked for; one of them is mortal."""
    groups: dict[str, dict[str, dict[str, object]]] = {"teachers": {"hosts": {}}, "streamers": {"hosts": {}}}
    for name, role in HOSTS.items():
        root = tmp_path / name
        program = root / "releases/2.0.0/venv/bin/lectern"
        program.parent.mkdir(parents=True)
        program.write_text(LECTERN.format(did=root / "did"))
        program.chmod(0o755)
        (root / "current").symlink_to("releases/2.0.0")
        groups[f"{role}s"]["hosts"][name] = {
            f"{role}_root": str(root),
            "ansible_connection": "mortal" if name == DEAD else "local",
            "mortal_dead_file": str(tmp_path / "dead"),
        }
    here = {"ansible_become": False, "ansible_python_interpreter": sys.executable}
    return Controller(tmp_path, {**groups, "all": {"vars": here}}, os.environ["PATH"])


@pytest.mark.parametrize(
    ("task", "ends"),
    [("Ask the host for its Python", "unreachable"), ("What stands here goes back", "failed")],
    ids=["before anything", "at its turn"],
)
def test_a_dead_streamer_keeps_no_other_host_from_going_back(
    controller: Controller, tmp_path: Path, task: str, ends: str
) -> None:
    fault = {"kind": "cut", "task": task, "command": ["touch", str(tmp_path / "dead")]}
    played = controller.run("rollback", "-e", "release=2.0.0", fault=fault).assert_failed()
    assert played.fault_fired
    did = {name: (tmp_path / name / "did") for name in HOSTS}
    assert not did[DEAD].exists()
    assert {name: file.read_text().split() for name, file in did.items() if name != DEAD} == {
        "streamer2": ["rollback", "verify"],
        "teacher1": ["rollback", "verify"],
    }
    assert played.recap[DEAD][ends] == 1, played.output[-3000:]
    if ends == "failed":
        assert any(f"{DEAD} is not rolled back: it cannot be reached" in one for one in played.failures())


def test_a_streamer_that_cannot_go_back_keeps_no_other_host_from_it(controller: Controller, tmp_path: Path) -> None:
    """It lives, but its rollback fails; its own words are said at the end."""
    program = tmp_path / DEAD / "releases/2.0.0/venv/bin/lectern"
    program.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"failed": true, "msg": "no room"}\'\n')
    played = controller.run("rollback", "-e", "release=2.0.0").assert_failed()
    assert (tmp_path / "teacher1/did").read_text().split() == ["rollback", "verify"]
    assert any(f"{DEAD} is not rolled back: no room" in one for one in played.failures())
