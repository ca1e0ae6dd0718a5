"""Old bookings that cannot be taken over are named, with what is wrong, before anything is changed."""

from pathlib import Path
from typing import Any

import pytest

from lectern.errors import Misuse
from tests.rollout.old_streamer import NOW, OldStreamer, Value


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    made = OldStreamer(tmp_path)
    made.has_tables()
    return made


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
        r"class 'c-9' at 2025-11-2\d \d\d:\d\d: its video_url 'ftp://origin.example/a/intro.flv' names no record; add",
    ),
    "it has no URL": ({"url": None}, "its video_url '' names no record"),
    "its URL is none": ({"url": "http://[/1.flv"}, "is not on this host, and its video_url is no http address"),
    "its URL is bytes": ({"url": b"\xff/1.flv"}, "is not on this host, and its video_url is no http address"),
    "its recording is a path": ({"url": "/data/1.flv"}, "its recording 1 is not on this host"),
    "its record is too large, and its URL is none": ({"url": f"/data/{2**63}.flv"}, "names no record"),
    "nobody takes its push": ({"push_url": "http://push.example"}, "its push_url 'http://push.example' is no rtmp"),
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
