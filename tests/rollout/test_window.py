"""The window: wholly new, or wholly as before."""

import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from tests.rollout.host import NOTES, Host
from tests.rollout.steps import Fields
from tests.stage import wait_until

pytestmark = pytest.mark.live


def program_pid(host: Host, name: str) -> int:
    return int(host.ctl("pid", name))


def test_a_streamer_becomes_new_and_then_old_again_as_often_as_wanted(host: Host) -> None:
    """What is finished is not stopped again, and a used backup is not the one of the next try."""
    answer = host.roll_out()
    assert answer["changed"]
    assert [one["step"].split()[0] for one in answer["steps"]] == ["2", "1", "3", "4", "5", "6", "7", "8", "8"]
    rounding_s = 0.0005 * (len(answer["steps"]) + 1)  # each is told in milliseconds
    assert 0 < answer["downtime_s"] <= round(sum(one["seconds"] for one in answer["steps"]) + rounding_s, 4)
    host.is_new()
    pid, lines = host.pid(), host.journal()
    for step in ("backup", "window"):
        assert not host.done(step)["changed"]
    assert (host.pid(), host.journal()) == (pid, lines)
    for options in (["--check"], []):
        assert host.done("rollback", *options)["changed"]
    host.is_old()
    for options in (["--check"], []):
        assert not host.done("rollback", *options)["changed"]
    host.roll_out()
    host.is_new()
    host.done("rollback")
    host.is_old()
    assert len([*(host.root / "rollout" / "backups").glob("*.used-*")]) == 2


def test_a_rollback_does_not_end_a_backup_nor_does_a_second_one_begin_meanwhile(host: Host) -> None:
    """Whoever makes one has nothing to undo: it is waited for."""
    go_on = host.folder / "go-on"
    slow = "import os, time\nfrom lectern.rollout.backup import host\nreal = host.archive\ndef archive(*args):\n"
    slow += f"    while not os.path.exists({str(go_on)!r}): time.sleep(0.05)\n"
    slow += "    return (time.sleep(2), real(*args))[1]\nhost.archive = archive\n"
    backup = host.begin("backup", fault=slow)
    wait_until(lambda: '"backup"' in host.journal(), description="the backup is under way")
    impatient = "from lectern.rollout import journal\njournal.locked.__wrapped__.__defaults__ = (0.2,)\n"
    assert "another rollout is at work" in host.fails("backup", fault=impatient)
    go_on.touch()
    assert not host.done("rollback")["changed"]
    assert backup.answered().code == 0


def test_a_new_program_that_does_not_start_is_taken_back_and_its_last_words_are_told(host: Host) -> None:
    (host.code / "broken").touch()
    before, wanted = host.tree(), host.wanted(health_timeout_s=10)
    host.done("backup", wanted=wanted)
    said = host.fails("window", wanted=wanted)
    assert "step 8 healthy" in said
    assert "the new program is broken: no such module" in said
    assert "rolled back" in said
    host.is_old(before)
    host.done("verify", wanted=wanted)


def test_another_version_that_answers_is_not_the_new_one(host: Host) -> None:
    before = host.tree()
    wanted = host.wanted(health_timeout_s=8, health_url=f"http://127.0.0.1:{host.health_port}/health", name="other")
    host.done("backup", wanted=wanted)
    answered = host.step("window", wanted=wanted)
    assert answered.code == 1
    assert "'name': 'streamer1'" in answered.msg
    assert "raise streamer_health_timeout_s" in answered.msg
    host.is_old(before)


def test_whatever_fails_on_the_way_back_is_told_and_the_next_try_goes_on(host: Host) -> None:
    """A database that is locked, a disk that is full: a person hears that the host is half done."""
    before = host.tree()
    host.done("backup")
    fault = "from lectern.rollout import release_link, supervisord\n"
    fault += "def fails(*_, **__): raise RuntimeError('odd')\n"
    fault += "supervisord.wait_until_well = release_link.take_back = fails\n"
    answered = host.step("window", fault=fault)
    assert answered.code == 1
    assert "Then the rollback failed too: RuntimeError: odd The host is half done." in answered.msg
    host.done("rollback")
    host.is_old(before)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_for_the_end_gets_the_old_host(host: Host, sign: signal.Signals) -> None:
    before = host.tree()
    host.done("backup")
    (host.code / "broken").touch()
    step = host.begin("window")
    wait_until(lambda: '"reload", "state": "done"' in host.journal(), description="the reload is done")
    os.kill(step.pid, sign)
    answered = step.answered()
    assert answered.code == 1
    assert f"Ended by {sign.name}" in answered.msg
    (host.code / "broken").unlink()
    host.is_old(before)


