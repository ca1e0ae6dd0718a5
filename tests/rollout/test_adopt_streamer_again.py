"""The way back, and the way there again."""

from pathlib import Path

import pytest

from lectern.db import airings
from lectern.errors import CallAPerson
from lectern.playout.keyframe_index import path_of
from tests.rollout.old_streamer import NOW, ORIGIN, OldStreamer, flv


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    """Two classes that are to come, one of them without its recording; an ended one; something strange."""
    made = OldStreamer(tmp_path)
    made.has_tables()
    made.has_class("c-1", f"{ORIGIN}/7.flv")
    made.has_class("c-2", f"{ORIGIN}/8_720P.flv")
    made.has_class("c-3", f"{ORIGIN}/9/intro.flv", NOW - 9000, NOW - 5000)
    made.has_file("video/c-1.flv", flv(7))
    made.has_file("video/lessons/intro.flv", flv(9))
    made.has_file("video/notes.txt", b"notes")
    return made


def test_out_and_back_leaves_the_files_as_they_were(host: OldStreamer) -> None:
    """To the byte, the time and the mode; a second call does nothing, nor does one before.

    The index that the playout was given goes with its recording.
    """
    tree = host.tree()
    assert host.undo() == []
    assert not host.journal.exists()
    host.adopt()
    assert host.tree() != tree
    path_of(host.video_root / "9" / "9.flv").write_bytes(b"made since")
    assert host.undo()[0].startswith("3 files moved back: ")
    assert host.tree() == tree
    assert host.undo() == []


def test_what_was_evicted_or_replaced_or_has_no_place_any_more_does_not_come_back(host: OldStreamer) -> None:
    """It is named, the others come back, nothing is overwritten; the next rollout knows what is gone or another one."""
    host.has_file("video/list.txt", b"list")
    host.adopt()
    (host.video_root / "9" / "9.flv").unlink()
    (host.video_root / "9").rmdir()
    host.execute("DELETE FROM video_list WHERE id = '9'")
    replaced = host.video_root / "7" / "7.flv"
    replaced.unlink()
    replaced.write_bytes(flv(3))
    other = host.has_file("video/notes.txt", b"another")
    back, evicted, changed, no_place = host.undo()
    assert back == f"1 file moved back: '{host.video_root}/list.txt'"
    assert evicted.startswith("1 file cannot be moved back, because this program has evicted or moved them: ")
    assert "lessons/intro.flv" in evicted
    assert changed.startswith("1 file cannot be moved back, because they were replaced since: ")
    assert no_place.startswith("1 file cannot be moved back, because there is something in their old place")
    assert not (host.video_root / "c-1.flv").exists()
    assert (replaced.read_bytes(), other.read_bytes()) == (flv(3), b"another")
    assert (host.video_root / "quarantine" / "notes.txt").read_bytes() == b"notes"
    assert host.undo() == []
    host.adopt()
    assert "9" not in host.cached()
    assert host.cached()["7"] == ("ready", 1, len(flv(3)))


def test_a_recording_that_could_not_be_moved_back_calls_a_person_and_the_next_try_goes_on(host: OldStreamer) -> None:
    """A rollback that called itself done would leave it where the old program does not look."""
    tree = host.tree()
    host.adopt()
    (host.video_root / "lessons").rmdir()
    (host.video_root / "lessons").write_text("in the way")
    with pytest.raises(CallAPerson, match=r"2 files moved back: .*9\.flv': File exists; repair it, and"):
        host.undo()
    (host.video_root / "lessons").unlink()
    assert host.undo()[0].startswith("1 file moved back: ")
    assert host.tree() == tree


def test_a_second_rollout_trusts_no_run_of_the_first(host: OldStreamer) -> None:
    """A class that was on the timetable, on air or broken is scheduled anew, if it is not over."""
    for class_id in ("c-4", "c-5"):
        host.has_class(class_id, f"{ORIGIN}/7.flv")
    host.adopt()
    rows = host.dump()["class_list"]
    host.execute("UPDATE class_list SET run_id = 'a run', updated_at = ?", [(NOW,)])
    host.execute("UPDATE class_list SET state = 'on air' WHERE class_id = 'c-4'")
    host.execute("UPDATE class_list SET state = 'broken', code = 321, message = 'm' WHERE class_id = 'c-5'")
    host.undo()
    host.adopt(NOW + 60)
    host.execute("UPDATE class_list SET updated_at = NULL")
    assert host.dump()["class_list"] == rows
    with host.committed() as connection:
        assert {one.class_id for one in airings.unscheduled(connection, NOW)} == {"c-1", "c-4", "c-5"}


@pytest.mark.parametrize("state", ["aired", "cancelled", "refused"])
def test_what_the_new_program_has_finished_stays_finished(host: OldStreamer, state: str) -> None:
    """The platform was told so; a refusal is named."""
    host.adopt()
    finished = "UPDATE class_list SET state = ?, released_at = ?, code = 318, message = 'no' WHERE class_id = 'c-1'"
    host.execute(finished, [(state, NOW)])
    host.undo()
    said = host.adopt()
    assert host.states() == {"c-1": state, "c-2": "waiting"}
    assert host.cached()["7"] == ("ready", 0, len(flv(7)))
    assert (said[-1] == "1 class still refused, as this program has answered before: 'c-1' (318: no)") == (
        state == "refused"
    )


def test_what_ended_or_was_cancelled_between_two_rollouts_is_over(host: OldStreamer) -> None:
    """The old program has aired it, or has forgotten it."""
    host.adopt()
    host.undo()
    host.execute("DELETE FROM task_list WHERE class_id = 'c-2'")
    host.adopt(NOW + 20_000)
    assert host.states() == {"c-1": "aired", "c-2": "cancelled"}
    assert host.cached() == {"7": ("ready", 0, len(flv(7))), "9": ("ready", 0, len(flv(9))), "8_720P": ("bad", 0, 0)}
    assert host.sums() == (len(flv(7)) + len(flv(9)), 2, 0, 0)


def test_what_the_old_program_did_between_two_rollouts_counts(host: OldStreamer) -> None:
    """It has downloaded one recording, lost another, and taken bookings; what the new one has downloaded stays."""
    host.has_class("c-5", f"{ORIGIN}/10.flv")
    host.adopt()
    host.has_file("video/10/10.flv", flv(10))
    host.undo()
    (host.video_root / "c-1.flv").unlink()
    host.has_file("video/c-2.flv", flv(8))
    host.has_class("c-4", f"{ORIGIN}/9/intro.flv")
    host.adopt()
    assert host.states() == {"c-1": "waiting", "c-2": "ready", "c-4": "ready", "c-5": "ready"}
    cached, ready = {stem: row[:2] for stem, row in host.cached().items()}, ("ready", 1)
    assert cached == {"7": ("downloading", 1), "8_720P": ready, "9": ready, "10": ready}
    assert host.adopt() == []


def test_a_recording_of_another_size_is_another_one(host: OldStreamer) -> None:
    """What was known of the one before is forgotten."""
    host.adopt()
    host.execute("UPDATE video_list SET etag = 'e', crc64 = '5'")
    host.undo()
    host.has_file("video/c-1.flv", flv(70))
    host.adopt()
    assert host.rows("SELECT id, size_bytes, etag, crc64, duration_s FROM video_list ORDER BY id") == [
        ("7", len(flv(70)), None, None, 70.0),
        ("8_720P", 0, None, None, None),
        ("9", len(flv(9)), "e", "5", 9.0),
    ]
