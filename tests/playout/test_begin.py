"""A new session begins with a keyframe at the clock's position, whatever was sent before, however the clock is set."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lectern.playout import demuxer, flv, source
from lectern.playout.as_run import AsRunRows
from lectern.playout.demuxer import Demuxer, Position, fingerprint
from lectern.playout.muxer import RECORDING, SLATE, TAGS, Item
from lectern.playout.rtmp import amf0
from lectern.playout.session import Mark
from lectern.playout.source import Source
from tests.playout import flvs
from tests.waiting import wait_until


@contextmanager
def feeding(
    path: Path, *, slate: Path | None = None, duration_s: float | None = None, stall_s: float = 60.0
) -> Iterator[tuple[Source, list[str]]]:
    """A feed of the recording at *path*, and what it tells; a read that takes *stall_s* hangs."""
    told: list[str] = []
    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        for module in (source, demuxer):
            patch.setattr(module, "STALL_S", stall_s)
        lesson = flvs.aired_from(path, slate=slate, duration_s=duration_s)
        feed = Source(lesson, pool, lambda event, why: told.append(f"{event}: {why}"))
        yield feed, told
        feed.close()


def sent(feed: Source, position_ms: float) -> list[Item]:
    """What is due at *position_ms*, as a session that takes everything is sent it."""
    found = []

    def all_read() -> bool:
        feed.look(time.monotonic(), position_ms)
        while (item := feed.muxer.peek(position_ms)) is not None:
            feed.muxer.advance(item)
            found.append(item)
        demuxer = feed.muxer.demuxer
        return demuxer is not None and (demuxer.peek() is not None or demuxer.ended)

    wait_until(all_read, description="everything that is due")
    return found


def look_until(feed: Source, position_ms: float, condition: Callable[[], object], description: str) -> None:
    """Look at *position_ms* until *condition* is true."""

    def looked() -> object:
        feed.look(time.monotonic(), position_ms)
        return condition()

    wait_until(looked, description=description)


def begin(feed: Source, position_ms: float = 0.0) -> None:
    """Open the recording at *position_ms*, and begin a session once there is something to send."""
    feed.open(position_ms)
    look_until(feed, position_ms, lambda: feed.has_media, "the file")
    feed.begin(position_ms)


def pictures(items: list[Item]) -> list[Item]:
    return [one for one in items if one.kind == flv.PICTURE and not flv.is_header(one.kind, one.body)]


def test_a_session_that_is_made_anew_in_the_first_second_begins_with_the_first_keyframe(tmp_path: Path) -> None:
    """A server may say start, take a little, and close: pictures without their keyframe are nothing to see."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(20, keyframe_ms=10_000))
    with feeding(path) as (feed, _):
        feed.open(0.0)
        feed.begin(0.0)
        assert pictures(sent(feed, 300.0))
        feed.begin(700.0)
        first = pictures(sent(feed, 700.0))[0]
        assert (first.at_ms, flv.is_keyframe(first.kind, first.body)) == (0, True)


def test_the_slate_begins_anew_in_a_new_session(tmp_path: Path) -> None:
    slate = flvs.write(tmp_path / "slate.flv", flvs.lesson(10, keyframe_ms=10_000))
    with feeding(tmp_path / "missing.flv", slate=slate) as (feed, _):
        begin(feed, 5000.0)
        assert pictures(sent(feed, 6000.0))
        feed.begin(7000.0)
        first = pictures(sent(feed, 7100.0))[0]
        assert (first.at_ms, flv.is_keyframe(first.kind, first.body)) == (7000, True)


