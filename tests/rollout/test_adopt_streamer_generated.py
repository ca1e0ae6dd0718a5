"""Whatever an old host looks like: nothing is lost, no class is forgotten, and the sums are right."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from lectern.db import airings, cache_check
from lectern.db.airings import epoch
from lectern.errors import Misuse
from lectern.rollout.result import shown
from lectern.storage import cache_dir
from tests.marks import share
from tests.rollout.old_streamer import MEMORY, NOW, ORIGIN, OldStreamer, Value, flv, local

LIVE = {"waiting", "ready", "on air", "broken"}

class_ids = st.sampled_from(["c-1", "c-2", "c-3", "7", "8", "c'4"])
renditions = st.sampled_from(["7", "7_720P", "8", "8_480P", "9"])
urls = st.one_of(
    renditions.map(lambda stem: f"{ORIGIN}/{stem}.flv"),
    renditions.map(lambda stem: f"{ORIGIN}/record/{stem.partition('_')[0]}_22/video_{stem}.flv"),
    st.sampled_from(["7", "8"]).map(lambda record: f"{ORIGIN}/{record}/intro.flv"),
    st.sampled_from([f"{ORIGIN}/intro.flv", "/7.flv", "", None, f"{ORIGIN}/8/%E8%AF%BE.flv", b"\xff/7.flv"]),
)
offsets = st.sampled_from([-90_000.0, -7200.0, -1.0, 0.0, 60.0, 7200.0, 90_000.0])
times = st.one_of(
    offsets.map(lambda offset: NOW + offset),
    offsets.map(lambda offset: str(int(NOW + offset))),
    offsets.map(lambda offset: local(NOW + offset)),
    st.sampled_from([None, "soon", "", b"\x00\xff"]),
)
push_urls = st.sampled_from(["rtmp://push.example/live/a"] * 5 + ["", None])
recordings = ("7.flv", "7_720P.flv", "8.flv", "c-1.flv", "c-2.flv", "intro.flv", "video_7.flv", "video_8_480P.flv")
others = ("课.flv", "8.flv.part", "8.flv.part.origin", "x.tmp", "x", ".hidden", "7", "8", "\udcff\n'.flv", "quarantine")
names = st.sampled_from([*recordings, *others])
folders = st.sampled_from(["", "", "7", "8", "7_22", "8_22", "c-1", "odd", "quarantine", ".trash", "lost+found"])
roots = st.sampled_from(["video", "video", "old", "video/sub", "code"])
bodies = st.sampled_from([4.0, 4.0, 4.0, 60.0, None, b""])


@dataclass(frozen=True)
class Old:
    """What an old host has: classes, files, links, rows made by hand."""

    classes: list[tuple[Value, ...]]
    files: list[tuple[str, str, str, float | bytes | None, int]]
    links: list[tuple[str, str]]
    videos: list[tuple[Value, ...]]
    listed: list[tuple[Value, ...]]
    by_hand: bool


def unique(rows: "st.SearchStrategy[Any]", key: Any = lambda row: row[0], most: int = 8) -> "st.SearchStrategy[Any]":
    return st.lists(rows, unique_by=key, max_size=most)


hosts = st.builds(
    Old,
    unique(st.tuples(class_ids, urls, times, times, push_urls)),
    unique(st.tuples(roots, folders, names, bodies, st.integers(1, 5)), key=lambda row: row[:3], most=12),
    unique(st.tuples(roots, names), key=lambda row: row, most=2),
    unique(st.tuples(renditions | st.just("x"), st.integers(0, 3), st.none() | st.just("/video"), st.none() | offsets)),
    unique(st.tuples(class_ids | st.just("gone"), renditions | st.just("x"), st.none())),
    st.booleans(),
)


def build(top: Path, made: Old) -> OldStreamer:
    host = OldStreamer(top, [top / "old", top / "video" / "sub", top / "code"])
    host.has_tables()
    host.has_classes(made.classes)
    for number, (root, folder, name, body, age_h) in enumerate(made.files):
        content = flv(body, filler=str(number)) if isinstance(body, float) else f"no recording {number}".encode()
        path = top / root / folder / name
        is_odd = root == "video/sub" and folder == "lost+found"  # a file system has that at its top
        is_odd |= (root, folder, name) == ("video", "", "quarantine")  # a claim of its own
        if not is_odd and all(not parent.is_file() for parent in path.parents) and not path.exists():
            host.has_file(str(path.relative_to(top)), b"" if body == b"" else content, age_s=age_h * 3600)
    for root, name in made.links:
        if (root, name) != ("video", "quarantine") and not (top / root / name).exists() and (top / root).is_dir():
            (top / root / name).symlink_to(top / "code")
    if made.by_hand:
        host.execute("INSERT INTO video_list (id, num_cite, site, update_time) VALUES (?, ?, ?, ?)", made.videos)
        host.execute("INSERT INTO class_list (class_id, video_id, site) VALUES (?, ?, ?)", made.listed)
    return host


def refused(host: OldStreamer, made: Old) -> Old | None:
    """What is left of *made* if its refused classes are cancelled; None if there are none, or no class helps.

    A refusal changes nothing.
    """
    tree, rows = host.tree(), host.dump()
    refusals = host.planned().refusals
    if not refusals:
        return None
    with pytest.raises(Misuse) as raised:
        host.adopt()
    assert all(refusal in raised.value.message for refusal in refusals)
    assert (host.tree(), host.dump()) == (tree, rows)
    named = {row[0] for row in made.classes if any(one.startswith(f"class {shown(str(row[0]))} ") for one in refusals)}
    assert named, refusals
    host.execute("DELETE FROM task_list WHERE class_id = ?", [(class_id,) for class_id in named])
    return replace(made, classes=[row for row in made.classes if row[0] not in named])


def assert_whole(host: OldStreamer, made: Old) -> None:
    """Every class that has not ended will be aired; pins are what they cite; sums are what lies there."""
    states = host.states()
    for class_id, _url, start, end, _push in made.classes:
        ends_at = epoch(end) if not isinstance(end, bytes) else None
        if ends_at is not None and ends_at >= NOW:
            assert states[class_id] in LIVE, (class_id, start, end)
        elif ends_at is not None:
            assert states.get(class_id) not in LIVE, class_id
    with host.committed() as connection:
        cited = airings.citations(connection)
        live = airings.live(connection)
        assert cache_check.differences_in_words(connection, host.video_root) == []
    cached = host.cached()
    assert {stem: row[1] for stem, row in cached.items() if row[1]} == {
        stem: number for stem, number in cited.items() if stem in cached
    }
    there = {one.stem: one.size_bytes for one in cache_dir.scan(host.video_root) if one.kind == "rendition"}
    assert {stem: row[2] for stem, row in cached.items() if row[0] == "ready"} == there
    downloading = [row for row in cached.values() if row[0] == "downloading"]
    assert host.sums() == (sum(there.values()), len(there), 0, len(downloading))
    assert [one for one in cache_dir.scan(host.video_root) if one.kind == "unknown"] == []
    for one in live:
        assert cached[one.stem][0] == ("ready" if one.state == "ready" else "downloading")
        assert one.start_time < one.end_time


@settings(max_examples=share(0.3))
@given(hosts)
def test_any_old_host_is_taken_over_or_refused_and_comes_back(made: Old) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        host = build(Path(folder), made)
        tree, contents = host.tree(), host.contents()
        while less := refused(host, made):  # the one that went may have known the URL for another
            event("some classes refused")
            made = less
        tasks = host.dump()["task_list"]
        event(f"{len(host.planned().classes)} classes taken over")
        host.adopt()
        assert host.contents() == contents
        assert_whole(host, made)
        after, rows = host.tree(), host.dump()
        assert rows["task_list"] == tasks
        assert host.adopt() == []
        assert (host.tree(), host.dump()) == (after, rows)
        host.undo()
        assert host.tree() == tree
        assert host.undo() == []
        host.adopt()
        assert (host.tree(), host.dump()) == (after, rows)
