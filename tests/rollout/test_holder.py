"""A process on the host does the window task by task, goes on by itself, and takes back what fails."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout import window
from lectern.rollout.spec import Installed
from lectern.rollout.steps import TASKS
from lectern.rollout.window import SOCKET, address
from tests.rollout.host import Host, a_host
from tests.stage import wait_until

pytestmark = pytest.mark.live

PATIENCE = "from lectern.rollout import window\nwindow.{name} = {seconds}\n"
PATIENT = PATIENCE.format(name="PACE_S", seconds=60)
"""A busy machine may take seconds over the test's next word, after which the host would go on by itself."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with a_host(tmp_path) as found:
        found.done("backup")
        yield found
        wait_until(lambda: not socket_of(found).exists(), description="no holder is left behind")


def socket_of(host: Host) -> Path:
    return host.root / "rollout" / SOCKET


def opened(host: Host, *options: str, fault: str = "") -> dict[str, Any]:
    answered = host.step("open", *options, fault=PATIENT + fault)
    assert answered.code == 0, answered
    return answered.fields


def ask(host: Host, task: str) -> dict[str, Any]:
    """As the playbook's module asks; of a holder that has ended, what became of the task."""
    try:
        with address(host.root / "rollout") as place, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(place)
            connection.sendall(json.dumps({"task": task}).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as file:
                told = file.readline()
    except OSError:
        told = ""
    found = json.loads(told) if told else window.ended(Installed(role="streamer", root=host.root), task).to_dict()
    assert isinstance(found, dict)
    return found


def process_of(host: Host) -> int:
    return int((host.root / "rollout" / "lock").read_text().split()[0])


def state_of(host: Host) -> str:
    found: str = host.told()["state"]
    return found


def test_under_systemd_it_lives_in_a_unit_of_its_own(host: Host, tmp_path: Path) -> None:
    """So that the end of the ssh session, or of whatever called it, does not end it."""
    asked = tmp_path / "asked"
    (tmp_path / "busctl").write_text(f'#!/bin/sh\necho "$@" >{asked}\n')
    (tmp_path / "busctl").chmod(0o755)
    fault = PATIENCE.format(name="FIRST_WORD_S", seconds=1)
    fault += (
        f"import os, pathlib\nwindow._SYSTEMD = pathlib.Path('/')\nos.environ['PATH'] = '{tmp_path}:/usr/bin:/bin'\n"
    )
    said = opened(host, fault=fault)["said"][0]
    wait_until(asked.exists, description="systemd is asked")
    pid = said.split()[1]
    assert (
        f"StartTransientUnit ssa(sv)a(sa(sv)) lectern-rollout-{pid}.scope fail 2 PIDs au 1 {pid}" in asked.read_text()
    )


def test_each_task_does_what_its_name_says_and_tells_it(host: Host) -> None:
    """What is done already is answered, and not done again; none is done before its turn."""
    assert opened(host)["opened"]
    assert "The next task is stop, not switch" in ask(host, "switch")["msg"]
    *tasks, last = TASKS["streamer"]
    answers = {task: ask(host, task) for task in tasks}
    assert not ask(host, "stop")["changed"]
    answers[last] = ask(host, last)
    assert [task for task, one in answers.items() if not one["changed"]] == ["adopt", "healthy"]
    assert all(one["steps"] for task, one in answers.items() if task != "commit")
    assert "institution_id VARCHAR(250)" in answers["alter"]["diff"][0]["after"]
    assert not any("institution_id" in one for one in answers["create"]["said"])
    assert answers["commit"]["downtime_s"] > 0
    host.is_new()
    again = opened(host)
    assert not again["changed"]
    assert [one["changed"] for one in again["plan"].values()] == [False] * len(TASKS["streamer"])


def test_where_no_further_word_comes_the_host_goes_on_by_itself(host: Host) -> None:
    opened(host, fault=PATIENCE.format(name="PACE_S", seconds=0.3))
    assert ask(host, "stop")["changed"]
    wait_until(lambda: state_of(host) == "finished", description="the host has done the rest")
    host.is_new()
    late = ask(host, "create")
    assert not late["changed"]
    assert "went on by itself" in late["said"][0]


def test_without_a_first_word_nothing_is_stopped(host: Host) -> None:
    before = host.tree()
    opened(host, fault=PATIENCE.format(name="FIRST_WORD_S", seconds=0.3))
    wait_until(lambda: not socket_of(host).exists(), description="the holder has given up")
    host.is_old(before)
    with pytest.raises(Misuse, match="nothing was begun"):
        ask(host, "stop")


def test_who_confirms_by_hand_and_goes_away_gets_the_old_host(host: Host) -> None:
    before = host.tree()
    opened(host, "--by-hand", fault=PATIENCE.format(name="BY_HAND_S", seconds=5))
    ask(host, "stop")
    ask(host, "alter")
    wait_until(lambda: state_of(host) == "rolledback", description="all is taken back")
    host.is_old(before)
    with pytest.raises(CallAPerson, match="No word came for 5 s before the task create"):
        ask(host, "create")


@pytest.mark.parametrize("last", ["stop", "switch", "healthy"])
def test_a_rollback_does_not_wait_until_the_window_is_done_which_it_would_take_back(host: Host, last: str) -> None:
    """As when a task of the playbook fails by itself: the process on the host knows nothing of it."""
    before = host.tree()
    opened(host, "--by-hand")  # it would wait for ten minutes
    for task in TASKS["streamer"][: TASKS["streamer"].index(last) + 1]:
        ask(host, task)
    answer = host.done("rollback")
    assert answer["changed"]
    assert "has heard of this rollback" in answer["said"][0]
    assert state_of(host) == "rolledback"
    host.is_old(before)
    with pytest.raises(CallAPerson, match="The host is as it was before"):
        ask(host, "commit")


def test_a_rollback_before_the_first_task_leaves_nobody_to_begin_it(host: Host) -> None:
    before = host.tree()
    opened(host, "--by-hand")
    assert not host.done("rollback")["changed"]
    wait_until(lambda: not socket_of(host).exists(), description="the holder has ended")
    host.is_old(before)


def test_a_task_that_fails_says_why_and_takes_all_back(host: Host) -> None:
    before = host.tree()
    opened(host, fault="from lectern.rollout import release_link\nrelease_link.apply = lambda _: 1 / 0\n")
    for task in ("stop", "alter", "create"):
        ask(host, task)
    answer = ask(host, "switch")
    assert answer["failed"]
    assert "5 switch to the release: ZeroDivisionError" in answer["msg"]
    host.is_old(before)
    with pytest.raises(CallAPerson, match="ZeroDivisionError"):
        ask(host, "env")


@pytest.mark.parametrize("last", ["stop", "switch", "reload", "healthy"])
def test_a_holder_that_is_killed_is_followed_by_the_next_one(host: Host, last: str) -> None:
    """Which answers each task in its order, also if only the commit was missing: the playbook asks for all of them."""
    opened(host)
    for task in TASKS["streamer"][: TASKS["streamer"].index(last) + 1]:
        ask(host, task)
    os.kill(process_of(host), signal.SIGKILL)
    with pytest.raises(TryAgain, match="ended in the middle"):
        ask(host, "healthy")
    opened(host)
    answers = [ask(host, task) for task in TASKS["streamer"]]
    assert not [one for one in answers if one.get("failed")]
    assert state_of(host) == "finished"
    host.is_new()


LATE = """
from lectern.rollout.journal import RolloutJournal
real = RolloutJournal.state
def state(self, id_):
    RolloutJournal.state = real
    return "untouched"  # as it was before this one waited for the lock
RolloutJournal.state = state
"""


def test_who_has_waited_for_another_with_the_same_rollout_finds_it_finished(host: Host) -> None:
    """To do it once more would copy the new program over the copy of the old one, to which nobody could go back."""
    before = host.tree()
    opened(host)
    for task in TASKS["streamer"]:
        ask(host, task)
    assert not opened(host, fault=LATE)["opened"]
    assert host.done("rollback")["changed"]
    host.is_old(before)


FULL = """
import errno
from lectern.rollout.backup.sqlite import SqliteFile
def copy(self, folder):
    (folder / self.file.name).write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")
SqliteFile.copy = copy
"""


def test_a_disk_that_is_full_when_all_is_copied_once_more_takes_the_host_back(host: Host) -> None:
    """Nothing was changed since the first copy, so nothing is missing; and half a copy takes the host no room."""
    before = host.tree()
    opened(host)
    ask(host, "stop")
    os.kill(process_of(host), signal.SIGKILL)
    opened(host, fault=FULL)
    assert "No space left on device The host was rolled back" in ask(host, "stop")["msg"]
    host.is_old(before)
    assert not [*(host.root / "rollout" / "backups").rglob("*.part")]


def test_what_keeps_the_window_from_beginning_is_told_at_once(host: Host) -> None:
    (backup,) = (host.root / "rollout" / "backups").iterdir()
    backup.rename(host.folder / "elsewhere")
    answered = host.step("open")
    assert answered.code == 2
    assert "no backup" in answered.msg
    assert host.states() == {"idc_client": "RUNNING"}
    assert not (host.root / "current").exists()
