"""The recording is sent, or the slate: which, from which keyframe on, whatever was sent before, and what is said."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lectern.playout import as_run, demuxer, flv, source
from lectern.playout.as_run import AsRunRows
from lectern.playout.demuxer import Demuxer, Position, fingerprint, open_at
from lectern.playout.keyframe_index import HOLE_MS
from lectern.playout.muxer import RECORDING, SLATE, TAGS, Item
from lectern.playout.rtmp import amf0
from lectern.playout.session import Mark
from lectern.playout.source import Source
from tests.playout import flvs
from tests.playout.turned import AT_ONCE, Clock, Held

CLOCK = Clock()


@pytest.fixture(autouse=True)
def turned(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (demuxer, source):
        monkeypatch.setattr(module, "time", CLOCK)


@contextmanager
def feeding(path: Path, pool: Held = AT_ONCE, **how: Any) -> Iterator[tuple[Source, list[str]]]:
    """A feed of the recording at *path*, and what it tells."""
    told: list[str] = []
    feed = Source(flvs.aired_from(path, **how), pool, pool, lambda event, why: told.append(f"{event}: {why}"))
    yield feed, told
    feed.close()


def look(feed: Source, position_ms: float, after_s: float = 0.25) -> None:
    CLOCK.turn(after_s)
    feed.look(CLOCK.mono, position_ms)


def due(feed: Source, position_ms: float) -> list[Item]:
    """What is sent at *position_ms*, before the next look, of a session that takes everything."""
    found = []
    while (item := feed.muxer.peek(position_ms)) is not None:
        feed.muxer.advance(item)
        found.append(item)
    return found


def sent(feed: Source, position_ms: float) -> list[Item]:
    """The same until nothing is left that is due."""
    found, more = list[Item](), True
    while more:
        look(feed, position_ms)
        more = bool(now := due(feed, position_ms))
        found += now
    return found


def look_until(feed: Source, position_ms: float, condition: Callable[[], object]) -> None:
    """Look at *position_ms* until *condition* is true, which takes a few looks."""
    for _ in range(6):
        look(feed, position_ms)
        if condition():
            return
    raise AssertionError(f"nothing becomes of it at {position_ms} ms")


def looked_again(feed: Source, position_ms: float) -> None:
    """Look when the next look for the recording is due, and until its answer has come."""
    look(feed, position_ms, feed._retry_at - CLOCK.mono)
    look_until(feed, position_ms, lambda: feed._coming is None or feed._coming.is_open)


def begin(feed: Source, position_ms: float = 0.0) -> None:
    """Open the recording at *position_ms*, and begin a session once there is something to send."""
    feed.open(position_ms)
    look_until(feed, position_ms, lambda: feed.has_media)
    feed.begin(position_ms)


def pictures(items: list[Item]) -> list[Item]:
    return [one for one in items if one.kind == flv.PICTURE and not flv.is_header(one.kind, one.body)]


def shown(feed: Source, position_ms: float) -> list[tuple[int, int]]:
    """The positions and numbers of the pictures that are due."""
    return [(one.at_ms, flvs.number(one.body)) for one in pictures(sent(feed, position_ms))]


def first_keyframe(feed: Source, position_ms: float) -> int:
    """The position of the first picture that is sent; it is a keyframe."""
    first = pictures(sent(feed, position_ms))[0]
    assert flv.is_keyframe(first.kind, first.body)
    return first.at_ms


def broken(number: int, *, is_end: bool = False) -> bytes:
    """A recording whose keyframe of that *number* cannot be read, or says another size at its *end*."""
    data, body = bytearray(flvs.data(flvs.lesson(20))), flvs.key(number, 3000)
    at = data.index(body)
    data[at + len(body) + 3 if is_end else at - 11] = 99
    return bytes(data)


# A session begins with a keyframe at the clock's position.


def test_a_session_that_is_made_anew_in_the_first_second_begins_with_the_first_keyframe(tmp_path: Path) -> None:
    """A server may say start, take a little, and close: pictures without their keyframe are nothing to see."""
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(20, keyframe_ms=10_000))) as (feed, _):
        begin(feed)
        assert pictures(sent(feed, 300.0))
        feed.begin(700.0)
        assert first_keyframe(feed, 700.0) == 0


def test_a_session_after_a_clock_that_was_set_back_is_sent_the_recording_at_the_new_position(tmp_path: Path) -> None:
    """Else nothing is sent until the clock is again where the session before it ended."""
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(60))) as (feed, _):
        begin(feed)
        assert sent(feed, 50_000.0)
        for position_ms in (20_000.0, 200.0):
            feed.begin(position_ms)
            look_until(feed, position_ms, lambda: feed.has_media)
            assert first_keyframe(feed, position_ms + 2000) - position_ms <= 1000


def test_a_recording_without_sound_that_is_joined_after_its_last_keyframe_is_not_too_short(tmp_path: Path) -> None:
    silent = [one for one in flvs.lesson(20, keyframe_ms=5000) if one[0] == flv.PICTURE]
    with feeding(flvs.write(tmp_path / "a.flv", silent), duration_s=20) as (feed, told):
        feed.open(17_000.0)
        feed.begin(17_000.0)
        assert pictures(sent(feed, 20_000.0)) == [], "what comes before the next keyframe is not sent"
        assert (told, feed.over) == ([], True)


def test_a_recording_with_an_index_in_its_metadata_is_aired_from_its_first_picture_on(tmp_path: Path) -> None:
    """Some programs write the times and places of all keyframes before the first tag: here a lesson of three hours."""
    keyframes: amf0.Value = {"times": [1.0] * 6000, "filepositions": [1.0] * 6000}
    script = amf0.encode("onMetaData", amf0.Named({"width": 640.0, "keyframes": keyframes}))
    assert len(script) > 64 * 1024
    tags = [flvs.tag(*one) for one in flvs.lesson(9, first_ms=60_000)]
    path = tmp_path / "a.flv"
    path.write_bytes(flvs.FILE_HEAD + flvs.tag(18, 0, script) + b"".join(tags))
    with feeding(path) as (feed, _):
        begin(feed)
        found = sent(feed, 100.0)
        assert [one.at_ms for one in pictures(found)] == [0, 40, 80]
        assert (found[0].kind, b"width" in found[0].body) == (flv.SCRIPT, True)


@pytest.mark.parametrize(
    ("first_ms", "header_ms"), [(60_000, 0), (0, 60_000), (60_000, 2**31 + 60_000), (0xFFFFFF - 1500, 0)]
)
@pytest.mark.parametrize("position_ms", [0, 2000])
def test_the_time_of_a_header_moves_no_picture(tmp_path: Path, first_ms: int, header_ms: int, position_ms: int) -> None:
    """Programs that keep the times of a live stream write the headers at 0, whatever the first picture's time is."""
    tags = flvs.lesson(6, first_ms=first_ms)
    new = flvs.AVC_HEADER + b"new"
    middle = next(at for at, (_, time, _) in enumerate(tags) if time == first_ms + 2040)
    headers = [(kind, header_ms, body) for kind, _, body in tags[:2]]
    path = flvs.write(tmp_path / "a.flv", [*headers, *tags[2:middle], (9, header_ms, new), *tags[middle:]])
    with feeding(path) as (feed, _):
        begin(feed, position_ms)
        found = sent(feed, position_ms + 2100.0)
        times = [one.at_ms for one in found]
        assert [one.at_ms for one in pictures(found)] == list(range(position_ms, position_ms + 2100, 40))
        assert times == sorted(times)
        assert [one.body for one in found if flv.is_header(one.kind, one.body)].count(new) == 1


