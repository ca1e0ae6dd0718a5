"""supervisorctl is asked, and its exit codes are not believed."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lectern.errors import CallAPerson, TryAgain
from lectern.rollout import supervisord
from lectern.rollout.backup.host import FilesBefore, KeptFile
from lectern.rollout.supervisord import Health, Supervisord, as_before, programs_in, wait_until_well
from tests.answering import Answer, serving
from tests.playbooks.here import program

pytestmark = pytest.mark.live

Says = Callable[..., Supervisord]
CONF = Path(__file__).parents[2] / "playbooks/roles/host/templates/lectern.conf.j2"


def doing(folder: Path, lines: str) -> Supervisord:
    """A supervisorctl that does so; the real one is asked in the tests of the window."""
    text = f"#!{sys.executable}\nimport sys, time\nfrom pathlib import Path\n{lines}\n"
    return Supervisord([str(program(folder / "supervisorctl", text))])


@pytest.fixture
def says(tmp_path: Path) -> Says:
    """One that answers so."""
    return lambda output, code=0: doing(tmp_path, f"sys.stdout.write({output!r})\nsys.exit({code})")


def test_no_program_and_one_that_is_stopped_are_no_failure(says: Says) -> None:
    output = (
        "idc_client                       RUNNING   pid 7, uptime 0:00:01\nold:old_00   STOPPED   Nov 24 07:00 PM\n"
    )
    assert says(output, 3).states() == {"idc_client": "RUNNING", "old:old_00": "STOPPED"}
    assert says("").states() == {}


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("unix:///run/supervisor.sock no such file\n", 4),
        ("unix:///run/supervisor.sock refused connection\n", 4),
        ("error: <class 'xmlrpc.client.Fault'>, <Fault 6: 'SHUTDOWN_STATE'>: file: x line: 800\n", 1),
        ("", 1),
        ("Error: .ini file does not include supervisorctl section\n", 2),
    ],
)
def test_a_silent_supervisord_is_told_from_an_empty_one(says: Says, output: str, code: int) -> None:
    with pytest.raises(TryAgain, match="supervisord does not answer"):
        says(output, code).states()
    assert says(output, code).states_or_none() is None


def test_a_program_that_does_not_stop_or_does_not_start_is_named(says: Says) -> None:
    with pytest.raises(CallAPerson, match="slow: still at work after"):
        says("slow   STOPPING\nother   STOPPED\n", 3).stop_all()
    with pytest.raises(CallAPerson, match=r"idc_client is FATAL 0\.1 s after the reload"):
        as_before(says("idc_client   FATAL   Exited too quickly\n", 3), {"idc_client": "RUNNING"}, timeout_s=0.1)


@pytest.mark.parametrize(
    ("states", "stops"),
    [(["RUNNING", "STOPPED"], 2), (["EXITED", "RUNNING", "STOPPED"], 2), (["EXITED", "EXITED"], 1)],
)
def test_a_program_that_had_just_died_is_stopped_though_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: list[str], stops: int
) -> None:
    """A `stop all` that comes while it is EXITED finds nothing to stop; a moment later it may be at work again."""
    monkeypatch.setattr(supervisord, "_POLL_S", 60.0)  # its states are counted: nobody asks for them during a stop
    asked = tmp_path / "asked"
    lines = f"asked = Path({str(asked)!r})\nbefore = asked.read_text().split() if asked.exists() else []\n"
    lines += "asked.write_text(' '.join([*before, sys.argv[1]]))\n"
    lines += f"if sys.argv[1] == 'status':\n    print('dies  ', {states}[before.count('status')])"
    doing(tmp_path, lines).stop_all()
    assert asked.read_text().split().count("stop") == stops


def test_supervisord_is_asked_while_it_stops_all_as_it_looks_only_then(tmp_path: Path) -> None:
    """Else it looks once a second, while the host is silent."""
    ended = tmp_path / "ended"
    lines = f"asked = Path({str(tmp_path / 'asked')!r})\n"
    lines += "if sys.argv[1] == 'status':\n    asked.touch()\n    print('idc_client  STOPPED')\n    sys.exit(3)\n"
    lines += "for _ in range(200):\n    if asked.exists():\n        break\n    time.sleep(0.05)\n"
    lines += f"else:\n    sys.exit('nobody has asked')\nPath({str(ended)!r}).touch()"
    doing(tmp_path, lines).stop_all()
    assert ended.exists()


class Late(Answer):
    def answer(self) -> None:
        time.sleep(4)
        super().answer()


def test_a_program_that_answers_late_on_a_busy_host_is_well(says: Says) -> None:
    """Else a host that has gone back is said not to be back; but another one that answers is not the new one.

    What is to be typed then shows what it wrote: its supervisor file sends all of that to its standard output.
    """
    assert "\nredirect_stderr=true\n" in CONF.read_text()
    answer = {"version": "2.0.0", "role": "streamer", "name": "streamer1", "ready": True}
    with serving(Late, body=json.dumps(answer).encode()) as server:
        wanted: Any = SimpleNamespace(**answer, program="lectern-streamer", health_url=server.url, health_timeout_s=0.1)
        supervisor = says("lectern-streamer   RUNNING   pid 7, uptime 0:00:01\n")
        assert Health(wanted, supervisor).is_well()
        wanted.name = "other"
        typed = r"See supervisorctl tail -3000 lectern-streamer\. "
        with pytest.raises(CallAPerson, match=rf"'name': 'streamer1'.* {typed}.* raise streamer_health_timeout_s"):
            wait_until_well(wanted, supervisor)


def test_the_programs_of_a_supervisor_file(tmp_path: Path) -> None:
    """A comment may be in another encoding: a supervisord under Python 2 takes it, and so must a rollout at its end."""
    conf = (
        "[program:a]\ncommand=x\n; [program:no] 推流\n [group:g]\nprograms=b,c\n[fcgi-program:f]\n[eventlistener:e]\n"
    )
    (tmp_path / "0-old.conf").write_bytes(f"{conf}[x]\n".encode("gbk"))
    kept = KeptFile(path=tmp_path / "old.conf", stored="0-old.conf")
    before = FilesBefore(link=None, files=[kept], folder=tmp_path)
    assert programs_in(before.text(kept.path)) == {"a", "g", "f", "e"}
