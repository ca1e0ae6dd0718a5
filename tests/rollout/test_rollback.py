"""The way back, from wherever the window or a rollback has come to; nothing that was written since is lost."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.effects.redis_servers import redis_server, url_of
from tests.rollout.host import ENV, Host
from tests.stage import wait_until

pytestmark = pytest.mark.live

LEASE = "INSERT INTO lease_list (streamer, session, granted_at) VALUES ('streamer1', 's', 1)"


def classes(host: Host) -> set[str]:
    with closing(sqlite3.connect(host.database, timeout=20)) as connection:
        return {row[0] for row in connection.execute("SELECT class_id FROM task_list")}


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
    """Rows; and of a file that a person edited, only our values are taken back."""
    host.roll_out()
    host.book("new", 1, 2)
    env = host.code / ".env"
    env.write_text(env.read_text().replace("MAX_VIDEO_NUM=1000", "MAX_VIDEO_NUM=7") + "\nPERSON=1\n")
    answer = host.done("rollback")
    assert "new" in classes(host)
    assert host.lost() == set()
    assert any("somebody edited it" in one for one in answer["said"])
    assert env.read_text() == f"{ENV}\nMAX_VIDEO_NUM=7\nPERSON=1\n"
    assert f"Down for {answer['rollback_downtime_s']} s." in answer["said"]
    host.done("verify")


def test_a_rollback_that_was_killed_in_the_middle_of_the_files_goes_on_alone(host: Host) -> None:
    host.roll_out()
    host.dies("rollback", "release_link.take_back")
    said = host.fails("preflight")
    assert "was begun and did not end" in said
    assert "rollback.yml" in said
    host.done("rollback")
    host.is_old()


def test_the_database_is_restored_only_when_asked_and_the_rows_since_are_exported_first(host: Host) -> None:
    host.roll_out()
    host.book("new", 1, 2)
    answer = host.done("rollback", wanted=host.wanted(restore_database=True))
    assert "new" not in classes(host)
    assert host.lost() == set()
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
    assert "new" not in classes(host)
    assert host.states() == {"idc_client": "RUNNING"}


def test_teacher_leaves_streamer_its_classes_and_it_airs_none_that_is_another_s(host: Host, tmp_path: Path) -> None:
    """Said while nothing runs: a teacher that missed the streamer would move what the old program airs."""
    start = int(time.time()) + 3600
    with redis_server(tmp_path) as client:
        wanted = host.wanted(redis_url=url_of(client))
        host.roll_out(wanted)
        host.write(LEASE)
        for class_id, state in (("kept", "ready"), ("moved", "cancelled"), ("over", "aired")):
            host.book(class_id, *((start, start + 60) if state != "aired" else (1, 2)))
            host.write("UPDATE task_list SET status = ? WHERE class_id = ?", state, class_id)
            host.write("INSERT INTO class_list (class_id, video_id, state) VALUES (?, '6', ?)", class_id, state)
        client.hset("streamers", "streamer1", '{"at": 1}')
        client.hset("streamers:lease", "streamer1", "s")
        answer = host.done("rollback", wanted=wanted)
        assert json.loads(client.hget("streamers", "streamer1") or "{}")["withdrawn"] is True
        assert not client.hexists("streamers:lease", "streamer1")
    assert {"kept", "over"} < classes(host)
    assert "moved" not in classes(host)
    assert any("No teacher has read yet" in one for one in answer["said"])
    assert any("1 class taken out of task_list" in one for one in answer["said"])


def test_a_teacher_that_cannot_be_told_is_named_and_the_next_try_goes_on(host: Host) -> None:
    """The old program runs again all the same."""
    host.roll_out()
    host.write(LEASE)
    failed = host.step("rollback")
    assert failed.code == 1
    assert "classes: " in failed.fields["msg"]
    assert host.states() == {"idc_client": "RUNNING"}


def test_an_older_copy_never_takes_the_place_of_a_database_that_the_window_did_not_touch(host: Host) -> None:
    """Killed between the stop and the copy, there is only the live backup, and it is older than the last rows."""
    before = host.tree()
    host.done("backup")
    number = len(host.acknowledged())
    wait_until(lambda: len(host.acknowledged()) > number + 5, description="rows are written after the backup")
    host.killed("window", 3)
    host.done("rollback", wanted=host.wanted(restore_database=True))
    host.is_old(before)


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


def test_with_other_values_in_the_inventory_the_last_rollout_can_still_be_taken_back(host: Host) -> None:
    """Whatever a newer release has added to the journal and to the backup."""
    host.roll_out()
    other = host.wanted({"MAX_VIDEO_NUM": "5"}, keep=7)
    answer = host.done("rollback", wanted=other)
    assert not answer["changed"]
    assert "-e release=2.0.0" in answer["said"][1]
    (host.root / "rollout/journal.jsonl").write_text(host.journal().replace('"step":', '"mood": "glad", "step":'))
    (stored,) = (host.root / "rollout/backups").glob("*/wanted.json")
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "mood": "glad"}))
    assert host.done("rollback", "--standing", wanted=other)["changed"]
    host.is_old()


def test_who_asks_for_the_end_of_a_rollback_waits_for_it(host: Host) -> None:
    """Half the way back is no place to stop at."""
    before = host.tree()
    host.roll_out()
    step = host.begin("rollback")
    log = host.root / "rollout" / "journal.jsonl"
    wait_until(lambda: '"rollback"' in log.read_text(), description="the rollback is begun")
    os.kill(step.pid, signal.SIGTERM)
    assert step.answered().code == 0
    host.is_old(before)