def test_what_is_late_is_skipped_to_where_the_clock_is(tmp_path: Path) -> None:
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(20))) as (feed, told):
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.has_media)
        opened = feed.muxer.demuxer
        feed.begin(0.0)
        assert feed.muxer.demuxer is opened, "a session begins with the file that was opened for it"
        assert shown(feed, 80.0) == [(0, 0), (40, 1), (80, 2)]
        feed.skip(5500.0)
        coming = feed._coming
        feed.skip(5500.0)
        assert feed._coming is coming is not None, "it is opened once"
        look_until(feed, 5500.0, lambda: feed._coming is None)
        assert shown(feed, 6040.0) == [(6000, 150), (6040, 151)], "from the next keyframe on"
        feed.begin(7900.0)
        assert feed.muxer.demuxer is coming, "also a second and more behind"
        assert told == []


def test_what_is_late_is_not_read_anew_from_a_keyframe_that_was_passed_before(tmp_path: Path) -> None:
    """To get on from there may take longer than 4 s, and it would be skipped again until the class is over."""
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(60, keyframe_ms=45_000))) as (feed, _):
        begin(feed)
        assert shown(feed, 0.0) == [(0, 0)]
        reading = feed.muxer.demuxer
        for position_ms, is_read_on in ((5000.0, True), (50_000.0, False)):
            feed.skip(position_ms)
            look_until(feed, position_ms, lambda: feed._coming is None)
            assert (feed.muxer.demuxer is reading) is is_read_on
            assert {one.at_ms for one in sent(feed, position_ms)} == {int(position_ms)}