def test_a_lost_terminal_ends_nothing(host: Host) -> None:
    """SIGHUP is ignored, and so is that nobody reads the answer any more."""
    host.done("backup")
    fault = "import os, sys\nread, write = os.pipe()\nos.dup2(write, 1)\nos.close(write)\nos.close(read)\n"
    fault += "sys.stdout = open(1, 'w', closefd=False)\n"  # as from its beginning: no file that asks for its place
    step = host.begin("window", fault=fault)
    wait_until(lambda: '"stop"' in host.journal(), description="the window is begun")
    os.kill(step.pid, signal.SIGHUP)
    assert step.answered().code == 0
    host.is_new()


def test_programs_that_are_not_ours_are_as_they_were(host: Host) -> None:
    """One that ran runs again, though a reload does not start it; one that was stopped by hand is never started."""
    sleep = "/bin/sleep 1000"
    host.write_program("neighbour", sleep)
    begun = host.folder / "by_hand.begun"
    (host.code / "by_hand.sh").write_text(f"echo begun >> {begun}\nexec {sleep}\n")
    host.write_program("by_hand", f"/bin/sh {host.code}/by_hand.sh")
    host.write_program("not_by_itself", sleep, autostart="false")
    host.write_program("pair", sleep, numprocs="2", process_name="%(program_name)s_%(process_num)02d")
    host.ctl("update")
    host.ctl("stop", "by_hand")
    host.ctl("start", "not_by_itself")
    expected = {
        "neighbour": "RUNNING",
        "by_hand": "STOPPED",
        "not_by_itself": "RUNNING",
        "pair:pair_00": "RUNNING",
        "pair:pair_01": "RUNNING",
    }
    wait_until(lambda: host.states() == {**expected, "idc_client": "RUNNING"}, description="all are at work")
    host.roll_out()
    assert host.states() == {**expected, "lectern-streamer": "RUNNING"}
    host.done("rollback")
    assert host.states() == {**expected, "idc_client": "RUNNING"}
    host.ctl("stop", "idc_client")
    host.roll_out()
    host.done("rollback")
    assert host.states() == {**expected, "idc_client": "STOPPED"}
    assert begun.read_text() == "begun\n", "what a person has stopped is not started, not for a second"


def test_a_window_that_was_killed_behind_its_work_is_finished_without_another_stop(host: Host) -> None:
    host.done("backup")
    host.killed("window", NOTES - 1)
    wait_until(lambda: host.states().get("lectern-streamer") == "RUNNING", description="the new program runs")
    pid = program_pid(host, "lectern-streamer")
    assert host.done("window")["changed"]
    assert program_pid(host, "lectern-streamer") == pid
    host.is_new()


def test_nothing_is_stopped_if_supervisord_is_silent_or_a_class_is_booked_since(host: Host) -> None:
    silent = host.wanted(supervisorctl=[host.supervisorctl[0], "-s", "unix:///nowhere/s"])
    for wanted in (silent, host.wanted()):
        host.done("backup", wanted=wanted)
    assert "supervisord does not answer" in host.fails("window", wanted=silent)
    host.done("rollback", wanted=silent)
    host.book("late", time.time() + 60, time.time() + 600)
    said = host.fails("window")
    assert "class 'late'" in said
    assert "Nothing was stopped" in said
    assert not host.done("rollback")["changed"]
    assert host.states() == {"idc_client": "RUNNING"}


def test_what_a_crash_leaves_beside_a_file_goes(host: Host) -> None:
    before = host.tree()
    host.done("backup")
    torn = "import os\nfrom pathlib import Path\nreal = Path.replace\n"
    torn += "Path.replace = lambda self, to: os.kill(os.getpid(), 9) if self.name == '..env.part' else real(self, to)\n"
    assert host.step("window", fault=torn).code == -9
    assert (host.code / "..env.part").exists()
    host.done("rollback")
    host.is_old(before)


def upgraded(host: Host) -> Fields:
    """2.0.1 stands upon 2.0.0; returns what is wanted of it."""
    host.stage_release("2.0.1")
    newer = host.wanted(version="2.0.1")
    for wanted in (host.wanted(), newer):
        host.roll_out(wanted)
    return newer


