"""A process on the host does the window task by task, goes on by itself, and takes back what fails."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout import window
from lectern.rollout.spec import Installed
from lectern.rollout.steps import TASKS
from lectern.rollout.window import SOCKET
from tests.rollout.host import Host
from tests.stage import wait_until

pytestmark = pytest.mark.live

PATIENCE = "from lectern.rollout import window\nwindow.{name} = {seconds}\n"
PATIENT = PATIENCE.format(name="PACE_S", seconds=60)
"""A busy machine may take seconds over the test's next word, after which the host would go on by itself."""


@pytest.fixture
def host(host: Host) -> Iterator[Host]:
    host.done("backup")
    yield host
    wait_until(lambda: not socket_of(host).exists(), description="no holder is left behind")


def socket_of(host: Host) -> Path:
    return host.root / "rollout" / SOCKET


def opened(host: Host, *options: str, fault: str = "") -> dict[str, Any]:
    answered = host.step("open", *options, fault=PATIENT + fault)
    assert answered.code == 0, answered
    return answered.fields


def ask(host: Host, task: str) -> dict[str, Any]:
    """As the playbook's module asks; of a holder that has ended, what became of the task."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            with chdir(host.root / "rollout"):
                connection.connect(SOCKET)
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
    return host.history().state(host.parsed().id)


LATE = """
from lectern.rollout.journal import RolloutJournal
real = RolloutJournal.state
def state(self, id_):
    RolloutJournal.state = real
    return "untouched"  # as it was before this one waited for the lock
RolloutJournal.state = state
"""


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
    # Whoever has waited for another with the same rollout finds it finished: else the copy of the old one were gone.
    assert not opened(host, fault=LATE)["opened"]
    assert host.done("rollback")["changed"]
    host.is_old()


def test_where_no_further_word_comes_the_host_goes_on_by_itself(host: Host) -> None:
    opened(host, fault=PATIENCE.format(name="PACE_S", seconds=0.3))
    assert ask(host, "stop")["changed"]
    os.kill(process_of(host), signal.SIGHUP)  # a terminal that is lost ends nothing
    wait_until(lambda: state_of(host) == "finished", description="the host has done the rest")
    host.is_new()
    late = ask(host, "create")
    assert not late["changed"]
    assert "went on by itself" in late["said"][0]


def test_without_a_first_word_nothing_is_stopped(host: Host) -> None:
    opened(host, fault=PATIENCE.format(name="FIRST_WORD_S", seconds=0.3))
    wait_until(lambda: not socket_of(host).exists(), description="the holder has given up")
    opened(host, "--by-hand")
    assert not host.done("rollback")["changed"]
    wait_until(lambda: not socket_of(host).exists(), description="nobody is left who could begin")
    host.is_old()
    with pytest.raises(Misuse, match="nothing was begun"):
        ask(host, "stop")


def test_who_confirms_by_hand_and_goes_away_gets_the_old_host(host: Host) -> None:
    opened(host, "--by-hand", fault=PATIENCE.format(name="BY_HAND_S", seconds=5))
    ask(host, "stop")
    ask(host, "alter")
    wait_until(lambda: state_of(host) == "rolledback", description="all is taken back")
    host.is_old()
    with pytest.raises(CallAPerson, match="No word came for 5 s before the task create"):
        ask(host, "create")


@pytest.mark.parametrize("last", ["stop", "switch", "healthy"])
def test_a_rollback_does_not_wait_until_the_window_is_done_which_it_would_take_back(host: Host, last: str) -> None:
    """As when a task of the playbook fails by itself: the process on the host knows nothing of it."""
    opened(host, "--by-hand")  # it would wait for ten minutes
    for task in TASKS["streamer"][: TASKS["streamer"].index(last) + 1]:
        ask(host, task)
    answer = host.done("rollback")
    assert answer["changed"]
    assert "has heard of this rollback" in answer["said"][0]
    assert state_of(host) == "rolledback"
    host.is_old()
    with pytest.raises(CallAPerson, match="The host is as it was before"):
        ask(host, "commit")


@pytest.mark.parametrize("last", ["stop", "switch", "reload", "healthy"])
def test_a_holder_that_is_killed_is_followed_by_the_next_one(host: Host, last: str) -> None:
    """Which answers each task in its order, also if only the commit was missing: the playbook asks for all of them."""
    opened(host)
    for task in TASKS["streamer"][: TASKS["streamer"].index(last) + 1]:
        ask(host, task)
    pid = host.ctl("pid", "lectern-streamer")
    os.kill(process_of(host), signal.SIGKILL)
    with pytest.raises(TryAgain, match="ended in the middle"):
        ask(host, "healthy")
    opened(host)
    answers = [ask(host, task) for task in TASKS["streamer"]]
    assert not [one for one in answers if one.get("failed")]
    assert state_of(host) == "finished"
    host.is_new()
    assert last != "healthy" or host.ctl("pid", "lectern-streamer") == pid, "it is not stopped again"


FULL = """
import errno
from lectern.rollout.backup.sqlite import SqliteFile
def copy(self, folder):
    (folder / self.file.name).write_bytes(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")
SqliteFile.copy = copy
"""


def test_a_task_that_fails_says_why_and_takes_all_back(host: Host) -> None:
    """A disk that is full when all is copied once more: nothing is missing, and half a copy takes the host no room."""
    opened(host)
    ask(host, "stop")
    os.kill(process_of(host), signal.SIGKILL)
    opened(host, fault=FULL)
    answer = ask(host, "stop")
    assert answer["failed"]
    assert "No space left on device The host was rolled back" in answer["msg"]
    host.is_old()
    with pytest.raises(CallAPerson, match="No space left on device"):
        ask(host, "alter")
    assert not [*(host.root / "rollout" / "backups").rglob("*.part")]


def test_what_keeps_the_window_from_beginning_is_told_at_once(host: Host) -> None:
    (backup,) = (host.root / "rollout" / "backups").iterdir()
    backup.rename(host.folder / "elsewhere")
    answered = host.step("open")
    assert answered.code == 2
    assert "no backup" in answered.msg
    assert host.states() == {"idc_client": "RUNNING"}
    assert not (host.root / "current").exists()
