"""Hosts on which parts of the documented rollout were done by hand."""

from pathlib import Path

import pytest

from lectern.db import airings, cache
from tests.effects import old_databases as old
from tests.rollout.old_streamer import NOW, OldStreamer, flv

ORIGIN = "http://origin.example"


def by_hand(tmp_path: Path) -> OldStreamer:
    """model.py was run, and change_date.py."""
    made = OldStreamer(tmp_path)
    made.has_old_tables(*old.DOCUMENTED)
    return made


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
    with host.committed() as connection:
        assert airings.by_id(connection, ["unknown"])["unknown"].end_time == 0  # were it booked anew
        assert airings.over(connection, NOW) == []
    assert host.adopt() == []


def test_rows_by_hand_without_a_file_take_no_room(tmp_path: Path) -> None:
    """What a class needs of them is downloaded."""
    host = by_hand(tmp_path)
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.execute("INSERT INTO video_list VALUES ('7', 0, '', 'never'), ('8', 5, NULL, 1), ('课', 1, NULL, NULL)")
    host.is_upgraded()
    host.adopt()
    assert host.cached() == {"7": ("downloading", 1, 0), "8": ("bad", 0, None), "课": ("bad", 0, None)}
    assert host.sums() == (0, 0, 0, 1)
    with host.committed() as connection:
        (found,) = cache.downloading(connection, NOW)
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
    assert ("times cannot be read: 'yyy" in " ".join(said[-1:])) == ("soon" in str(old.STREAMERS[kind]))
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
