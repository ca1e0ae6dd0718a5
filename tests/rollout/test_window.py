"""The window and its way back: wholly new, or wholly as before."""

import asyncio
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lectern.playout.control_socket import asked
from tests.effects.redis_servers import redis_server, url_of
from tests.rollout.host import Host, classes
from tests.rollout.test_killed import LINES
from tests.stage import Child, wait_until
from town import playout

pytestmark = pytest.mark.live


def test_a_streamer_becomes_new_and_then_old_again_as_often_as_wanted(host: Host) -> None:
    """What is finished is not stopped again, and a used backup is not the one of the next try.

    A class on air is cut by a rollback only if that is said.
    """
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
    host.book("live", int(time.time()) - 9, int(time.time()) + 900)
    for options in (["--check"], []):
        said = host.fails("rollback", *options)
        assert "class 'live'" in said
        assert "-e even_on_air=true" in said
    host.is_new()
    for options in (["--check"], []):
        assert host.done("rollback", *options, wanted=host.wanted(even_on_air=True))["changed"]
    host.is_old()
    host.write("DELETE FROM task_list WHERE class_id = 'live'")
    for options in (["--check"], []):
        assert not host.done("rollback", *options)["changed"]
    host.roll_out()
    host.is_new()
    host.done("rollback")
    host.is_old()
    assert len([*(host.root / "rollout" / "backups").glob("*.used-*")]) == 2


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


def test_whatever_fails_on_the_way_back_is_told_and_the_next_try_goes_on(host: Host) -> None:
    """A database that is locked, a disk that is full: a person hears that the host is half done."""
    host.done("backup")
    fault = "from lectern.rollout import release_link, supervisord\n"
    fault += "def fails(*_, **__): raise RuntimeError('odd')\n"
    fault += "supervisord.wait_until_well = release_link.take_back = fails\n"
    said = host.fails("window", fault=fault)
    assert "Then the rollback failed too: RuntimeError: odd The host is half done." in said
    host.done("rollback")
    host.is_old()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_for_the_end_gets_the_old_host(host: Host, sign: signal.Signals) -> None:
    host.done("backup")
    (host.code / "broken").touch()
    step = host.begin("window")
    wait_until(lambda: '"reload", "state": "done"' in host.journal(), description="the reload is done")
    os.kill(step.pid, sign)
    answered = step.answered()
    assert answered.code == 1
    assert f"Ended by {sign.name}" in answered.msg
    (host.code / "broken").unlink()
    host.is_old()


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


def test_nothing_is_stopped_if_supervisord_is_silent_or_a_class_is_booked_since(host: Host) -> None:
    silent = host.wanted(supervisorctl=[*host.supervisorctl[:-2], "-s", "unix:///nowhere/s"])
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
    host.done("backup")
    torn = "import os\nfrom pathlib import Path\nreal = Path.replace\n"
    torn += "Path.replace = lambda self, to: os.kill(os.getpid(), 9) if self.name == '..env.part' else real(self, to)\n"
    assert host.step("window", fault=torn).code == -9
    assert (host.code / "..env.part").exists()
    host.done("rollback")
    host.is_old()


def test_a_newer_release_goes_over_an_older_one_and_back(host: Host) -> None:
    """Each way back says what it ends at; the older one is not taken back from below the newer one.

    Nothing is stopped if what a rollback needs is gone, or says that it cannot use the database.
    """
    host.stage_release("2.0.1")
    newer = host.wanted(version="2.0.1")
    for wanted in (host.wanted(), newer):
        host.roll_out(wanted)
    host.done("verify", wanted=newer)
    assert host.runs() == "2.0.1"
    assert "2.0.1" in host.step("rollback").fields["said"][1]
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
    for options in (["--check"], []):
        said = host.done("rollback", *options, wanted=restored)["said"]
        assert "lectern 2.0.0 (streamer-2.0.0-" in said[-1]
    host.is_new()
    assert "the old program" in host.done("rollback")["said"][-1]


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