# A recording that is missing, broken, too short, with a hole, or late.


def test_a_recording_that_is_missing_is_waited_for_and_nothing_else_helps(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with feeding(path) as (feed, told):
        assert (feed.has_media, feed.has_nothing, feed.wants_file) == (False, False, False)
        assert feed.bytes_a_second(60) == 128 * 1024
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.lost)
        assert (feed.has_media, feed.has_nothing, feed.wants_file) == (False, True, True)
        assert told == ["slate: the recording is missing"]
        assert feed._coming is None, "it is looked for after a second"
        flvs.write(path, flvs.lesson(20))
        feed.look(feed._retry_at - 0.9, 3900.0)
        assert feed._coming is None
        looked_again(feed, 3900.0)
        assert (feed.wants_file, feed.has_nothing) == (False, True), "it is there, and waits for its keyframe"
        look_until(feed, 5000.0, lambda: feed.lost is None)
        assert told[1:] == ["back: the recording is there; before, it is missing"]
        assert (feed.has_media, feed.has_nothing, feed.wants_file) == (True, False, False)
        assert feed.bytes_a_second(20) == path.stat().st_size // 20
        assert shown(feed, 5080.0)[:2] == [(5000, 125), (5040, 126)]


@pytest.mark.parametrize(("needed_s", "is_short"), [(None, False), (5.9, False), (6.0, True), (3.0, False)])
def test_a_recording_may_end_a_second_early(tmp_path: Path, needed_s: float | None, is_short: bool) -> None:
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(5)), duration_s=needed_s) as (feed, told):
        begin(feed)
        shown(feed, 6000.0)
        look_until(feed, 6000.0, lambda: feed.over or told)
        assert (feed.over, feed.lost is not None, feed.wants_file) == (not is_short, is_short, is_short)
        look(feed, 7000.0)
        assert told == ["slate: the recording ends after 5 s, which is too early"] * is_short


@pytest.mark.parametrize(
    ("content", "last", "fault"),
    [
        (broken(75), [(2960, 74)], "is broken: it cannot be read from byte"),
        (b"", [], "cannot be aired: the file is empty"),
        (b"no FLV" * 100, [], "cannot be aired: the file is no FLV"),
    ],
    ids=["broken", "empty", "something else"],
)
def test_a_file_that_cannot_be_aired_is_not_tried_again_before_another_one_is_there(
    tmp_path: Path, content: bytes, last: list[tuple[int, int]], fault: str
) -> None:
    """Of a file that was just written, a host that lost its power may have the name alone: only another one helps."""
    path = tmp_path / "a.flv"
    path.write_bytes(content)
    with feeding(path) as (feed, told):
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.has_media or feed.lost)
        feed.begin(0.0)
        assert shown(feed, 3100.0)[-1:] == last
        look_until(feed, 3100.0, lambda: feed.lost)
        assert told[0].startswith(f"slate: the recording {fault}")
        for _ in range(2):
            looked_again(feed, 3900.0)
            assert (feed.has_media, feed.has_nothing, feed.wants_file, len(told)) == (False, True, True, 1)
            assert feed._coming is None
        flvs.write(path, flvs.lesson(30))  # of another size: the clock of the disk may not have moved
        looked_again(feed, 3900.0)
        look_until(feed, 5000.0, lambda: feed.lost is None)
        assert shown(feed, 5080.0)[:2] == [(5000, 125), (5040, 126)]


