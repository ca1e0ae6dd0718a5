"""The way back and the way there again; and hosts on which parts of the documented rollout were done by hand."""

from pathlib import Path

import pytest

from lectern.effects import airings, cache
from lectern.effects.tables.engine import transaction
from tests.effects import old_databases as old
from tests.rollout.old_streamer import NOW, OldStreamer, flv

ORIGIN = "http://origin.example"


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


def by_hand(tmp_path: Path) -> OldStreamer:
    """model.py was run, and change_date.py."""
    made = OldStreamer(tmp_path)
    made.has_old_tables(*old.DOCUMENTED)
    return made


# -- by hand -------------------------------------------------------------------------------------------------------


def test_what_was_filled_in_by_hand_is_respected(tmp_path: Path) -> None:
    """The rendition of a class, its site, when a recording was last used: only what is missing is added."""
    host = by_hand(tmp_path)
    host.has_class("c-1", None)
    host.has_class("c-2", f"{ORIGIN}/5555.flv")
    host.execute("INSERT INTO class_list VALUES ('c-1', '6666_720P', '/home/video'), ('c-2', '6666_720P', NULL)")
    host.execute("INSERT INTO video_list VALUES ('6666_720P', 7, '/home/video/6666', 1764000000.25)")
    host.execute(f"INSERT INTO dir_info VALUES ('{host.video_root}', 1e9, 1000)")
    host.has_file("video/6666/6666_720P.flv", flv(6))
    host.is_upgraded()
    host.adopt()
    path = str(host.video_root / "6666" / "6666_720P.flv")
    assert host.rows("SELECT class_id, video_id, site, state, record_id FROM class_list") == [
        ("c-1", "6666_720P", "/home/video", "ready", 6666),
        ("c-2", "6666_720P", path, "ready", 6666),
    ]
    assert host.rows("SELECT id, num_cite, site, update_time, size_bytes, duration_s, url FROM video_list") == [
        ("6666_720P", 2, path, 1764000000.25, len(flv(6)), 6.0, f"{ORIGIN}/5555.flv")
    ]
    assert host.sums() == (len(flv(6)), 1, 0, 0)
    assert host.adopt() == []


def test_a_rendition_by_hand_that_is_none_is_that_of_the_url(tmp_path: Path) -> None:
    """No program of ours could find its file."""
    host = by_hand(tmp_path)
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.execute("INSERT INTO class_list VALUES ('c-1', 'intro', NULL)")
    host.is_upgraded()
    host.adopt()
    assert host.rows("SELECT class_id, video_id, state FROM class_list") == [("c-1", "7", "waiting")]


def test_classes_by_hand_that_are_over_cite_nothing(tmp_path: Path) -> None:
    """Ended, not known to the old program any more, or of times that nobody can read."""
    host = by_hand(tmp_path)
    host.has_class("ended", f"{ORIGIN}/7.flv", NOW - 9000, NOW - 1)
    host.has_class("unknown", f"{ORIGIN}/7.flv", None, None)
    host.execute("INSERT INTO class_list VALUES ('ended', '7', NULL), ('unknown', '7', NULL), ('nobody', '7', NULL)")
    host.execute("INSERT INTO video_list VALUES ('7', 3, NULL, NULL)")
    host.has_file("video/7/7.flv")
    host.is_upgraded()
    host.adopt()
    assert host.states() == {"ended": "aired", "unknown": "cancelled", "nobody": "cancelled"}
    assert host.rows("SELECT num_cite FROM video_list") == [(0,)]
    engine = host.engine()
    with transaction(engine) as connection:
        assert airings.by_id(connection, ["unknown"])["unknown"].end_time == 0  # were it booked anew
        assert airings.over(connection, NOW) == []
    engine.dispose()
    assert host.adopt() == []


def test_rows_by_hand_without_a_file_take_no_room(tmp_path: Path) -> None:
    """What a class needs of them is downloaded."""
    host = by_hand(tmp_path)
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.execute("INSERT INTO video_list VALUES ('7', 0, '', 'never'), ('8', 5, NULL, 1), ('课', 1, NULL, NULL)")
    host.is_upgraded()
    host.adopt()
    assert host.cached() == {"7": ("downloading", 1, None), "8": ("bad", 0, None), "课": ("bad", 0, None)}
    assert host.sums() == (0, 0, 0, 1)
    engine = host.engine()
    with transaction(engine) as connection:
        (found,) = cache.downloading(connection, NOW)
    engine.dispose()
    assert (found.stem, found.url) == ("7", f"{ORIGIN}/7.flv")


@pytest.mark.parametrize("kind", old.STREAMERS)
@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
def test_every_kind_of_old_database_is_taken_over(tmp_path: Path, kind: str, wal: bool) -> None:
    host = OldStreamer(tmp_path)
    old.build(host.database, old.STREAMERS[kind], wal=wal)
    columns = old.columns(host.database).get("task_list", [])
    before = old.dump(host.database, {"task_list": columns}) if columns else {}
    host.is_upgraded()
    said = host.adopt(NOW + 2)
    assert host.states().get("c-1") == ("waiting" if "INSERT" in str(old.STREAMERS[kind]) else None)
    assert ("times can not be read: 'yyy" in said[-1]) == ("soon" in str(old.STREAMERS[kind]))
    assert before == (old.dump(host.database, {"task_list": columns}) if columns else {})
    assert host.adopt(NOW + 3) == []