def test_a_newer_release_goes_over_an_older_one_and_back(host: Host) -> None:
    """Each way back says what it ends at; the older one is not taken back from below the newer one."""
    newer = upgraded(host)
    host.done("verify", wanted=newer)
    assert host.runs() == "2.0.1"
    assert "2.0.1" in host.step("rollback").fields["said"][1]
    for option in ("--check", None):
        said = host.done("rollback", *([option] if option else []), wanted=newer)["said"]
        assert "lectern 2.0.0 (streamer-2.0.0-" in said[-1]
    host.is_new()
    assert "the old program" in host.done("rollback")["said"][-1]


def test_nothing_is_stopped_if_what_a_rollback_needs_is_gone_or_could_not_start(host: Host) -> None:
    """Old releases are deleted; one that is there says whether it can use the database."""
    newer = upgraded(host)
    restored = {**newer, "restore_database": True}
    release, (backup,) = host.root / "releases/2.0.0", (host.root / "rollout/backups").glob("streamer-2.0.1-*")
    for needed, words in (
        (release, "the release that a rollback would start is gone. Nothing was stopped."),
        (backup, "what was copied before the change is gone. Nothing was changed."),
    ):
        needed.rename(host.folder / "gone")
        for wanted in (newer, restored):
            assert words in host.fails("rollback", wanted=wanted)
        (host.folder / "gone").rename(needed)
    (host.code / "refuses-2.0.0").touch()
    for options in (["--check"], []):
        said = host.fails("rollback", *options, wanted=newer)
        assert "lectern 2.0.0, which a rollback would start, cannot use the database as it is now" in said
        assert "a newer release wrote the database" in said
    host.done("verify", wanted=newer)
    host.done("rollback", wanted=restored)
    host.is_new()


def test_a_class_on_air_is_cut_by_a_rollback_only_if_that_is_said(host: Host) -> None:
    host.roll_out()
    host.book("live", int(time.time()) - 9, int(time.time()) + 900)
    for option in ("--check", None):
        answered = host.step("rollback", *([option] if option else []))
        assert "class 'live'" in answered.msg
        assert "-e even_on_air=true" in answered.msg
    host.is_new()
    host.done("rollback", wanted=host.wanted(even_on_air=True))
    assert host.states() == {"idc_client": "RUNNING"}


def test_while_another_rollout_is_half_done_none_begins(host: Host) -> None:
    host.stage_release("2.0.1")
    newer = host.wanted(version="2.0.1")
    host.done("backup")
    host.done("backup", wanted=newer)
    host.dies("window", "release_link.apply")
    said = host.fails("window", wanted=newer, code=2)
    assert "streamer-2.0.0" in said
    assert "half done" in said
    assert "half done" in host.fails("preflight", wanted=newer)
    assert "half done" in host.fails("rollback", wanted=newer)
    assert "2.0.1 does not stand" in host.done("rollback", "--standing", wanted=newer)["said"][-1]
    assert host.done("rollback", "--standing")["changed"]
    assert host.states() == {"idc_client": "RUNNING"}


def test_nothing_takes_the_place_of_a_real_folder(host: Host) -> None:
    (host.root / "current").mkdir()
    (host.root / "current" / "precious").touch()
    before = host.tree()
    host.done("backup")
    answered = host.step("window")
    assert answered.code == 1
    assert "it is no link" in answered.msg
    assert (host.root / "current" / "precious").exists()
    assert host.states() == {"idc_client": "RUNNING"}
    assert host.tree() == before


def test_a_database_that_another_program_holds_takes_the_window_back(host: Host) -> None:
    before = host.tree()
    host.done("backup")
    with closing(sqlite3.connect(host.database, timeout=20, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=20000")
        connection.execute("BEGIN IMMEDIATE")
        quick = "from lectern.db import engine\nengine.BUSY_TIMEOUT_S = 0.2\n"
        answered = host.step("window", fault=quick)
        connection.execute("ROLLBACK")
    assert answered.code == 1
    assert "another program has been writing to it" in answered.msg
    host.is_old(before)


def test_a_rollback_is_heard_by_a_window_without_tasks(host: Host) -> None:
    """The window is in its slow stop; it takes back by itself, and whoever typed the rollback waits for that."""
    before = host.tree()
    host.done("backup")
    slow = "import time\nfrom lectern.rollout import supervisord\nreal = supervisord.Supervisord.stop_all\n"
    slow += "supervisord.Supervisord.stop_all = lambda self: (real(self), time.sleep(5))\n"
    window = host.begin("window", fault=slow)
    wait_until(lambda: '"stop"' in host.journal(), description="the window stops the host")
    answer = host.done("rollback")
    assert (answer["changed"], answer["state"]) == (True, "rolledback")
    assert "has heard of this rollback" in answer["said"][0]
    assert window.answered().code == 1
    host.is_old(before)