def with_hole(path: Path, hole_ms: int) -> Path:
    """A recording in which nothing comes for *hole_ms* after three seconds."""
    return flvs.write(path, [(kind, at if at < 3000 else at + hole_ms - 40, one) for kind, at, one in flvs.lesson(9)])


def test_the_slate_fills_a_hole_that_is_long_and_the_recording_comes_back_at_its_end(tmp_path: Path) -> None:
    with feeding(with_hole(tmp_path / "short.flv", HOLE_MS)) as (feed, told):
        begin(feed)
        assert shown(feed, 3000.0)[-1] == (2960, 74)
        look(feed, 3100.0)
        assert (feed.lost, told) == (None, []), "a short one is waited through"
    slate = flvs.write(tmp_path / "slate.flv", flvs.lesson(2))
    with feeding(with_hole(tmp_path / "a.flv", 30_040), slate=slate) as (feed, told):
        begin(feed)
        assert shown(feed, 3000.0)[-1] == (2960, 74)
        look_until(feed, 4000.0, lambda: feed.muxer.source == SLATE)
        assert (told, feed.wants_file) == (["slate: the recording has a hole of 30 s"], False)
        assert pictures(sent(feed, 5000.0))
        look_until(feed, 30_000.0, lambda: feed.muxer.before_ms == 33_000)
        assert feed.muxer.source == SLATE
        look_until(feed, 33_100.0, lambda: feed.muxer.source == RECORDING)
        assert first_keyframe(feed, 33_100.0) == 33_000
        assert told[1:] == ["back: the recording is there; before, it has a hole of 30 s"]


@pytest.mark.parametrize("is_back", [False, True], ids=["at the beginning", "when it is looked for again"])
def test_a_recording_that_is_opened_late_is_said_to_be_and_sent_from_a_keyframe_that_is_still_to_come(
    tmp_path: Path, is_back: bool
) -> None:
    disk, opened_at, keyframe = Held(), 6900.0 if is_back else 6500.0, 8000 if is_back else 7000
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(20)), disk) as (feed, told):
        feed.open(3000.0)
        look(feed, 3500.0, 0.5)
        assert told == []
        look(feed, 4500.0, 1)
        assert (len(told), feed.wants_file, feed.has_nothing) == (1, False, True)
        look(feed, 4600.0, 7.5)
        assert len(told) == 1
        if is_back:
            feed._drop_coming()
            look(feed, 5100.0, 1)
            assert feed._coming is not None
        disk.go()
        look(feed, opened_at, 10)
        disk.go()
        look(feed, opened_at)
        if is_back:
            assert (feed.lost is not None, feed.muxer.before_ms) == (True, keyframe), "the one in 0.1 s is too near"
        look(feed, keyframe)
        assert (feed.lost, len(told)) == (None, 2)
        assert shown(feed, keyframe)[0][0] == keyframe


# The slate, and another recording.


def test_the_slate_begins_over_without_a_gap_where_the_clock_is_and_anew_in_a_new_session(tmp_path: Path) -> None:
    slate = flvs.write(tmp_path / "slate.flv", flvs.lesson(1))
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, told):
        feed.open(0.0)
        look_until(feed, 5000.0, lambda: feed.has_media)
        assert (feed.muxer.source, feed.has_nothing, feed.wants_file) == (SLATE, False, True)
        feed.begin(5000.0)
        found = [one for position_ms in range(5000, 7000, 40) for one in shown(feed, position_ms)]
        assert found[24:26] == [(5960, 24), (5961, 0)]
        assert max(after - before for (before, _), (after, _) in pairwise(found)) <= 41
        while (last := shown(feed, 20_000.0)[-1])[0] < 20_000:
            assert last[1] == 24, "a loop is sent to its end"
        assert last == (20_000, 0)
        feed.skip(20_000.0)
        assert (feed.muxer.source, len(told)) == (SLATE, 1)
        feed.begin(20_500.0)
        assert first_keyframe(feed, 20_600.0) == 20_500


