"""Old bookings and old files of a streamer become classes and cached renditions of this program, and go back."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from lectern import rendition_ids
from lectern.db import airings, cache, events
from lectern.db.engine import opened
from lectern.errors import CallAPerson, Misuse
from lectern.i18n import translated
from lectern.playout.keyframe_index import path_of
from lectern.rollout.backup.sqlite import SqliteFile
from lectern.rollout.takeover import streamer
from lectern.rollout.takeover.streamer import StreamerAdoption
from lectern.states import AiringState
from tests.effects import old_databases as old
from tests.rollout.old_streamer import NOW, ORIGIN, OldStreamer, Value, flv, local, wanted
from tests.stage import Town, staged, wait_until


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    made = OldStreamer(tmp_path)
    made.has_tables()
    return made


def test_old_classes_and_recordings_become_rows_of_this_program(host: OldStreamer) -> None:
    """A class whose recording is there is ready, and its URL may be none; another waits, and the sweeper goes on.

    Recordings of ended classes are the cache, the first to be evicted.
    """
    host.has_class("c-1", f"{ORIGIN}/6666_720P.flv")
    host.has_class("c-2", f"{ORIGIN}/5.flv")
    host.has_class("c-3", f"{ORIGIN}/5.flv")
    host.has_class("c-4", "/old/disk/1.flv")
    host.has_class("over", f"{ORIGIN}/2.flv", NOW - 9000, NOW - 5000)
    host.has_class("long over", f"{ORIGIN}/3.flv", NOW - 900_000, NOW - 800_000)
    host.has_file("video/c-1.flv", flv(60))
    for name, age_s in (("1", 50), ("2", 100), ("3", 900_000)):
        host.has_file(f"video/{name}.flv", flv(9), age_s=age_s)
    host.adopt()
    assert host.states() == {"c-1": "ready", "c-2": "waiting", "c-3": "waiting", "c-4": "ready"}
    path, size = host.video_root / "6666" / "6666_720P.flv", len(flv(9))
    assert path.read_bytes() == flv(60)
    with host.committed() as connection:
        coming = {one.class_id: one for one in airings.unscheduled(connection, NOW)}
        row = cache.by_stem(connection, ["6666_720P"])["6666_720P"]
        (missing,) = cache.downloading(connection)
        waiting = airings.citing(connection, "5", {AiringState.WAITING})
        idle = cache.idle(connection, but=(), size_bytes=10**9, num=9)
        (event,) = events.of_thing(connection, class_id="c-2", stems=[])
    found = coming["c-1"]
    assert (found.state, found.record_id, found.run_id) == (AiringState.READY, 6666, None)
    assert (found.start_time, found.end_time) == (NOW + 7200, NOW + 10_000)
    assert (row.site, row.url, row.num_cite) == (str(path), f"{ORIGIN}/6666_720P.flv", 1)
    assert (row.duration_s, row.update_time, row.size_bytes) == (60.0, NOW - 1000, len(flv(60)))
    assert (missing.stem, missing.url, missing.num_cite) == ("5", f"{ORIGIN}/5.flv", 2)
    assert [one.class_id for one in waiting] == ["c-2", "c-3"]
    assert [one.stem for one in idle] == ["3", "2"]
    assert host.sums() == (len(flv(60)) + 3 * size, 4, 0, 1)
    assert (event.what, event.host) == ("taken over from the old program", "streamer1")
    assert (event.stem, event.detail) == ("5", "waiting")


def test_the_plan_needs_no_new_schema_and_changes_nothing(tmp_path: Path) -> None:
    """It says the same as what is done then, in any language, through a connection that cannot write."""
    host = OldStreamer(tmp_path)
    host.has_old_tables()
    host.has_class("c-1", f"{ORIGIN}/1.flv")
    host.has_class("c-2", f"{ORIGIN}/2_480p.flv")
    host.has_file("video/1.flv")
    host.has_file("video/what.txt")
    tree, raw = host.tree(), host.database.read_bytes()
    with SqliteFile(host.database).reading() as connection:
        plan = StreamerAdoption(connection, host.wanted, NOW)
    assert (host.tree(), host.database.read_bytes(), host.journal.exists()) == (tree, raw, False)
    assert [path.name for path in host.code.iterdir()] == ["task_list.db"]
    assert {name: (row["video_id"], row["state"]) for name, row in plan.classes.items()} == {
        "c-1": ("1", AiringState.READY),
        "c-2": ("2_480P", AiringState.WAITING),
    }
    (move,), (strange,) = plan.moves, plan.strange
    video_root = host.video_root
    assert (move.found.path, move.place) == (f"{video_root}/1.flv", f"{video_root}/1/1.flv")
    assert (strange.found.path, plan.aside) == (f"{video_root}/what.txt", host.aside)
    assert translated(plan.said[1], "zh").startswith(f"1 个文件已移到 {video_root}/quarantine：")
    host.is_upgraded()
    assert plan.said == host.adopt()


def test_a_streamer_that_is_new_has_nothing_to_take_over(host: OldStreamer) -> None:
    host.video_root.rmdir()
    assert host.adopt() == []
    assert host.sums() == (0, 0, 0, 0)
    assert not host.video_root.exists()


TIMES: list[tuple[Value, Value]] = [
    (NOW + 3600, NOW + 7200),
    (int(NOW + 3600), str(int(NOW + 7200))),
    (f" {NOW + 3600} ", f"{NOW + 7200:.2f}"),
    (local(NOW + 3600), local(NOW + 7200)),
    (local(NOW + 3600).replace(" ", "T"), local(NOW + 7200) + ".000000"),
    ("2025-11-24T20:00:00+00:00", "2025-11-24 21:00:00Z"),
]


@pytest.mark.parametrize("declared", ["INTEGER", "VARCHAR(30)", "FLOAT", "DATETIME", ""])
def test_times_are_read_as_old_programs_wrote_them(tmp_path: Path, declared: str) -> None:
    """Whatever the type of the column; the classes are on the timetable, and on air when they should be."""
    host = OldStreamer(tmp_path)
    host.execute(
        f"CREATE TABLE task_list (class_id TEXT PRIMARY KEY, video_url, push_url, start_time {declared},"
        f" end_time {declared}, status)"
    )
    host.execute(
        "INSERT INTO task_list VALUES (?, 'http://origin.example/1.flv', 'rtmp://push.example/a', ?, ?, NULL)",
        [(f"c-{number}", start, end) for number, (start, end) in enumerate(TIMES)],
    )
    host.has_file("video/1.flv")
    host.is_upgraded()
    host.adopt()
    with host.committed() as connection:
        found = airings.unscheduled(connection, NOW)
        due = [len(airings.due(connection, at, at)) for at in (NOW + 3599, NOW + 3601, NOW + 7201)]
        over = [len(airings.over(connection, NOW + later)) for later in (7199, 7201)]
    assert {(one.start_time, one.end_time) for one in found} == {(NOW + 3600, NOW + 7200)}
    assert (len(found), due, over) == (len(TIMES), [0, len(TIMES), 0], [0, len(TIMES)])


def test_of_thousands_some_are_named(host: OldStreamer) -> None:
    """What is said fits on a screen, with the numbers of all."""
    urls = (f"{ORIGIN}/{number}.flv" if number % 2 else "x" for number in range(1000))
    host.has_classes((f"c-{n}", url, NOW + 60, NOW + 90, "rtmp://push.example/a") for n, url in enumerate(urls))
    host.has_file("video/1.flv")
    plan = host.planned()
    assert (len(plan.refusals), plan.refusals[-1]) == (21, "and 480 more")
    assert "499 recordings to be downloaded, because a class needs it and it is not here: 101, 103," in "\n".join(
        plan.said
    )
    assert all(len(sentence) < 500 for sentence in plan.said)


def test_patterns_are_tried_in_order(host: OldStreamer) -> None:
    """The first that finds a record in the URL's path, with a resolution that there is, names the rendition.

    What no pattern finds is named as a booking of the old kind is.
    """
    host.patterns = (
        r"/v(?P<record_id>\d+)-(?P<resolution>\w+)",
        r"(?P<record_id>[a-z]+)\.flv",
        r"/v(?P<record_id>\d+)",
    )
    for class_id, path in enumerate(("v1-720", "v2-480p", "v3-1080P", "v4-999P", "v5", "v06", "x?v=7")):
        host.has_class(str(class_id), f"{ORIGIN}/{path}")
    plan = host.planned()
    stems = [row["video_id"] for row in plan.classes.values()]
    assert stems == ["1_720P", "2_480P", "3_1080P", "4", "5", "6", rendition_ids.of_url(f"{ORIGIN}/x?v=7")]
    assert not plan.refusals


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_folders_belong_to_who_owns_the_store(host: OldStreamer) -> None:
    """The rollout runs as root, the new program does not."""
    os.chown(host.video_root, 1234, 1235)
    host.has_file("video/1.flv")
    host.has_file("video/a/what.txt")
    host.adopt()
    for made in (host.video_root / "1", host.video_root / "quarantine", host.quarantined("a")):
        found = made.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o755)


UNREADABLE: list[tuple[Value, Value]] = [
    *((None, None), ("soon", "x"), (NOW - 9, "later"), ("", b"\xff"), (1.7e12, 1.7e12), (-1, 0)),
    (b"\x00", NOW - 0.5),  # that one has ended, whenever it began
]


def test_classes_of_unreadable_times_are_named_and_left_alone(host: OldStreamer) -> None:
    for number, (start, end) in enumerate(UNREADABLE):
        host.has_class(f"c-'{number}'", f"{ORIGIN}/1.flv", start, end)
    before = host.dump()["task_list"]
    _, named = host.planned().said[-1].split("task_list left alone, because their times cannot be read: ")
    assert named.startswith("'c-\\'0\\'' (start_time NULL, end_time NULL), ")
    assert (named.count("(start_time "), named[-11:]) == (5, " and 1 more"), "all but the last"
    host.adopt()
    assert (host.states(), host.dump()["task_list"]) == ({}, before)


REFUSED: dict[str, tuple[dict[str, Value], str]] = {
    "its record is unknown": (
        {"url": "ftp://user:secret@origin.example/a/intro.flv?token=secret"},
        r"class 'c-9' at 2025-11-2\d [\d:]+: its video_url 'ftp://origin.example/a/intro.flv\?…' names no record",
    ),
    "it has no URL": ({"url": None}, "its video_url '' names no record"),
    "its URL is none": ({"url": "http://[/1.flv"}, "is not on this host, and its video_url is no http address"),
    "its URL is bytes": ({"url": b"\xff/1.flv"}, "is not on this host, and its video_url is no http address"),
    "its recording is a path": ({"url": "/data/1.flv"}, "its recording 1 is not on this host"),
    "its record is too large, and its URL is none": ({"url": f"/data/{2**63}.flv"}, "names no record"),
    "nobody takes its push": ({"push_url": "http://push.example"}, "its push_url 'http://push.example' is no rtmp"),
    "its push has a key": (
        {"push_url": "rtmp://push.example:0/live/secret?auth_key=secret"},
        "its push_url 'rtmp://push.example:0/…' is no rtmp",
    ),
    "it has no push": ({"push_url": None}, "its push_url '' is no rtmp address"),
    "its name is none of ours": ({"class_id": "课 2"}, "class '课 2' at .*: its class_id has other characters"),
    "it ends before it begins": ({"end": NOW + 60}, "it ends .* before it begins"),
    "it begins, who knows its end": ({"end": "x"}, "its times cannot be read, and it may be to come"),
    "it ends, who knows its begin": ({"start": None}, r"\(start_time NULL, end_time '1764020800.0'\): its times"),
    "its times are milliseconds": (
        {"start": (NOW + 60) * 1000, "end": (NOW + 90) * 1000},
        "its times cannot be read, and it may be to come; correct them in the old program",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_class_that_can_not_be_taken_over_is_refused_in_words(host: OldStreamer, why: str) -> None:
    """What an operator may not see is not in the words."""
    changed, words = REFUSED[why]
    given: dict[str, Any] = {"class_id": "c-9", "url": f"{ORIGIN}/1.flv", **changed}
    host.has_class(**given)
    (refusal,) = host.planned().refusals
    with pytest.raises(Misuse, match=words) as raised:
        host.adopt()
    assert refusal in raised.value.message
    assert "secret" not in refusal


# Hosts on which parts of the documented rollout were done by hand.


@pytest.fixture
def by_hand(tmp_path: Path) -> OldStreamer:
    """model.py was run, and change_date.py."""
    made = OldStreamer(tmp_path)
    made.has_old_tables(*old.DOCUMENTED)
    return made


def test_what_was_filled_in_by_hand_is_respected(by_hand: OldStreamer) -> None:
    """The rendition of a class, its site, when a recording was last used: only what is missing is added.

    Classes that are over, or that nobody knows, cite nothing; rows without a file take no room, and what a class needs
    of them is downloaded; a rendition that is none, whose file nobody finds, is the URL's.
    """
    for class_id, url in (("c-1", None), ("c-2", f"{ORIGIN}/5555.flv"), ("c-3", f"{ORIGIN}/9.flv")):
        by_hand.has_class(class_id, url)
    by_hand.has_class("ended", f"{ORIGIN}/7.flv", NOW - 9000, NOW - 1)
    by_hand.has_class("unknown", f"{ORIGIN}/7.flv", None, None)
    rows = "('c-1', '6666_720P', '/home/video'), ('c-2', '6666_720P', NULL), ('c-3', 'intro', NULL), "
    by_hand.execute(
        f"INSERT INTO class_list VALUES {rows} ('ended', '7', NULL), ('unknown', '7', NULL), ('nobody', '7', NULL)"
    )
    rows = "('6666_720P', 7, '/home/video/6666', 1764000000.25), ('7', 3, NULL, NULL), ('8', 5, NULL, 1), "
    by_hand.execute(f"INSERT INTO video_list VALUES {rows} ('9', 0, '', 'never'), ('课', 1, NULL, NULL)")
    by_hand.execute(f"INSERT INTO dir_info VALUES ('{by_hand.video_root}', 1e9, 1000)")
    by_hand.has_file("video/6666/6666_720P.flv", flv(6))
    by_hand.has_file("video/7/7.flv", flv(7))
    by_hand.is_upgraded()
    by_hand.adopt()
    path = str(by_hand.video_root / "6666" / "6666_720P.flv")
    assert by_hand.rows("SELECT class_id, video_id, site, state, record_id FROM class_list LIMIT 3") == [
        ("c-1", "6666_720P", "/home/video", "ready", 6666),
        ("c-2", "6666_720P", path, "ready", 6666),
        ("c-3", "9", str(by_hand.video_root / "9" / "9.flv"), "waiting", 9),
    ]
    states = [by_hand.states()[name] for name in ("ended", "unknown", "nobody")]
    assert states == ["aired", "cancelled", "cancelled"]
    assert by_hand.rows("SELECT id, site, update_time, duration_s, url FROM video_list WHERE id IN ('6666_720P')") == [
        ("6666_720P", path, 1764000000.25, 6.0, f"{ORIGIN}/5555.flv")
    ]
    assert by_hand.rows("SELECT url FROM video_list WHERE id = '9'") == [(f"{ORIGIN}/9.flv",)]
    assert by_hand.cached() == {
        "6666_720P": ("ready", 2, len(flv(6))),
        "7": ("ready", 0, len(flv(7))),
        "8": ("bad", 0, None),
        "9": ("downloading", 1, 0),
        "课": ("bad", 0, None),
    }
    assert by_hand.sums() == (len(flv(6)) + len(flv(7)), 2, 0, 1)
    with by_hand.committed() as connection:
        assert airings.by_id(connection, ["unknown"])["unknown"].end_time == 0  # were it booked anew
        assert airings.over(connection, NOW) == []
    assert by_hand.adopt() == []


@pytest.mark.parametrize("kind", old.STREAMERS)
def test_every_kind_of_old_database_is_taken_over(tmp_path: Path, kind: str) -> None:
    host = OldStreamer(tmp_path)
    old.build(host.database, old.STREAMERS[kind], wal=True)
    columns = old.columns(host.database).get("task_list", [])
    before = old.dump(host.database, {"task_list": columns}) if columns else {}
    host.is_upgraded()
    said = host.adopt(NOW + 2)
    assert host.states().get("c-1") == ("waiting" if "INSERT" in str(old.STREAMERS[kind]) else None)
    assert ("times cannot be read: 'yyy" in " ".join(said[-1:])) == ("soon" in str(old.STREAMERS[kind]))
    assert before == (old.dump(host.database, {"task_list": columns}) if columns else {})
    assert host.adopt(NOW + 3) == []


@pytest.mark.parametrize("table", ["class_list (class_id, video_id)", "video_list (id, site)"])
def test_a_key_that_is_no_text_is_refused_in_words(by_hand: OldStreamer, table: str) -> None:
    """No program of ours could read the table."""
    by_hand.execute(f"INSERT INTO {table} VALUES (CAST(x'ff27' AS TEXT), '7')")
    (refusal,) = by_hand.planned().refusals
    assert refusal == r"the key '\xff\'' in class_list or video_list is no UTF-8 text; take the row out"


# The way back, and the way there again.


@pytest.fixture
def adopted(host: OldStreamer) -> OldStreamer:
    """Two classes that are to come, one of them without its recording; an ended one; something strange."""
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.has_class("c-2", f"{ORIGIN}/8_720P.flv")
    host.has_class("c-3", f"{ORIGIN}/9/intro.flv", NOW - 9000, NOW - 5000)
    host.has_file("video/c-1.flv", flv(7))
    host.has_file("video/lessons/intro.flv", flv(9))
    host.has_file("video/notes.txt", b"notes")
    host.adopt()
    return host


def test_what_was_evicted_or_replaced_or_has_no_place_any_more_does_not_come_back(adopted: OldStreamer) -> None:
    """It is named, the others come back, nothing is overwritten; the next rollout knows what is gone or another one."""
    host = adopted
    host.undo()
    host.has_file("video/list.txt", b"list")
    host.adopt()
    (host.video_root / "9" / "9.flv").unlink()
    (host.video_root / "9").rmdir()
    host.execute("DELETE FROM video_list WHERE id = '9'")
    replaced = host.video_root / "7" / "7.flv"
    replaced.unlink()
    replaced.write_bytes(flv(3))
    other = host.has_file("video/notes.txt", b"another")
    back, left = host.undo()
    assert back == f"1 file moved back: '{host.video_root}/list.txt'"
    assert left.startswith("3 files not moved back, because this program has evicted or replaced them, or ")
    assert all(f"video/{name}' (" in left for name in ("lessons/intro.flv", "c-1.flv", "notes.txt"))
    assert not (host.video_root / "c-1.flv").exists()
    assert (replaced.read_bytes(), other.read_bytes()) == (flv(3), b"another")
    assert host.quarantined("notes.txt").read_bytes() == b"notes"
    assert host.undo() == []
    host.adopt(NOW + 1)
    assert "9" not in host.cached()
    assert host.cached()["7"] == ("ready", 1, len(flv(3)))


def test_a_recording_that_could_not_be_moved_back_calls_a_person_and_the_next_try_goes_on(adopted: OldStreamer) -> None:
    """A rollback that called itself done would leave it where the old program does not look.

    The index that the playout was given goes with its recording.
    """
    adopted.undo()
    tree = adopted.tree()
    adopted.adopt()
    path_of(adopted.video_root / "9" / "9.flv").write_bytes(b"made since")
    (adopted.video_root / "lessons").rmdir()
    (adopted.video_root / "lessons").write_text("in the way")
    with pytest.raises(CallAPerson, match=r"2 files moved back: .*9\.flv': File exists; repair it, and"):
        adopted.undo()
    (adopted.video_root / "lessons").unlink()
    assert adopted.undo()[0].startswith("1 file moved back: ")
    assert adopted.tree() == tree


def test_a_second_rollout_trusts_no_run_of_the_first_and_leaves_what_is_finished(adopted: OldStreamer) -> None:
    """A class that was on the timetable, on air or broken is scheduled anew, if it is not over.

    The platform was told of what is finished; a refusal is named.
    """
    finished, going = ("aired", "cancelled", "refused"), "SELECT * FROM class_list WHERE class_id LIKE 'c-%'"
    for class_id in ("c-4", "c-5", *finished):
        adopted.has_class(class_id, f"{ORIGIN}/7.flv")
    adopted.adopt()
    rows = adopted.rows(going)
    adopted.execute("UPDATE class_list SET run_id = 'a run', updated_at = ?", [(NOW,)])
    adopted.execute("UPDATE class_list SET state = 'on air' WHERE class_id = 'c-4'")
    adopted.execute("UPDATE class_list SET state = 'broken', code = 321, message = 'm' WHERE class_id = 'c-5'")
    over = "UPDATE class_list SET state = class_id, released_at = 1, code = 318, message = 'no' WHERE class_id = ?"
    adopted.execute(over, [(one,) for one in finished])
    adopted.undo()
    said = adopted.adopt(NOW + 60)
    adopted.execute("UPDATE class_list SET updated_at = NULL")
    assert adopted.rows(going) == rows
    assert {state for name, state in adopted.states().items() if name in finished} == {*finished}
    assert said[-1] == "1 class still refused, as this program has answered before: 'refused' (318: no)"
    assert adopted.cached()["7"] == ("ready", 3, len(flv(7)))
    with adopted.committed() as connection:
        assert {one.class_id for one in airings.unscheduled(connection, NOW)} == {"c-1", "c-4", "c-5"}


def test_what_the_old_program_did_between_two_rollouts_counts(adopted: OldStreamer) -> None:
    """It has aired or forgotten classes, taken bookings, downloaded a recording, lost one, and got another for one.

    What the new one has downloaded stays; of a recording of another size nothing is known any more.
    """
    host = adopted
    host.has_class("c-5", f"{ORIGIN}/10.flv")
    host.has_class("c-6", f"{ORIGIN}/10.flv", NOW + 10, NOW + 20)
    host.has_class("c-7", f"{ORIGIN}/10.flv")
    host.adopt()
    host.has_file("video/10/10.flv", flv(10))
    host.execute("UPDATE video_list SET etag = 'e', crc64 = '5'")
    host.undo()
    (host.video_root / "c-1.flv").unlink()
    host.has_file("video/c-2.flv", flv(8))
    host.has_file("video/lessons/intro.flv", flv(90))
    host.has_class("c-4", f"{ORIGIN}/9/intro.flv")
    host.execute("DELETE FROM task_list WHERE class_id = 'c-7'")
    host.adopt(NOW + 60)
    over = {"c-6": "aired", "c-7": "cancelled"}
    assert host.states() == {"c-1": "waiting", "c-2": "ready", "c-4": "ready", "c-5": "ready", **over}
    known = host.rows("SELECT id, state, num_cite, size_bytes, etag, crc64, duration_s FROM video_list ORDER BY id")
    assert known == [
        ("10", "ready", 1, len(flv(10)), None, None, 10.0),
        ("7", "downloading", 1, len(flv(7)), None, None, None),
        ("8_720P", "ready", 1, len(flv(8)), None, None, 8.0),
        ("9", "ready", 1, len(flv(90)), None, None, 90.0),
    ]
    assert host.adopt(NOW + 60) == []
    host.execute("UPDATE video_list SET etag = 'e'")
    host.undo()
    host.adopt(NOW + 60)
    assert host.rows("SELECT etag FROM video_list WHERE id IN ('8_720P', '10')") == [("e",)] * 2


@pytest.mark.live
def test_a_recording_that_has_no_room_is_refused_with_316(town: Town, tmp_path: Path) -> None:
    """By the streamer's process, when the origin has said how large it is: the old program noted no size.

    That other classes are aired, from the old program's files, is played in playbooks/test_local_teacher.py.
    """
    with staged(town, tmp_path) as stage:
        who, stage.settings["MAX_VIDEO_SIZE"] = "streamer1", "0.00001"
        start, record = int(time.time()) + 900, town.record()
        url, push_url = f"{town.origin.url}/{record}/{record}.flv", town.receiver.url("c-1")
        row = ("c-1", url, push_url, local(start), str(start + 6), 1, "Li")
        old.build(stage.database(who), [old.OLD_TASKS, f"INSERT INTO task_list VALUES {row}"])
        stage.init(who)
        with opened(f"sqlite:///{stage.database(who)}") as engine:
            streamer.adopt(engine, wanted(stage.folder, stage.folder / who), time.time())
        stage.up(who)
        wait_until(lambda: stage.airing(who, "c-1")["state"] == "refused", description="it is refused")
        assert stage.airing(who, "c-1")["code"] == 316
        (sums,) = stage.rows(who, "select num, reserved_bytes, reserved_num from dir_info")
        assert (sums["num"], sums["reserved_bytes"], sums["reserved_num"]) == (0, 0, 0)