def test_a_database_that_another_program_holds_takes_the_window_back(host: Host) -> None:
    host.done("backup")
    with closing(sqlite3.connect(host.database, timeout=20, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=20000")
        connection.execute("BEGIN IMMEDIATE")
        quick = "from lectern.db import engine\nengine.BUSY_TIMEOUT_S = 0.2\n"
        said = host.fails("window", fault=quick)
        connection.execute("ROLLBACK")
    assert "another program has been writing to it" in said
    host.is_old()


# -- the way back, from wherever the window or a rollback has come to; nothing that was written since is lost ----------


def test_before_anything_was_done_nothing_is_touched(host: Host) -> None:
    before = host.everything()
    answer = host.done("rollback")
    assert not answer["changed"]
    assert "has never been on this host" in answer["said"][0]
    assert host.everything().keys() == before.keys()
    host.done("backup")
    answer = host.done("rollback")
    assert not answer["changed"]
    assert "has changed nothing on this host" in answer["said"][0]
    assert host.states() == {"idc_client": "RUNNING"}


def test_what_was_written_since_the_window_stays(host: Host) -> None:
    """Rows; and of a file that a person edited, only our values are taken back.

    The last rollout can be taken back with other values in the inventory, too, and whatever a newer release has added
    to the journal and to the backup.
    """
    env = host.code / ".env"
    old = env.read_text()
    host.roll_out()
    host.book("new", 1, 2)
    env.write_text(env.read_text().replace("MAX_VIDEO_NUM=1000", "MAX_VIDEO_NUM=7") + "\nPERSON=1\n")
    other = host.wanted({"MAX_VIDEO_NUM": "5"}, keep=7)
    answer = host.done("rollback", wanted=other)
    assert not answer["changed"]
    assert "-e release=2.0.0" in answer["said"][1]
    (host.root / "rollout/journal.jsonl").write_text(host.journal().replace('"step":', '"mood": "glad", "step":'))
    (stored,) = (host.root / "rollout/backups").glob("*/wanted.json")
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "mood": "glad"}))
    answer = host.done("rollback", "--standing", wanted=other)
    assert "new" in classes(host.database)
    assert host.lost() == []
    assert any("somebody edited it" in one for one in answer["said"])
    assert env.read_text() == f"{old}\nMAX_VIDEO_NUM=7\nPERSON=1\n"
    assert f"Down for {answer['rollback_downtime_s']} s." in answer["said"]
    host.done("verify")


def test_a_rollback_that_was_killed_in_the_middle_of_the_files_goes_on_alone(host: Host) -> None:
    """Who asks for the end of it then waits for it: half the way back is no place to stop at."""
    host.roll_out()
    host.dies("rollback", "release_link.take_back")
    said = host.fails("preflight")
    assert "was begun and did not end" in said
    assert "rollback.yml" in said
    stops = host.journal().count('"stop"')
    step = host.begin("rollback")
    wait_until(lambda: host.journal().count('"stop"') > stops, description="the rollback goes on")
    os.kill(step.pid, signal.SIGTERM)
    assert step.answered().code == 0
    host.is_old()


def test_a_rollback_that_was_cut_off_at_its_very_end_is_finished_by_whoever_asks_what_stands(host: Host) -> None:
    """Its backup has another name by then, and only the line is missing that says that all is back."""
    host.roll_out()
    host.killed("rollback", LINES)
    (aside,) = (host.root / "rollout/backups").iterdir()
    assert ".used-" in aside.name
    assert "it is half rolled back" in host.fails("verify", "--standing")
    assert str(aside) in host.done("rollback", "--standing")["said"][-1]
    host.is_old()
    host.done("verify", "--standing")


def test_the_database_is_restored_only_when_asked_and_the_rows_since_are_exported_first(host: Host) -> None:
    host.roll_out()
    host.book("new", 1, 2)
    answer = host.done("rollback", wanted=host.wanted(restore_database=True))
    assert "new" not in classes(host.database)
    assert host.lost() == []
    (aside,) = [path for path in (host.root / "rollout" / "backups").iterdir() if ".used-" in path.name]
    since = json.loads((aside / "rows-since.json").read_text())
    assert [row["class_id"] for row in since["task_list"]] == ["new"]
    assert any(one.startswith("rows-since.json in the backup: ") for one in answer["said"])
    assert any(str(aside) in one for one in answer["said"])


def test_a_database_whose_restore_is_asked_for_only_by_a_later_try_is_restored(host: Host) -> None:
    """That the program cannot live with the present one shows only when it runs again."""
    host.roll_out()
    host.book("new", 1, 2)
    fault = "from lectern.errors import TryAgain\nfrom lectern.rollout import takeover\n"
    fault += "def fails(_): raise TryAgain('odd')\ntakeover.undo = fails\n"
    assert "not all is back" in host.step("rollback", fault=fault).msg
    assert host.states() == {"idc_client": "RUNNING"}
    host.done("rollback", wanted=host.wanted(restore_database=True))
    assert "new" not in classes(host.database)
    assert host.states() == {"idc_client": "RUNNING"}