def test_a_slate_of_a_single_picture_is_sent_twice_a_second(tmp_path: Path) -> None:
    """Sent again whenever it ends, it would take the network from the classes that have their recordings."""
    slate = flvs.write(tmp_path / "slate.flv", [(9, 0, flvs.AVC_HEADER), (9, 0, flvs.key(7))])
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, _):
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.has_media)
        feed.begin(0.0)
        found = list[int]()
        for position_ms in range(0, 5000, 40):
            look(feed, position_ms)
            found += [one.at_ms for one in pictures(due(feed, position_ms))]
        assert found == list(range(0, 5000, 500))


@pytest.mark.parametrize("is_end", [False, True], ids=["at a tag's beginning", "at its end"])
def test_a_slate_that_is_broken_is_given_up_where_it_cannot_be_read_on(tmp_path: Path, is_end: bool) -> None:
    slate = tmp_path / "slate.flv"
    slate.write_bytes(broken(25, is_end=is_end))
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, told):
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.has_media)
        assert shown(feed, 2000.0)[-1] == (960, 24)
        look_until(feed, 2000.0, lambda: feed.slate is None)
        assert (feed.has_media, feed.has_nothing) == (False, True)
        for _ in range(3):
            look(feed, 2000.0)
        assert len(told) == 2
        assert told[1].startswith("slate: the slate is broken")


def test_a_slate_that_could_not_be_read_is_sent_once_it_can_be(tmp_path: Path) -> None:
    """It is just being replaced, or its disk had one fault: else nothing is sent to the end of the class."""
    slate = tmp_path / "slate.flv"
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, told):
        feed.open(0.0)
        look_until(feed, 0.0, lambda: feed.slate is None)
        for _ in range(2):
            look(feed, 2000.0, source.SLATE_RETRY_S)
            assert (feed.has_media, feed.has_nothing, len(told)) == (False, True, 2)
        flvs.write(slate, flvs.lesson(2))
        look(feed, 7000.0, source.SLATE_RETRY_S)
        look_until(feed, 7000.0, lambda: feed.has_media)
        assert (feed.muxer.source, feed.has_nothing, feed.slate) == (SLATE, False, str(slate))
        assert told[1:] == ["slate: the slate is missing", "slate: the recording is missing"]


def test_another_recording_takes_over_whatever_is_sent_or_waited_for(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(20))
    other, last = (flvs.write(tmp_path / f"{n}.flv", flvs.lesson(20, first_number=n * 1000)) for n in (1, 2))
    with feeding(path) as (feed, _):
        feed.open(3000.0)
        feed.replace(flvs.aired_from(other), 3500.0)
        look_until(feed, 3500.0, lambda: feed.has_media)
        assert feed.muxer.demuxer is not None
        assert feed.muxer.demuxer.begins_ms == 3000
    with feeding(path) as (feed, told):
        feed.open(3000.0)
        feed.replace(flvs.aired_from(other), -500.0)
        look_until(feed, 0.0, lambda: feed.has_media)
        feed.begin(0.0)
        assert shown(feed, 40.0) == [(0, 1000), (40, 1001)], "before its start it is opened at its beginning"
        feed.replace(flvs.aired_from(other, duration_s=20), 5900.0)
        assert feed._coming is None, "it is the same one"
        feed.replace(flvs.aired_from(last), 5900.0)
        look_until(feed, 5900.0, lambda: feed.muxer.before_ms == 7000)  # at a keyframe that does not come too soon
        found = shown(feed, 6960.0) + [(one.at_ms, 0) for one in pictures(due(feed, 7040.0))]
        look_until(feed, 7000.0, lambda: feed._coming is None)
        assert [*found, *shown(feed, 7000.0)][-2:] == [(6960, 1174), (7000, 2175)]
        feed.replace(flvs.aired_from(tmp_path / "missing.flv"), 7500.0)
        look_until(feed, 7500.0, lambda: told == ["slate: the recording is missing"])
        feed.replace(flvs.aired_from(path), 7600.0)
        look_until(feed, 7600.0, lambda: feed.muxer.before_ms == 8000)


