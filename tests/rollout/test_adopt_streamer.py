"""Old bookings and old files of a streamer become classes and cached renditions of this program."""

import os
from pathlib import Path
from typing import Any

import pytest

from lectern import rendition_ids
from lectern.db import airings, cache, cache_check, events
from lectern.errors import Misuse
from lectern.i18n import translated
from lectern.model.tables.streamer import journal
from lectern.rollout import takeover
from lectern.rollout.backup.sqlite import SqliteFile
from lectern.rollout.takeover import streamer
from lectern.states import AiringState
from tests.rollout.host import a_host
from tests.rollout.old_streamer import NOW, OldStreamer, Value, flv, local

NO_FILE = "http://origin.example/6666_720P.flv"


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    made = OldStreamer(tmp_path)
    made.has_tables()
    return made


def test_what_would_be_taken_over_is_said_in_the_language_of_the_host(tmp_path: Path) -> None:
    with a_host(tmp_path, start=False) as host:
        (tmp_path / "video").mkdir()
        (tmp_path / "video/stray.bin").write_bytes(b"x")
        [sentence], _ = takeover.planned(host.parsed())
    assert sentence.startswith(f"1 file moved to {tmp_path}/video/quarantine: '")
    assert sentence.endswith("stray.bin' (no class and no record has it).")
    assert translated(sentence, "zh").startswith(f"1 个文件已移到 {tmp_path}/video/quarantine：")


def test_a_class_whose_recording_is_there_is_ready(host: OldStreamer) -> None:
    """Its file has the record-id name, it is pinned, and the sweeper's next look schedules its broadcast."""
    host.has_class("c-1", "http://origin.example/6666_720P.flv")
    host.has_file("video/c-1.flv", flv(60))
    host.adopt()
    path = host.video_root / "6666" / "6666_720P.flv"
    assert path.read_bytes() == flv(60)
    assert host.cached() == {"6666_720P": ("ready", 1, len(flv(60)))}
    assert host.sums() == (len(flv(60)), 1, 0, 0)
    with host.committed() as connection:
        (found,) = airings.unscheduled(connection, NOW)
        row = cache.by_stem(connection, [found.stem])[found.stem]
    assert (found.class_id, found.state, found.record_id, found.run_id) == ("c-1", AiringState.READY, 6666, None)
    assert (found.start_time, found.end_time) == (NOW + 7200, NOW + 10_000)
    assert (row.site, row.url, row.duration_s, row.update_time) == (str(path), NO_FILE, 60.0, NOW - 1000)


def test_a_class_whose_recording_is_not_there_waits_for_its_download(host: OldStreamer) -> None:
    """The sweeper's next look begins it; what happened to the class can be explained."""
    host.has_class("c-1", NO_FILE)
    host.has_class("c-2", NO_FILE)
    host.adopt()
    assert host.states() == {"c-1": "waiting", "c-2": "waiting"}
    assert host.sums() == (0, 0, 0, 1)
    with host.committed() as connection:
        (found,) = cache.downloading(connection)
        waiting = airings.citing(connection, "6666_720P", {AiringState.WAITING})
        (event,) = events.of_thing(connection, journal, class_id="c-1", stems=[])
    assert (found.stem, found.url, found.num_cite) == ("6666_720P", NO_FILE, 2)
    assert [one.class_id for one in waiting] == ["c-1", "c-2"]
    assert (event.what, event.host) == ("taken over from the old program", "streamer1")
    assert (event.stem, event.detail) == ("6666_720P", "waiting")


def test_recordings_of_ended_classes_are_the_cache(host: OldStreamer) -> None:
    """They are not downloaded again, and the first to be evicted; an ended class gets no row."""
    host.has_class("c-1", "http://origin.example/1.flv", NOW - 9000, NOW - 5000)
    host.has_class("c-2", "http://origin.example/2.flv", NOW - 900_000, NOW - 800_000)
    host.has_file("video/1.flv", age_s=100)
    host.has_file("video/2.flv", age_s=900_000)
    host.adopt()
    assert host.states() == {}
    with host.committed() as connection:
        idle = cache.idle(connection, but=(), size_bytes=10**9, num=9)
    assert [one.stem for one in idle] == ["2", "1"]


def test_disk_and_database_agree_afterwards_and_a_second_call_changes_nothing(host: OldStreamer) -> None:
    """What a streamer looks for when it starts, it does not find."""
    host.has_class("c-1", "http://origin.example/1.flv")
    host.has_class("c-2", "http://origin.example/5.flv")
    host.has_class("c-3", "x", None, None)
    for place in ("1.flv", "2/2.flv", "2/x", "a/b/c.flv", "7.flv.part", "empty.flv", ".hidden", "3/.hidden"):
        host.has_file(f"video/{place}")
    (host.video_root / "nothing").mkdir()
    (host.video_root / "link").symlink_to("/etc")
    assert host.adopt() != []
    with host.committed() as connection:
        assert cache_check.differences_in_words(connection, host.video_root) == []
    tree, rows, journal = host.tree(), host.dump(), host.journal.read_bytes()
    assert host.adopt() == []
    assert host.adopt(NOW + 60) == []
    assert (host.tree(), host.dump(), host.journal.read_bytes()) == (tree, rows, journal)