def test_a_session_after_a_clock_that_was_set_back_is_sent_the_recording_at_the_new_position(tmp_path: Path) -> None:
    """Else nothing is sent until the clock is again where the session before it ended."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with feeding(path) as (feed, _):
        feed.open(0.0)
        feed.begin(0.0)
        assert sent(feed, 50_000.0)
        for position_ms in (20_000.0, 200.0):
            feed.begin(position_ms)
            look_until(feed, position_ms, lambda: feed.has_media, "the file")
            found = pictures(sent(feed, position_ms + 2000))
            assert found
            assert found[0].at_ms - position_ms <= 1000
            assert flv.is_keyframe(found[0].kind, found[0].body)


def test_a_recording_without_sound_that_is_joined_after_its_last_keyframe_is_not_too_short(tmp_path: Path) -> None:
    silent = [one for one in flvs.lesson(20, keyframe_ms=5000) if one[0] == flv.PICTURE]
    path = flvs.write(tmp_path / "a.flv", silent)
    with feeding(path, duration_s=20) as (feed, told):
        feed.open(17_000.0)
        feed.begin(17_000.0)

        def is_over() -> bool:
            feed.look(time.monotonic(), 20_000.0)
            while (item := feed.muxer.peek(20_000.0)) is not None:
                feed.muxer.advance(item)
                assert pictures([item]) == [], "what comes before the next keyframe is not sent"
            return feed.over or bool(told)

        wait_until(is_over, description="its end")
        assert told == []
        assert feed.over


def test_a_recording_with_an_index_in_its_metadata_is_aired_from_its_first_picture_on(tmp_path: Path) -> None:
    """Some programs write the times and places of all keyframes before the first tag: here a lesson of three hours."""
    keyframes: amf0.Value = {"times": [1.0] * 6000, "filepositions": [1.0] * 6000}
    script = amf0.encode("onMetaData", amf0.Named({"width": 640.0, "keyframes": keyframes}))
    assert len(script) > 64 * 1024
    path = tmp_path / "a.flv"
    path.write_bytes(
        flvs.FILE_HEAD + flvs.tag(18, 0, script) + b"".join(flvs.tag(*one) for one in flvs.lesson(9, first_ms=60_000))
    )
    with feeding(path) as (feed, _):
        begin(feed)
        found = sent(feed, 100.0)
        assert [one.at_ms for one in pictures(found)] == [0, 40, 80]
        assert found[0].kind == flv.SCRIPT
        assert b"width" in found[0].body


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


@pytest.mark.parametrize("is_lost", [False, True], ids=["before it is lost", "after it is lost"])
def test_another_recording_is_sent_though_the_disk_still_hangs_on_the_one_before(tmp_path: Path, is_lost: bool) -> None:
    """The class may have been changed for that very reason; here nobody writes to a pipe that is opened."""
    hangs, good = tmp_path / "hangs.flv", flvs.write(tmp_path / "good.flv", flvs.lesson(60))
    os.mkfifo(hangs)
    with feeding(hangs, stall_s=1.0) as (feed, told):
        feed.open(5000.0)
        try:
            while is_lost and not told:
                feed.look(time.monotonic(), 5000.0)
            feed.replace(flvs.aired_from(good), 6000.0)
            began = time.monotonic()

            def is_sent() -> bool:
                now = time.monotonic()
                feed.look(now, 6000.0 + (now - began) * 1000)
                return feed.has_media

            wait_until(is_sent, description="the other recording")
        finally:
            os.close(os.open(hangs, os.O_RDWR))


def test_the_slate_fills_a_hole_in_a_recording_and_the_recording_comes_back_at_its_end(tmp_path: Path) -> None:
    tags = [(kind, at if at < 3000 else at + 30_000, body) for kind, at, body in flvs.lesson(9)]
    path, slate = flvs.write(tmp_path / "a.flv", tags), flvs.write(tmp_path / "slate.flv", flvs.lesson(2))
    with feeding(path, slate=slate) as (feed, told):
        begin(feed)
        last = pictures(sent(feed, 3000.0))[-1]
        assert last.at_ms == 2960
        look_until(feed, 4000.0, lambda: feed.muxer.source == SLATE, "the slate")
        assert told == ["slate: the recording has a hole of 30 s"]
        assert not feed.wants_file
        assert pictures(sent(feed, 5000.0))
        look_until(feed, 30_000.0, lambda: feed.muxer.before_ms == 33_000, "the way back")
        assert feed.muxer.source == SLATE
        look_until(feed, 33_100.0, lambda: feed.muxer.source == RECORDING, "the recording")
        back = pictures(sent(feed, 33_100.0))[0]
        assert (back.at_ms, flv.is_keyframe(back.kind, back.body)) == (33_000, True)
        assert told[1:] == ["back: the recording is there; before, it has a hole of 30 s"]


def test_a_recording_is_sent_until_the_next_keyframe_of_the_one_that_replaces_it(tmp_path: Path) -> None:
    """Else the picture freezes until then."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(20))
    other = flvs.write(tmp_path / "b.flv", flvs.lesson(20, keyframe_ms=5000, first_number=1000))
    with feeding(path) as (feed, told):
        begin(feed)
        found = sent(feed, 6000.0)
        feed.replace(flvs.aired_from(other), 6000.0)
        look_until(feed, 6000.0, lambda: feed.muxer.before_ms == 10_000, "the other one")
        found += sent(feed, 9990.0)
        feed.look(time.monotonic(), 10_000.0)
        found += sent(feed, 11_000.0)
        shown = pictures(found)
        assert [one.at_ms for one in shown] == list(range(0, 11_001, 40))
        assert [flvs.number(one.body) >= 1000 for one in shown] == [one.at_ms >= 10_000 for one in shown]
        assert told == []