@pytest.mark.parametrize("is_lost", [False, True], ids=["before it is lost", "after it is lost"])
def test_another_recording_is_sent_though_the_disk_still_hangs_on_the_one_before(tmp_path: Path, is_lost: bool) -> None:
    """The class may have been changed for that very reason."""
    good, pool = flvs.write(tmp_path / "good.flv", flvs.lesson(60)), Held(lambda work: work is open_at)
    with feeding(tmp_path / "missing.flv", pool) as (feed, told):
        feed.open(5000.0)
        if is_lost:
            look_until(feed, 5000.0, lambda: told)
            assert told == ["slate: the recording is not opened in time: the disk is slow, or hangs"]
        pool.holds = lambda _: False
        feed.replace(flvs.aired_from(good), 6000.0)
        look(feed, 7000.0)
        look_until(feed, 8000.0, lambda: feed.has_media)
        assert len(pool.held) == 1


def test_a_recording_is_not_lost_while_more_of_it_is_read(tmp_path: Path) -> None:
    pool = Held(lambda work: False)
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(60, size=8000)), pool) as (feed, told):
        begin(feed)
        pool.holds = lambda work: work is os.pread
        while due(feed, 50_000.0):
            feed.muxer.tags_left = TAGS
        assert pool.held
        look(feed, 50_000.0)
        assert (feed.lost, told) == (None, [])
        pool.go()
        assert shown(feed, 50_000.0)


# How it is read.


