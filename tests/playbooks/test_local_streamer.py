"""Streamers of this machine, under a real supervisord: out, back and out again, and all that keeps a rollout away."""

import http.server
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.conftest import Figure
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.faults import Case, play
from tests.playbooks.hosts.host import Host, differences, downtime_s
from tests.playbooks.hosts.scene import Only, Scene, opened
from tests.playbooks.hosts.wholly import NEW_VERSION
from tests.stage import Town, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.timeout(1800)  # a run of a playbook takes seconds, many where other tests run beside it
ONLY = ("--limit", "streamer1")
ALTERED = "fsync rollout/journal.jsonl (8)"
"""A point in the middle of the window, behind its first changes."""


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
    _alter(host, "DELETE FROM task_list WHERE class_id = ?", first)
    host.write(host.places.code_dir / "env_settings.py", b"")
    host.ctl("stop", "watchdog")

    found = "\n".join(before.not_old())
    assert "1 rows are lost" in found
    assert "env_settings.py" in found
    assert "watchdog: RUNNING -> STOPPED" in found


def test_a_streamer_goes_out_and_back_and_out_again_without_losing_a_class(scene: Scene, figure: Figure) -> None:
    scene.reset()
    host, before = scene.host("streamer1"), scene.before["streamer1"]
    began = time.monotonic()
    scene.run("rollout", *ONLY, "--tags", "prepare").assert_ok()
    took_s = time.monotonic() - began
    assert before.not_old() == [], "to prepare touches nothing that runs"

    start = time.time() + 60 + 2 * took_s  # behind the rollout: a class that is due while it runs is in its way
    soon = f"soon-{host.tag}"
    host.book(soon, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(soon), start, start + 20)
    with host.probed() as changes:
        out = scene.run("rollout", *ONLY).assert_ok()
    figure(f"downtime of the rollout: {downtime_s(changes, NEW_VERSION):.2f} s; {'; '.join(_steps(out.tasks))}")
    assert before.not_new() == []
    assert scene.run("rollout", *ONLY).assert_ok().changed == {"streamer1": 0}, "a second run changes nothing"
    assert scene.run("verify", *ONLY).assert_ok().changed == {"streamer1": 0}

    publishes = scene.town.receiver.publishes
    wait_until(
        lambda: [one for one in publishes.get(soon, []) if one.ended_at is not None],
        timeout_s=max(start + 20 - time.time(), 0) + 120,
        description="the class that the old program had booked is aired by the new one",
    )

    with host.probed() as changes:
        scene.run("rollback", *ONLY).assert_ok()
    figure(f"downtime of the rollback: {downtime_s(changes, host.places.old_version):.2f} s")
    assert before.not_old() == []
    assert [soon] in host.rows("SELECT class_id FROM task_list"), "what was written since the rollout is still there"
    assert scene.run("rollback", *ONLY).assert_ok().changed == {"streamer1": 0}
    _the_old_program_airs(scene, host)

    scene.run("rollout", *ONLY).assert_ok()
    assert before.not_new() == []


def _the_old_program_airs(scene: Scene, host: Host) -> None:
    class_id = f"back-{host.tag}"
    now = time.time()
    host.book(class_id, "record/4940_22/video_4940_22.flv", scene.town.receiver.url(class_id), now, now + 3)
    publishes = scene.town.receiver.publishes
    wait_until(lambda: publishes.get(class_id), description="the old program airs a class from its old file")
    wait_until(lambda: publishes[class_id][-1].ended_at, description="the class is over")


def _steps(tasks: list[dict[str, Any]]) -> list[str]:
    return [f"{one['step']}: {one['seconds']:.2f}" for task in tasks for one in task.get("steps", [])]


def test_a_check_says_what_would_change_and_changes_nothing_on_an_untouched_a_half_done_and_a_finished_host(
    scene: Scene,
) -> None:
    scene.reset()
    host = scene.host("streamer1")

    told = _checked(scene, host)
    assert "wget_path" in told
    assert "institution_id" in told

    host.arm("open", mode="kill", at=ALTERED, controller=str(scene.controller.folder / "pid"))
    scene.run("rollout", *ONLY)
    assert host.disarm(), "the window was not killed in its middle"
    host.settle()
    _checked(scene, host)

    scene.run("rollout", *ONLY).assert_ok()
    wait_until(
        lambda: host.rows("SELECT class_id FROM class_list WHERE state = 'ready' AND run_id IS NULL") == [],
        timeout_s=60,
        description="the new program has given the adopted classes their runs",
    )
    _checked(scene, host)


def _checked(scene: Scene, host: Host) -> str:
    before, keys = host.snapshot(), old_world.keys_of(scene.redis)
    played = scene.run("rollout", *ONLY, "--check", "--diff").assert_ok()
    found = differences(before, host.snapshot()) + differences(keys, old_world.keys_of(scene.redis))
    assert [one for one in found if not _is_alive(one)] == [], "a check changes nothing"
    return played.output


def _is_alive(difference: str) -> bool:
    """The new program says in Redis that it is alive, and notes in its database what it did."""
    return difference.startswith(("streamer", "queue", "lectern:"))


def test_a_new_program_that_can_not_start_sends_its_host_back_and_the_next_host_is_never_begun(scene: Scene) -> None:
    scene.reset()
    second = scene.host("streamer2").snapshot()
    with _taken_port() as port, _inventory(scene, health_bind=f"{HOST}:{port}", health_timeout_s=25):
        played = scene.run("rollout").assert_failed()

    assert scene.before["streamer1"].not_old() == []
    assert differences(second, scene.host("streamer2").snapshot()) == []
    assert scene.before["streamer2"].not_old() == []
    assert "What had been changed on the host was taken back" in played.output
    assert not any(one.startswith("Streamer 2") for one in played.done("streamer2"))


