"""kill -9 of the window at every line of its journal: the same command goes on, or a rollback takes all back."""

from pathlib import Path

import pytest

from tests.rollout.host import Host, a_host

pytestmark = pytest.mark.night

NOTES = 20
"""So many lines does the window of a streamer write."""

KILL = """
import os, signal
from lectern.rollout.journal import Journal
calls, real = [0], Journal.note
def note(self, id_, step, state, detail=None):
    calls[0] += 1
    last = calls[0] == {number}
    if last and state == "done":
        os.kill(os.getpid(), signal.SIGKILL)  # the work is done, and the line that says so is missing
    real(self, id_, step, state, detail)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)  # the line says that it is begun, and nothing is done
Journal.note = note
"""


def killed(host: Host, step: str, number: int) -> None:
    answered = host.step(step, fault=KILL.format(number=number))
    assert answered.code == -9, f"the fault did not fire: {answered}"


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_the_same_command_goes_on(tmp_path: Path, number: int) -> None:
    with a_host(tmp_path) as host:
        host.done("backup")
        killed(host, "window", number)
        answer = host.done("window")
        assert answer["changed"]
        host.is_new()


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_a_rollback_takes_all_back(tmp_path: Path, number: int) -> None:
    with a_host(tmp_path) as host:
        before = host.tree()
        host.done("backup")
        killed(host, "window", number)
        assert host.done("rollback")["changed"]
        host.is_old(before)
        host.done("verify")


def test_the_window_of_a_streamer_writes_so_many_lines(tmp_path: Path) -> None:
    """Otherwise a step would be left out above."""
    with a_host(tmp_path) as host:
        host.done("backup")
        lines = (host.root / "rollout" / "journal.jsonl").read_text().count("\n")
        host.done("window")
        assert (host.root / "rollout" / "journal.jsonl").read_text().count("\n") - lines == NOTES