def test_the_plan_needs_no_new_schema_and_changes_nothing(tmp_path: Path) -> None:
    """It says the same as what is done then, through a connection that cannot write."""
    host = OldStreamer(tmp_path)
    host.has_old_tables()
    host.has_class("c-1", "http://origin.example/1.flv")
    host.has_class("c-2", "http://origin.example/2_480p.flv")
    host.has_file("video/1.flv")
    host.has_file("video/what.txt")
    tree, raw = host.tree(), host.database.read_bytes()
    with SqliteFile(host.database).reading() as connection:
        plan = streamer.planned(connection, host.sources, NOW)
    assert (host.tree(), host.database.read_bytes(), host.journal.exists()) == (tree, raw, False)
    assert [path.name for path in host.code.iterdir()] == ["task_list.db"]
    assert {name: (row["video_id"], row["state"]) for name, row in plan.changes.classes.items()} == {
        "c-1": ("1", AiringState.READY),
        "c-2": ("2_480P", AiringState.WAITING),
    }
    (move,), (strange,) = plan.moves, plan.strange
    video_root = host.video_root
    assert (move.found.path, move.place) == (f"{video_root}/1.flv", f"{video_root}/1/1.flv")
    assert (strange.found.path, strange.place) == (f"{video_root}/what.txt", f"{video_root}/quarantine/what.txt")
    host.is_upgraded()
    assert list(plan.said) == host.adopt()


def test_a_streamer_that_is_new_has_nothing_to_take_over(tmp_path: Path) -> None:
    host = OldStreamer(tmp_path)
    host.has_tables()
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
        live = airings.live(connection)
        too_early = airings.due(connection, NOW + 3599, NOW + 3599)
        in_time = airings.due(connection, NOW + 3601, NOW + 3601)
        too_late = airings.due(connection, NOW + 7201, NOW + 7201)
        over = [len(airings.over(connection, NOW + later)) for later in (7199, 7201)]
    assert {(one.start_time, one.end_time) for one in found} == {(NOW + 3600, NOW + 7200)}
    assert len(found) == len(live) == len(in_time) == len(TIMES)
    assert too_early == too_late == []
    assert over == [0, len(TIMES)]


def test_a_recording_that_is_there_needs_no_url(host: OldStreamer) -> None:
    host.has_class("c-1", "/old/disk/6666.flv")
    host.has_file("video/6666.flv")
    host.adopt()
    assert host.states() == {"c-1": "ready"}


def test_of_thousands_some_are_named(host: OldStreamer) -> None:
    """What is said fits on a screen, with the numbers of all."""
    urls = (f"http://origin.example/{number}.flv" if number % 2 else "x" for number in range(1000))
    host.has_classes((f"c-{n}", url, NOW + 60, NOW + 90, "rtmp://push.example/a") for n, url in enumerate(urls))
    host.has_file("video/1.flv")
    plan = host.planned()
    assert len(plan.refusals) == 21
    assert plan.refusals[-1] == "and 480 more"
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
        host.has_class(str(class_id), f"http://origin.example/{path}")
    plan = host.planned()
    unnamed = rendition_ids.of_url("http://origin.example/x?v=7")
    stems = [row["video_id"] for row in plan.changes.classes.values()]
    assert stems == ["1_720P", "2_480P", "3_1080P", "4", "5", "6", unnamed]
    assert not plan.refusals


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_folders_belong_to_who_owns_the_store(host: OldStreamer) -> None:
    """The rollout runs as root, the new program does not."""
    os.chown(host.video_root, 1234, 1235)
    host.has_file("video/1.flv")
    host.has_file("video/a/what.txt")
    host.adopt()
    for made in (host.video_root / name for name in ("1", "quarantine", "quarantine/a")):
        found = made.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o755)


@pytest.mark.parametrize(
    ("start", "end"),
    [(None, None), ("soon", "x"), (NOW - 9, "later"), (b"\x00", NOW - 0.5), ("", b"\xff"), (1.7e12, 1.7e12), (-1, 0)],
)
def test_a_class_of_unreadable_times_is_named_and_left_alone(
    host: OldStreamer, start: float | str | bytes | None, end: float | str | bytes | None
) -> None:
    host.has_class("c-'9'", "http://origin.example/1.flv", start, end)
    before = host.dump()["task_list"]
    plan = host.planned()
    if end != NOW - 0.5:  # that one has ended, whenever it began
        assert "task_list left alone, because their times cannot be read: 'c-\\'9\\''" in plan.said[-1]
    host.adopt()
    assert host.states() == {}
    assert host.dump()["task_list"] == before


REFUSED: dict[str, tuple[dict[str, Value], str]] = {
    "its record is unknown": (
        {"url": "ftp://user:secret@origin.example/a/intro.flv?token=secret"},
        r"class 'c-9' at 2025-11-2\d \d\d:\d\d: its video_url 'ftp://origin.example/a/intro.flv\?…' names no record",
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
    "it ends, who knows its begin": (
        {"start": None},
        r"\(start_time NULL, end_time '1764020800.0'\): its times cannot",
    ),
    "its times are milliseconds": (
        {"start": (NOW + 60) * 1000, "end": (NOW + 90) * 1000},
        "its times cannot be read, and it may be to come; correct them in the old program",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_class_that_can_not_be_taken_over_is_refused_in_words(host: OldStreamer, why: str) -> None:
    """Before anything is changed; what an operator may not see is not in the words."""
    changed, words = REFUSED[why]
    given: dict[str, Any] = {"class_id": "c-9", "url": "http://origin.example/1.flv", **changed}
    host.has_class(**given)
    host.has_file("video/2.flv")
    tree, rows = host.tree(), host.dump()
    (refusal,) = host.planned().refusals
    with pytest.raises(Misuse, match=words) as raised:
        host.adopt()
    assert refusal in raised.value.message
    assert "secret" not in refusal
    assert (host.tree(), host.dump(), host.journal.exists()) == (tree, rows, False)