def test_of_very_many_tags_a_turn_takes_a_few_whether_they_are_sent_or_passed_over(tmp_path: Path) -> None:
    """Sixteen full batches of tiny tags were 100,000 messages, which held up all classes."""
    many = [(9, 1000 + at // 100, b"\x17\x01\0\0\0") for at in range(20_000)]
    path = flvs.write(tmp_path / "a.flv", [*flvs.lesson(1), *many, *flvs.lesson(1, first_ms=1200)])
    with feeding(path) as (feed, _):
        begin(feed)
        for skipped_ms in (0, 1100):
            feed.muxer.skip_to(skipped_ms)
            begun = feed.muxer.place()[2]
            look(feed, 1200.0)
            due(feed, 1200.0)
            assert 0 < feed.muxer.place()[2] - begun < TAGS * 4000
            assert feed.muxer.tags_left <= 0


def test_blocks_grow_while_they_are_used_up_fast_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred classes that catch up would fill the memory."""
    monkeypatch.setattr(demuxer, "MAX_BLOCK_BYTES", 4 * demuxer.BLOCK_BYTES)
    sizes = set[int]()
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(20, size=20_000))) as (feed, _):
        begin(feed)
        for position_ms in range(0, 19_000, 1000):
            sent(feed, position_ms)
            assert feed.muxer.demuxer is not None
            sizes.add(feed.muxer.demuxer._block_bytes // demuxer.BLOCK_BYTES)
    assert (min(sizes), max(sizes)) == (1, 4)


def test_a_read_counts_as_stalled_once_all_that_was_read_is_taken_and_no_longer_than_it_lasts(tmp_path: Path) -> None:
    pool = Held(lambda work: work is os.pread)
    reader = Demuxer(flvs.write(tmp_path / "1.flv", flvs.lesson(60, size=2000)), pool, Position())
    assert reader.peek() is not None
    late = CLOCK.mono + demuxer.STALL_S + 0.1
    assert not reader.stalled(late)
    while reader.peek() is not None:
        assert not reader.stalled(late)
        reader.advance()
    assert [reader.stalled(late - 0.2), reader.stalled(late)] == [False, True]
    pool.go()
    assert not reader.stalled(late), "it is there, and need only be taken"
    reader.close()


def test_a_file_that_is_closed_while_it_is_read_is_closed_after_the_read(tmp_path: Path) -> None:
    """A disk that hangs holds it open until the read returns, and no longer: a worker lives for weeks."""
    path, pool = flvs.write(tmp_path / "1.flv", flvs.lesson(60)), Held(lambda work: work is os.pread)
    reader = Demuxer(path, pool, Position())
    while reader.peek() is not None and not pool.held:
        reader.advance()
    opened = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and one.readlink() == path]
    reader.close()
    assert [one for one in opened if one.is_symlink()] == opened, "its read is under way"
    pool.go()
    assert not any(one.is_symlink() and one.readlink() == path for one in opened)


# What a worker goes on with that takes over a session.


MARK = Mark(0, 0, RECORDING, 77, 1000, 0, 0, False, 400, 400, 0, 0.0)


def identified(path: Path) -> int:
    """What a mark has of a file."""
    state = path.stat()
    return fingerprint((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


def test_of_a_file_that_was_replaced_nothing_is_sent_before_it_is_known_where(tmp_path: Path) -> None:
    """Its demuxer is read from the keyframe before the position: sent at once, pictures would come twice."""
    with feeding(flvs.write(tmp_path / "a.flv", flvs.lesson(10))) as (feed, _):
        feed.resume(MARK._replace(last_ms=8400), {"file": 77, "headers": {"9": 13}}, 8400.0)
        assert feed.has_media
        assert (feed.muxer.peek(8440.0), feed.muxer.behind_ms(8440.0)) == (None, 0.0)
        look(feed, 8440.0)
        assert (item := feed.muxer.peek(8440.0)) is not None
        assert item.at_ms == 8440
        assert shown(feed, 9040.0) == [(9000, 225), (9040, 226)], "from the next keyframe on"


@pytest.mark.parametrize(
    ("content", "says", "then"),
    [
        (flvs.data(flvs.lesson(20)), "back: the recording is there; before, it was missing or broken", 150),
        (None, "slate: the recording is missing", 25),
        (b"", "slate: the recording cannot be aired: the file is empty", 25),
    ],
    ids=["there", "missing", "empty"],
)
def test_a_worker_goes_on_with_the_slate_of_the_one_before_and_finds_out_what_became_of_the_recording(
    tmp_path: Path, content: bytes | None, says: str, then: int
) -> None:
    """Else it is not downloaded again: who follows the playout may have begun after the worker before told it."""
    path, slate = tmp_path / "a.flv", flvs.write(tmp_path / "slate.flv", flvs.lesson(4))
    with feeding(path, slate=slate) as (feed, _):
        feed.open(0.0)
        look_until(feed, 5000.0, lambda: feed.has_media)
        feed.begin(5000.0)
        assert shown(feed, 5080.0)[-1] == (5080, 2)
        mark, saved = Mark(0, 0, *feed.muxer.place(), 0, 0.0), feed.muxer.save()
    assert (mark.source, mark.file) == (SLATE, identified(slate))
    if content is not None:
        path.write_bytes(content)
    with feeding(path, slate=slate) as (feed, told):
        feed.resume(mark, saved, 5100.0)
        assert (feed.lost is not None, feed.muxer.source) == (True, SLATE)
        look_until(feed, 5100.0, lambda: feed.wants_file or feed.muxer.before_ms == 6000)
        assert shown(feed, 5160.0) == [(5120, 3), (5160, 4)], "the slate goes on meanwhile"
        look_until(feed, 6000.0, lambda: told)
        assert shown(feed, 6000.0)[-1] == (6000, then)
        look(feed, 6000.0, source.RETRY_S)
        look(feed, 6000.0)
        assert told == [says]
    with feeding(path) as (feed, _):  # the class has no slate any more
        feed.resume(mark, saved, 5100.0)
        feed.begin(5100.0)
        look_until(feed, 5100.0, lambda: feed.has_media or feed.wants_file)
        assert feed.has_media is (then == 150)


def test_a_worker_goes_on_with_the_slate_though_the_disk_hangs_on_recordings(tmp_path: Path) -> None:
    slate = flvs.write(tmp_path / "slate.flv", flvs.lesson(4))
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, _):
        feed.open(0.0)
        look_until(feed, 5000.0, lambda: feed.has_media)
        feed.begin(5000.0)
        assert shown(feed, 5080.0)
        mark, saved, lesson = Mark(0, 0, *feed.muxer.place(), 0, 0.0), feed.muxer.save(), feed.lesson
    with closing(Source(lesson, Held(), AT_ONCE, lambda *_: None)) as feed:
        feed.resume(mark, saved, 5120.0)
        assert shown(feed, 5160.0)


def test_a_recording_that_turns_out_to_be_missing_where_the_disk_was_slow_is_wanted(tmp_path: Path) -> None:
    disk = Held()
    with feeding(tmp_path / "missing.flv", disk) as (feed, told):
        feed.open(0.0)
        look(feed, 1100.0, 1.1)
        assert (len(told), feed.wants_file) == (1, False)
        disk.go()
        look(feed, 1200.0)
        assert (told[1:], feed.wants_file) == (["slate: the recording is missing"], True)


def test_what_a_worker_does_not_know_yet_it_passes_on_as_it_was(tmp_path: Path) -> None:
    """A batch may be written down while the disk is still asked for the recording.

    Headers of another file are passed on as unknown: else nobody could decode a session that is made anew.
    """
    saved = {"file": 77, "headers": {9: 13}}
    with feeding(tmp_path / "a.flv", Held()) as (feed, _):
        feed.resume(MARK, saved, 400.0)
        assert (feed.muxer.place(), feed.muxer.save()) == ((RECORDING, 77, 1000, 0, 0, False, 400, 400), saved)
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(4))
    file = identified(path)
    with feeding(path) as (feed, _):
        feed.resume(MARK._replace(file=file, place=13), {"file": file + 1, "headers": {}}, 400.0)
        assert (feed.has_media, feed.muxer.place()[1]) == (True, file)
        assert feed.muxer.save()["file"] != file


# What was sent.


def test_a_push_counts_its_own_sessions_and_begins_a_row_for_each_source() -> None:
    rows: list[dict[str, Any]] = [{"url": 0, "session": 3}, {"url": 0, "session": 2}, {"url": 1, "session": 9}]
    pushed = AsRunRows(rows, 0)
    pushed.begin()
    assert (pushed.sessions, pushed.is_good(1e9)) == (4, False)
    row = {"url": 0, "session": 4, "from": 1.0, "to": 1.0, "position_s": 2.0, "bytes": 50}
    assert [pushed.note({**row, "source": source}, 1.0, 50) for source in ("slate", "slate", "recording")] == [1, 0, 1]
    assert [(one["source"], one["sent_s"], one["open"]) for one in rows[3:]] == [
        ("slate", 0.0, False),
        ("recording", 0.0, True),
    ]


def test_a_row_ends_with_the_last_send_or_with_its_media_if_the_wall_clock_was_set_back_meanwhile() -> None:
    rows: list[dict[str, Any]] = []
    pushed = AsRunRows(rows, 0)
    pushed.begin()
    row = {"url": 0, "session": 1, "source": "recording", "from": 100.0, "to": 100.0, "position_s": 2.0, "bytes": 50}
    ends = []
    for to, last_s in ((100.0, 2.0), (107.5, 8.0), (90.0, 10.0)):
        pushed.note({**row, "from": to, "to": to}, last_s, 950)
        ends.append(rows[0]["to"])
    assert ends == [100.0, 107.5, 108.0]


def test_the_first_byte_of_a_class_is_that_of_its_first_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_run, "time", CLOCK)
    pushed, began = AsRunRows([], 0), CLOCK.wall
    row = {"url": 0, "source": "slate", "from": 1.0, "to": 1.0, "position_s": 2.0, "bytes": 50}
    for session in (1, 2):
        pushed.begin()
        pushed.note({**row, "session": session}, 1.0, 50)
        CLOCK.turn(3)
    assert pushed.first_byte_at == began


def test_the_row_of_a_session_goes_on_where_its_worker_died_though_it_was_saved_long_before() -> None:
    """Else seconds that were sent are missing from the as-run if the next worker begins another row."""
    first = AsRunRows([], 0)
    first.begin()
    row = {"url": 0, "session": 1, "source": "recording", "from": 100.0, "to": 100.0, "position_s": 2.0, "bytes": 50}
    first.note(row, 2.0, 950)
    rows = [{**row, "to": 101.0, "open": False}]  # as it was written down last
    then = AsRunRows(rows, 0)
    then.resume(first.save(), "recording", 8.5, 2950, 106.5)
    then.go_on()
    then.close()
    (found,) = rows
    assert (found["to"], found["sent_s"], found["bytes"]) == (106.5, 6.5, 2050)
    then.resume(then.save(), "recording", 9.0, 3000, 107.0)
    assert found["to"] == 106.5, "a row that is closed ended there"
