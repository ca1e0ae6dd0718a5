"""`lectern playout`, as a person types it, and its metrics."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lectern import metrics
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.waiting import wait_until

pytestmark = pytest.mark.live


def lectern(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("lectern"))]
    return subprocess.run([*argv, "playout", *arguments], capture_output=True, text=True, timeout=100, check=False)


def test_status_and_upgrade_speak_to_people_and_to_programs(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: playout.told("on_air"), description="on air")
        place = ("--dir", str(playout.folder), "--socket", str(playout.socket))
        shown = lectern(*place, "status")
        assert shown.returncode == 0
        assert "On air: 1 of 1 class; 0 reconnects" in shown.stdout
        assert "  c1  on air at " in shown.stdout
        upgraded = lectern(*place, "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        assert "is on air: 1 session went on of 1; the longest gap was 0." in upgraded.stdout
        found = json.loads(lectern(*place, "status", "--json").stdout)
        assert found["worker"]["taken_over"]["why"] == "upgrade"
        assert found["classes"][0]["class_id"] == "c1"
        assert len(receiver.sessions) == 1


def test_where_no_playout_runs_a_command_says_what_to_do(tmp_path: Path) -> None:
    done = lectern("--dir", str(tmp_path), "status")
    assert done.returncode == 1
    assert "no playout answers there" in done.stderr
    assert "Start it: lectern playout" in done.stderr


@pytest.mark.parametrize("in_the_way", ["p", "p/playout.lock/x", "p/playout.sock/x"])
def test_folder_that_cannot_be_used_is_told_in_one_sentence_with_what_to_type(tmp_path: Path, in_the_way: str) -> None:
    """Whoever tries it by hand has no rights in /var/lib."""
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).touch()
    done = lectern("--dir", str(tmp_path / "p"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"lectern playout: {tmp_path / 'p'}")
    assert "Errno" not in done.stderr
    assert "--dir" in done.stderr or "--socket" in done.stderr


def test_the_command_becomes_the_holder_which_stays_small(tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("lectern")), "playout", "--dir", str(tmp_path / "p")]
    process = subprocess.Popen(argv)
    try:
        wait_until((tmp_path / "p/playout.sock").exists, description="the socket")
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        pss_kb = int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        assert pss_kb < 30_000
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
        assert not (tmp_path / "p/playout.sock").exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("arguments", [("--help",), ("status", "--help"), ("upgrade", "--help")])
def test_help_names_the_settings(arguments: tuple[str, ...]) -> None:
    done = lectern(*arguments)
    assert done.returncode == 0
    if arguments == ("--help",):
        assert all(name in done.stdout for name in ("PLAYOUT_DIR", "PLAYOUT_SOCKET", "PLAYOUT_CA_FILE"))


def read(text: bytes) -> dict[str, float]:
    """The value of each metric."""
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_metrics_tell_of_sessions_lateness_bytes_reconnects_and_the_lease(tmp_path: Path) -> None:
    """One class is on air, with one session; the other one's server is not there."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=100) as playout:
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        playout.air("c2", path, "rtmp://127.0.0.1:1/live/c2", starts_in_s=0.2)
        wait_until(lambda: playout.told("on_air"), description="on air")
        wait_until(lambda: playout.told("broke_off"), description="a try that failed")
        found = read(metrics.playout_exposition(playout.ask("status")))
    assert found["lectern_playout_up"] == 1
    assert found["lectern_playout_sessions"] == found["lectern_playout_classes_on_air"] == 1
    assert 90 < found["lectern_playout_lease_left_seconds"] <= 100
    assert found["lectern_playout_bytes_total"] > 0
    assert found["lectern_playout_reconnects_total"] >= 1
    assert found["lectern_playout_slate_seconds"] == 0
    assert 0 <= found["lectern_playout_lateness_seconds"] < 10


def test_a_playout_that_does_not_answer_is_down() -> None:
    assert read(metrics.playout_exposition(None)) == {"lectern_playout_up": 0}