def test_of_very_many_tags_a_turn_takes_a_few_whether_they_are_sent_or_passed_over(tmp_path: Path) -> None:
    """Sixteen full batches of tiny tags were 100,000 messages, which held up all classes."""
    many = [(9, 1000 + at // 100, b"\x17\x01\0\0\0") for at in range(20_000)]
    path = flvs.write(tmp_path / "a.flv", [*flvs.lesson(1), *many, *flvs.lesson(1, first_ms=1200)])
    with feeding(path) as (feed, _):
        begin(feed)
        for skipped_ms in (0, 1100):
            feed.muxer.skip_to(skipped_ms)
            begun = feed.muxer.place()[2]
            feed.look(time.monotonic(), 1200.0)
            while (item := feed.muxer.peek(1200.0)) is not None:
                feed.muxer.advance(item)
            assert 0 < feed.muxer.place()[2] - begun < TAGS * 4000
            assert feed.muxer.tags_left <= 0


class _Held(Executor):
    """Opens files at once; reads when the test says so."""

    def __init__(self) -> None:
        self.reads: list[Callable[[], None]] = []

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> "Future[Any]":
        done: Future[Any] = Future()

        def go() -> None:
            done.set_result(work(*given, **named))

        if work is os.pread:
            self.reads.append(go)
        else:
            go()
        return done


def test_a_file_that_is_closed_while_it_is_read_is_closed_after_the_read(tmp_path: Path) -> None:
    """A disk that hangs holds it open until the read returns, and no longer: a worker lives for weeks."""
    path, pool = flvs.write(tmp_path / "1.flv", flvs.lesson(60)), _Held()
    demuxer = Demuxer(path, path.with_suffix(".index"), pool, Position())
    while demuxer.peek() is not None and not pool.reads:
        demuxer.advance()
    (read,) = pool.reads
    opened = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and one.readlink() == path]
    demuxer.close()
    assert [one for one in opened if one.is_symlink()] == opened, "its read is under way"
    read()
    assert not any(one.is_symlink() and one.readlink() == path for one in opened)


# What a worker goes on with that takes over a session.


def test_of_a_file_that_was_replaced_nothing_is_sent_before_it_is_known_where(tmp_path: Path) -> None:
    """Its demuxer is read from the keyframe before the position: sent at once, pictures would come twice."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(10))
    mark = Mark(0, 0, RECORDING, 77, 1000, 0, 0, False, 8400, 8400, 0, 0.0)
    with feeding(path) as (feed, _):
        feed.resume(mark, {"file": 77, "headers": {"9": 13}}, 8400.0)
        demuxer = feed.muxer.demuxer
        assert demuxer is not None
        wait_until(lambda: demuxer.peek() is not None, description="the file")  # as whoever looks how late it is
        assert (feed.muxer.peek(8440.0), feed.muxer.behind_ms(8440.0)) == (None, 0.0)
        feed.look(time.monotonic(), 8440.0)
        item = feed.muxer.peek(8440.0)
        assert item is not None
        assert item.at_ms == 8440


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


def test_a_worker_that_dies_before_its_file_is_open_leaves_what_the_one_before_knew() -> None:
    """A ping may be answered, and so a batch be written down, while the disk is still asked for the recording."""
    mark = Mark(0, 0, RECORDING, 77, 1000, 0, 0, False, 400, 400, 0, 0.0)
    saved = {"file": 77, "headers": {9: 13}}
    with ThreadPoolExecutor(1) as pool:
        is_open = threading.Event()
        pool.submit(is_open.wait)
        feed = Source(flvs.aired_from(Path("/a.flv")), pool, lambda _event, _why: None)
        feed.resume(mark, saved, 400.0)
        found = feed.muxer.place(), feed.muxer.save()
        is_open.set()
    assert found == ((RECORDING, 77, 1000, 0, 0, False, 400, 400), saved)


def test_headers_that_a_worker_does_not_know_are_not_passed_on_as_known(tmp_path: Path) -> None:
    """Else the next worker begins a new session without them if this one is cut, and nobody can decode it."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(4))
    state = path.stat()
    file = fingerprint((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
    mark = Mark(0, 0, RECORDING, file, 13, 0, 0, False, 0, 400, 0, 0.0)
    with feeding(path) as (feed, _):
        feed.resume(mark, {"file": file + 1, "headers": {}}, 400.0)
        wait_until(lambda: feed.has_media, description="the file")
        assert feed.muxer.place()[1] == file
        assert feed.muxer.save()["file"] != file
