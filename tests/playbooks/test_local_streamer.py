"""Streamers of this machine, under a real supervisord: what a rollout is cut off by, and what keeps it away.

That they go out and back and out again is played in test_local_teacher.py, with the teacher that leases them.
"""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playbooks.hosts.controller import Played
from tests.playbooks.hosts.faults import Case, Only, play
from tests.playbooks.hosts.scene import Scene, opened
from tests.stage import Town
from town.ports import HOST

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
]  # a run of a playbook takes seconds, many where other tests run beside it


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, "streamer1", "streamer2") as found:
        found.stage("streamer1", "streamer2")  # faults are laid into a staged release
        yield found


class AsItIs(Only):
    """One host of many, as a failed rollout has left it."""

    def reset(self, *_: str) -> None:
        """It is wholly old."""


def test_a_streamer_that_no_teacher_leases_goes_back_though_it_runs_and_goes_out_as_soon_as_one_does(
    scene: Scene,
) -> None:
    """Its window is committed by then, and the program answers that it is ready; but it would air nothing.

    It goes out though the controller is killed in the window, which the host ends by itself: the same command, typed
    again, finds it wholly new. `make test-rollout-matrix` plays a fault at every task and step.
    """
    scene.reset()
    with scene.unleased("streamer1"), scene.meanwhile(streamer1={"streamer_lease_timeout_s": 5}):
        played = scene.run("rollout").assert_failed()

    assert "streamer1 holds no lease after 5 s, so it would air nothing" in _said(played)
    assert "What had been changed on the host was taken back" in played.output
    assert scene.before["streamer1"].not_old() == []
    assert any("Streamer 8" in task for task in played.done("streamer1")), "it came to the steps of the window"
    assert not any("Streamer" in task for task in played.done("streamer2"))
    assert scene.before["streamer2"].not_old() == []

    killed = Case("rollout", "middle", "Streamer 5", "", "resume", after_s=0.2)
    assert play(AsItIs(scene, "streamer1"), scene.hosts["streamer1"], killed) == []
    assert len(scene.before["streamer1"].not_old()) > 3, "the judge sees a program, files and a version that are others"


def _said(played: Played) -> str:
    return " ".join(" ".join(played.failures()).split())


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on the PATH")
def test_a_host_whose_ssh_key_is_not_known_is_not_spoken_to_and_no_other_host_is_begun(scene: Scene) -> None:
    nothing = scene.folder / "no_known_hosts"
    nothing.touch()
    options = f"-o UserKnownHostsFile={nothing} -o GlobalKnownHostsFile={nothing}"
    with socket.create_server((HOST, 0)) as door:
        door.setblocking(False)
        away = {"ansible_connection": "ssh", "ansible_host": HOST, "ansible_port": door.getsockname()[1]}
        with scene.meanwhile(streamer1={**away, "ansible_ssh_common_args": options}):
            played = scene.run("rollout").assert_failed()
        with pytest.raises(BlockingIOError):
            door.accept()  # nobody has knocked
    assert "host key is not known" in played.output
    assert "ssh-keyscan" in played.output
    assert "streamer1: lost or failed earlier in this run" in _said(played)
    assert not any("Streamer" in task for name in scene.hosts for task in played.done(name))
