"""Streamers of this machine, under a real supervisord: what a rollout is cut off by, and what keeps it away.

That they go out and back and out again is played in test_local_teacher.py, with the teacher that leases them.
"""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answering import serving
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.controller import Played
from tests.playbooks.hosts.faults import ALTERED, Case, cut_off, play
from tests.playbooks.hosts.host import Host, differences
from tests.playbooks.hosts.scene import Only, Scene, opened
from tests.stage import Town, wait_until
from town.ports import HOST

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(1800),
]  # a run of a playbook takes seconds, many where other tests run beside it
ONLY = ("--limit", "streamer1")


@pytest.fixture(scope="module")
def scene(town: Town, release_file: Path) -> Iterator[Scene]:
    with opened(town, release_file, "streamer1", "streamer2") as found:
        found.reset()
        found.run("rollout", "--tags", "prepare").assert_ok()  # faults are laid into a staged release
        yield found


def test_the_harness_sees_a_lost_row_a_changed_file_and_a_stopped_program(scene: Scene) -> None:
    scene.reset()
    host, before = scene.host("streamer1"), scene.before["streamer1"]
    assert before.not_old() == []

    wait_until(lambda: len(host.read(host.places.diary).split()) > 20, description="the old program writes")
    first = host.read(host.places.diary).split()[0].decode()
    host.alter("DELETE FROM task_list WHERE class_id = ?", first)
    host.write(host.places.code_dir / "env_settings.py", b"")
    host.ctl("stop", "watchdog")

    found = "\n".join(before.not_old())
    assert "1 rows are lost" in found
    assert "env_settings.py" in found
    assert "watchdog: RUNNING -> STOPPED" in found


# -- a host that fails goes back by itself, and ends the roll ----------------------------------------------------------


def test_a_new_program_that_can_not_start_sends_its_host_back_and_the_next_host_is_never_begun(scene: Scene) -> None:
    scene.reset()
    second = scene.host("streamer2").snapshot()
    with serving(status=404) as stranger:
        bind = {"streamer_health_bind": f"{HOST}:{stranger.server_port}", "streamer_health_timeout_s": 6}
        with scene.meanwhile(streamer1=bind):
            played = scene.run("rollout").assert_failed()

    _is_taken_back_and_the_roll_ends(scene, played)
    assert differences(second, scene.host("streamer2").snapshot()) == []


def test_a_streamer_that_no_teacher_leases_goes_back_though_it_runs_and_goes_out_as_soon_as_one_does(
    scene: Scene,
) -> None:
    """Its window is committed by then, and the program answers that it is ready; but it would air nothing."""
    scene.reset()
    with scene.unleased("streamer1"), scene.meanwhile(streamer1={"streamer_lease_timeout_s": 5}):
        played = scene.run("rollout").assert_failed()

    assert "streamer1 holds no lease after 5 s, so it would air nothing" in _said(played)
    _is_taken_back_and_the_roll_ends(scene, played)

    scene.run("rollout", *ONLY).assert_ok()
    assert scene.before["streamer1"].not_new() == []


def _is_taken_back_and_the_roll_ends(scene: Scene, played: Played) -> None:
    assert "What had been changed on the host was taken back" in played.output
    assert scene.before["streamer1"].not_old() == []
    assert any("Streamer 8" in task for task in played.done("streamer1")), "it came to the steps of the window"
    assert not any("Streamer" in task for task in played.done("streamer2"))
    assert scene.before["streamer2"].not_old() == []


def _said(played: Played) -> str:
    return " ".join(" ".join(played.failures()).split())


# -- what is cut off; `make test-rollout-matrix` plays a fault at every task and step ----------------------------------


def test_a_window_goes_on_though_the_controller_is_killed_and_a_check_of_the_finished_host_changes_nothing(
    scene: Scene,
) -> None:
    """The host ends its window by itself; the same command, typed again, finds it wholly new."""
    host, killed = scene.host("streamer1"), Case("rollout", "middle", "Streamer 5", "", "resume", after_s=0.2)
    assert play(Only(scene, "streamer1"), host, killed) == []

    wait_until(
        lambda: host.rows("SELECT class_id FROM class_list WHERE state = 'ready' AND run_id IS NULL") == [],
        description="the new program has given the adopted classes their runs",
    )
    wait_until(
        lambda: host.rows("SELECT id FROM video_list WHERE num_cite > 0 AND dead_air IS NULL") == [],
        description="the new program has looked for dead air in the recordings",
    )
    _a_check_changes_nothing(scene, host)


def test_another_rollout_that_is_half_done_goes_first_and_a_check_of_the_half_done_host_changes_nothing(
    scene: Scene,
) -> None:
    scene.reset()
    host = scene.host("streamer1")
    cut_off(scene, host, "open", ALTERED, "rollout", *ONLY)
    _a_check_changes_nothing(scene, host)

    with scene.meanwhile(streamer1={"streamer_download_rate": "300k"}):
        played = scene.run("rollout", *ONLY).assert_failed()
    assert "is half done here" in played.output

    scene.run("rollback", *ONLY).assert_ok()
    assert scene.before["streamer1"].not_old() == []


def _a_check_changes_nothing(scene: Scene, host: Host) -> None:
    before, keys = host.snapshot(), old_world.keys_of(scene.redis)
    scene.run("rollout", *ONLY, "--check", "--diff").assert_ok()
    found = differences(before, host.snapshot()) + differences(keys, old_world.keys_of(scene.redis))
    assert [one for one in found if not _is_alive(one)] == [], "a check changes nothing"


def _is_alive(difference: str) -> bool:
    """The new program says in Redis that it is alive, and notes in its database what it did."""
    return difference.startswith(("streamer", "queue", "lectern:"))


# -- what keeps a rollout away before any host is looked at; the rest of it is in test_local_teacher.py ----------------


def test_a_release_that_is_not_there_is_refused_and_no_host_is_touched(scene: Scene) -> None:
    scene.reset()
    host = scene.host("streamer1")
    before = host.snapshot()
    played = scene.run("rollout", *ONLY, "-e", "release=9.9.9", "-e", "release_file=").assert_failed()
    assert "9.9.9" in _said(played)
    assert differences(before, host.snapshot()) == []
    assert host.states()["watchdog"] == "RUNNING"


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