@contextmanager
def _taken_port() -> Iterator[int]:
    """A port at which a stranger answers."""
    port = free_port()
    server = http.server.ThreadingHTTPServer((HOST, port), _Stranger)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield port
    server.shutdown()
    thread.join(10)
    server.server_close()


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def _inventory(scene: Scene, **variables: Any) -> Iterator[None]:
    """The inventory has other variables of streamer1 meanwhile."""
    scene.controller.write(scene.inventory(streamer1={f"streamer_{name}": value for name, value in variables.items()}))
    yield
    scene.controller.write(scene.inventory())


# -- a few cases of the crash matrix; `make test-rollout-matrix` plays all of it ------------------


SAMPLE = (
    Case("rollout", "middle", "Streamer 5", "", "resume", after_s=0.2),
    Case("rollout", "step", ALTERED, "", "roll back", step="open"),
    Case("rollout", "fail", "All is as the last step", "", "resume"),
    Case("rollback", "step", "fsync rollout/journal.jsonl (2)", "", "roll back", step="rollback"),
)


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_a_rollout_that_was_cut_off_ends_wholly_new_or_wholly_old(scene: Scene, case: Case) -> None:
    assert play(Only(scene, "streamer1"), scene.host("streamer1"), case) == []


# -- what keeps a rollout away: each is refused in a sentence, before anything was touched ----------------------------


BOOKED = "INSERT INTO task_list (class_id, video_url, push_url, start_time, end_time, status)"


@contextmanager
def _refused(scene: Scene, *words: str, arguments: tuple[str, ...] = ()) -> Iterator[Host]:
    """Refused with *words* after what the body does, and nothing has changed."""
    scene.reset()
    host = scene.host("streamer1")
    yield host
    before = host.snapshot()
    played = scene.run("rollout", *ONLY, *arguments).assert_failed()
    said = " ".join(" ".join(played.failures()).split())
    assert [one for one in words if one not in said] == [], said
    changed = [one for one in differences(before, host.snapshot()) if "/releases" not in one]
    assert [one for one in changed if not one.startswith(f"files {host.places.root}:")] == []
    assert host.states()["watchdog"] == "RUNNING"


def _alter(host: Host, statement: str, *values: object) -> None:
    code = "import json, sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20);"
    code += "c.execute(sys.argv[2], json.loads(sys.argv[3])); c.commit()"
    host.run([host.places.python, "-c", code, str(host.places.database), statement, json.dumps(values)])


def test_a_class_on_air_is_not_cut(scene: Scene) -> None:
    with _refused(scene, "on air or due", "class 'live-1'") as host:
        now = int(time.time())
        live = ("live-1", "http://origin.example/7001/7001.flv", "rtmp://live.example/live/live-1", now - 60, now + 600)
        _alter(host, f"{BOOKED} VALUES (?, ?, ?, ?, ?, 1)", *live)


def test_a_backup_that_would_not_fit_is_not_begun(scene: Scene) -> None:
    with _refused(scene, "the backup needs", "are free") as host:
        host.run(["truncate", "-s", "15T", str(host.places.code_dir / "core.12")])


def test_a_database_that_lacks_an_old_column_is_no_database_of_ours(scene: Scene) -> None:
    with _refused(scene, "task_list", "push_url") as host:
        host.ctl("stop", host.places.old_program)
        _alter(host, "ALTER TABLE task_list RENAME COLUMN push_url TO pushed_to")


def test_a_database_of_an_unknown_version_is_left_alone(scene: Scene) -> None:
    with _refused(scene, "streamer_9999", "newer release") as host:
        _alter(host, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        _alter(host, "INSERT INTO alembic_version VALUES ('streamer_9999')")


def test_an_unknown_release_is_refused(scene: Scene) -> None:
    with _refused(scene, "9.9.9", arguments=("-e", "release=9.9.9", "-e", "release_file=")):
        pass


def test_a_wrong_redis_password_is_found_before_the_stop_and_not_shown(scene: Scene) -> None:
    wrong = scene.redis_url.replace(":made-up", ":wrong-password-made-up")
    with _inventory(scene, redis_url=wrong), _refused(scene, "Redis") as host:
        assert host.answer() == host.places.old_version
    assert "wrong-password" not in (scene.controller.folder / "output.txt").read_text()


def test_another_rollout_that_is_half_done_goes_first(scene: Scene) -> None:
    scene.reset()
    host = scene.host("streamer1")
    host.arm("open", mode="kill", at=ALTERED, controller=str(scene.controller.folder / "pid"))
    scene.run("rollout", *ONLY)
    assert host.disarm(), "the window was not killed in its middle"
    host.settle()

    with _inventory(scene, download_rate="300k"):
        played = scene.run("rollout", *ONLY).assert_failed()
    assert "is half done here" in played.output

    scene.run("rollback", *ONLY).assert_ok()
    assert scene.before["streamer1"].not_old() == []


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on the PATH")
def test_a_host_whose_ssh_key_is_not_known_is_not_spoken_to(scene: Scene) -> None:
    nothing = scene.folder / "no_known_hosts"
    nothing.touch()
    options = f"-o UserKnownHostsFile={nothing} -o GlobalKnownHostsFile={nothing}"
    away = {"ansible_connection": "ssh", "ansible_host": HOST, "ansible_port": free_port()}
    scene.controller.write(scene.inventory(streamer1={**away, "ansible_ssh_common_args": options}))
    played = scene.run("rollout", *ONLY).assert_failed()
    scene.controller.write(scene.inventory())
    assert "host key is not known" in played.output
    assert "ssh-keyscan" in played.output