def test_teacher_leaves_streamer_its_classes_and_it_airs_none_that_is_another_s(host: Host, tmp_path: Path) -> None:
    """Said while nothing runs: a teacher that missed the streamer would move what the old program airs.

    Where it cannot be told, the old program runs again all the same, and the next try goes on.
    """
    start = int(time.time()) + 3600
    with redis_server(tmp_path) as client:
        wanted = host.wanted(redis_url=url_of(client))
        host.roll_out(wanted)
        host.write("INSERT INTO lease_list (streamer, session, granted_at) VALUES ('streamer1', 's', 1)")
        client.config_set("requirepass", "another")
        assert "not all is back; classes: " in host.fails("rollback", wanted=wanted)
        assert host.states() == {"idc_client": "RUNNING"}
        client.config_set("requirepass", "")
        for class_id, state in (("kept", "ready"), ("moved", "cancelled"), ("over", "aired")):
            host.book(class_id, *((start, start + 60) if state != "aired" else (1, 2)))
            host.write("UPDATE task_list SET status = ? WHERE class_id = ?", state, class_id)
            host.write("INSERT INTO class_list (class_id, video_id, state) VALUES (?, '6', ?)", class_id, state)
        client.hset("streamers", "streamer1", '{"at": 1}')
        client.hset("streamers:lease", "streamer1", "s")
        answer = host.done("rollback", wanted=wanted)
        assert json.loads(client.hget("streamers", "streamer1") or "{}")["withdrawn"] is True
        assert not client.hexists("streamers:lease", "streamer1")
    assert {"kept", "over"} < classes(host.database)
    assert "moved" not in classes(host.database)
    assert any("No teacher has read yet" in one for one in answer["said"])
    assert any("1 class taken out of task_list" in one for one in answer["said"])


def test_the_old_program_airs_alone_after_a_rollback(host: Host, tmp_path: Path) -> None:
    """The playout is not stopped, and would push the same classes until its lease is over: with LEASE_S=0, for ever."""
    folder = host.short / "playout"
    folder.mkdir()
    at, wanted = folder / "playout.sock", host.wanted({"PLAYOUT_DIR": str(folder)})
    running = Child(playout.argv(folder, at), os.environ, tmp_path / "playout.out")
    try:
        wait_until(at.exists, description="the playout is there")
        host.roll_out(wanted)
        asyncio.run(asked(folder / "lease.sock", "lease", until=1e9))
        assert playout.status(at)["lease_until"] == 1e9
        host.done("rollback", wanted=wanted)
        assert playout.status(at)["lease_until"] == 0
    finally:
        running.end()


def test_an_older_copy_never_takes_the_place_of_a_database_that_the_window_did_not_touch(host: Host) -> None:
    """Killed between the stop and the copy, there is only the live backup, and it is older than the last rows."""
    host.done("backup")
    number = len(host.acknowledged())
    wait_until(lambda: len(host.acknowledged()) > number + 5, description="rows are written after the backup")
    host.killed("window", 3)
    host.done("rollback", wanted=host.wanted(restore_database=True))
    host.is_old()


def test_where_the_old_program_does_not_run_again_a_person_is_called_and_the_next_try_goes_on(host: Host) -> None:
    host.write_program("idc_client", f"/bin/sh {host.code}/run.sh", startsecs="1", startretries="0")
    (host.code / "run.sh").write_text("exec /bin/sleep 1000\n")
    host.ctl("update")
    wait_until(lambda: host.states().get("idc_client") == "RUNNING", description="it runs")
    before = host.tree()
    host.roll_out()
    (host.code / "run.sh").write_text("echo my last words >&2; exit 3\n")
    quick = "from lectern.rollout import supervisord\n"
    quick += "supervisord.as_before.__defaults__ = (8.0, supervisord.no_beat)\n"
    answered = host.step("rollback", fault=quick)
    assert answered.code == 1
    assert "idc_client is" in answered.msg
    assert "my last words" in answered.msg
    (host.code / "run.sh").write_text("exec /bin/sleep 1000\n")
    assert host.done("rollback")["changed"]
    assert host.states() == {"idc_client": "RUNNING"}
    assert host.tree() == before