@pytest.mark.parametrize("table", ["class_list", "video_list"])
def test_a_key_that_is_no_text_is_refused_in_words(tmp_path: Path, table: str) -> None:
    """No program of ours could read the table."""
    host = by_hand(tmp_path)
    columns = "(class_id, video_id)" if table == "class_list" else "(id, site)"
    host.execute(f"INSERT INTO {table} {columns} VALUES (CAST(x'ff27' AS TEXT), '7')")
    (refusal,) = host.planned().refusals
    assert refusal == r"the key '\xff\'' in class_list or video_list is no UTF-8 text; take the row out"


# -- out and back --------------------------------------------------------------------------------------------------


def test_out_and_back_leaves_the_files_as_they_were(host: OldStreamer) -> None:
    """To the byte, the time and the mode; a second call does nothing."""
    tree = host.tree()
    host.adopt()
    assert host.tree() != tree
    assert host.undo()[0].startswith("3 files moved back: ")
    assert host.tree() == tree
    assert host.undo() == []


def test_there_is_nothing_to_take_back_before(host: OldStreamer) -> None:
    assert host.undo() == []
    assert not host.journal.exists()


def test_out_and_back_and_out_again_is_as_out(host: OldStreamer) -> None:
    host.adopt()
    tree, rows = host.tree(), host.dump()
    for _ in range(2):
        host.undo()
        host.adopt()
        assert (host.tree(), host.dump()) == (tree, rows)
    assert host.adopt() == []


def test_what_the_new_program_evicted_can_not_come_back(host: OldStreamer) -> None:
    """It is named, the others come back; the next rollout knows that it is gone."""
    host.adopt()
    (host.video_root / "9" / "9.flv").unlink()
    (host.video_root / "9").rmdir()
    host.execute("DELETE FROM video_list WHERE id = '9'")
    said = host.undo()
    assert said[0].startswith("2 files moved back")
    assert said[1].startswith("1 file can not be moved back, for this program has evicted or moved them: ")
    assert "lessons/intro.flv" in said[1]
    assert (host.video_root / "c-1.flv").exists()
    assert host.undo() == []
    host.adopt()
    assert "9" not in host.cached()


def test_what_the_new_program_replaced_stays(host: OldStreamer) -> None:
    host.adopt()
    path = host.video_root / "7" / "7.flv"
    path.unlink()
    path.write_bytes(flv(3))
    said = host.undo()
    assert said[1].startswith("1 file can not be moved back, for they were replaced since: ")
    assert path.read_bytes() == flv(3)
    assert not (host.video_root / "c-1.flv").exists()
    assert host.undo() == []
    host.adopt()
    assert host.cached()["7"] == ("ready", 1, len(flv(3)))


def test_nothing_is_overwritten_on_the_way_back(host: OldStreamer) -> None:
    host.adopt()
    host.has_file("video/c-1.flv", b"another")
    said = host.undo()
    assert said[1].startswith("1 file can not be moved back, for there is something in their old place")
    assert (host.video_root / "c-1.flv").read_bytes() == b"another"
    assert (host.video_root / "7" / "7.flv").read_bytes() == flv(7)


def test_what_the_new_program_downloaded_stays_for_the_next_time(host: OldStreamer) -> None:
    host.adopt()
    host.has_file("video/8/8_720P.flv", flv(8))
    host.undo()
    host.adopt()
    assert host.cached()["8_720P"] == ("ready", 1, len(flv(8)))
    assert host.states() == {"c-1": "ready", "c-2": "ready"}


def test_a_second_rollout_trusts_no_run_of_the_first(host: OldStreamer) -> None:
    """A class that was on the timetable, on air or broken is scheduled anew, if it is not over."""
    for class_id in ("c-4", "c-5"):
        host.has_class(class_id, f"{ORIGIN}/7.flv")
    host.adopt()
    rows = host.dump()["class_list"]
    host.execute("UPDATE class_list SET run_id = 'a run', updated_at = ?", [(NOW,)])
    host.execute("UPDATE class_list SET state = 'on air' WHERE class_id = 'c-4'")
    host.execute("UPDATE class_list SET state = 'broken', code = 321, message = 'm' WHERE class_id = 'c-5'")
    assert host.adopt(NOW + 60) == []  # the first rollout goes on: what its program did stands
    host.undo()
    host.adopt(NOW + 60)
    host.execute("UPDATE class_list SET updated_at = NULL")
    assert host.dump()["class_list"] == rows
    engine = host.engine()
    with transaction(engine) as connection:
        assert {one.class_id for one in airings.unscheduled(connection, NOW)} == {"c-1", "c-4", "c-5"}
    engine.dispose()


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
    """It has downloaded one recording, lost another, and taken bookings."""
    host.adopt()
    host.undo()
    (host.video_root / "c-1.flv").unlink()
    host.has_file("video/c-2.flv", flv(8))
    host.has_class("c-4", f"{ORIGIN}/9/intro.flv")
    host.adopt()
    assert host.states() == {"c-1": "waiting", "c-2": "ready", "c-4": "ready"}
    assert {stem: row[:2] for stem, row in host.cached().items()} == {
        "7": ("downloading", 1),
        "8_720P": ("ready", 1),
        "9": ("ready", 1),
    }
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
        ("8_720P", 0, "e", "5", None),
        ("9", len(flv(9)), "e", "5", 9.0),
    ]


def test_a_journal_that_a_crash_has_torn_is_one_that_was_not_written(host: OldStreamer) -> None:
    """Cut anywhere, the migration is done from the start, and taken back whole."""
    tree = host.tree()
    host.adopt()
    whole = host.journal.read_bytes()
    after = host.tree()
    host.undo()
    for length in range(0, len(whole), 41):
        host.journal.write_bytes(whole[:length])
        host.undo()
        assert host.tree() == tree, length
        host.journal.write_bytes(whole[:length])
        host.adopt()
        assert host.tree() == after, length
        host.undo()
        assert host.tree() == tree, length
