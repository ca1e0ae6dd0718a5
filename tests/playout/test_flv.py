"""What is read in a recording: tags, headers, keyframes, and why one cannot be aired."""

import ast
import ipaddress
import random
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lectern.playout
from lectern.allowlist import Allowlist
from lectern.playout import flv, keyframe_index
from lectern.playout.flv import NotAirable, Unwrap
from lectern.playout.keyframe_index import KEYFRAME
from lectern.playout.publisher import FIRST_S, LAST_S, Backoff
from lectern.playout.rtmp import amf0
from lectern.playout.timetable import may_reach
from tests.playout import flvs


def test_the_index_is_16_bytes_a_record_and_tells_where_to_begin(tmp_path: Path) -> None:
    tags = flvs.lesson(4)
    middle = len(tags) // 2
    tags.insert(middle, (9, tags[middle][1], flvs.AVC_HEADER + b"new"))
    path = flvs.write(tmp_path / "a.flv", tags)
    found = keyframe_index.look(path)
    keyframe_index.write(found, keyframe_index.path_of(path))
    assert keyframe_index.path_of(path).stat().st_size == 16 * (1 + len(found.records))
    records = keyframe_index.read(keyframe_index.path_of(path), found.size_bytes)
    assert records == found.records
    early, late = filter(None, (keyframe_index.keyframe(records, at) for at in (1999, 3500)))
    assert (early.time_ms, late.time_ms) == (1000, 3000)
    data = path.read_bytes()
    head = flv.tag_head(data, late.offset)
    assert head is not None
    assert flv.is_keyframe(head.kind, data[late.offset + 11 :][:6])
    before, after = (keyframe_index.headers(records, one.offset)[flv.PICTURE] for one in (early, late))
    assert data[after + 11 :].startswith(flvs.AVC_HEADER + b"new")
    assert before < after
    assert keyframe_index.keyframe(records, 3001, after=True) is None
    assert keyframe_index.read(keyframe_index.path_of(path), found.size_bytes + 1) is None, (
        "an index of another file is none"
    )


@pytest.mark.parametrize(
    ("first_ms", "header_ms"), [(0, 0), (60_000, 0), (0, 1500), (60_000, 2**32 - 1), (2**32 - 1000, 0)]
)
def test_a_recording_begins_with_its_first_picture_or_sound_whatever_time_its_headers_have(
    tmp_path: Path, first_ms: int, header_ms: int
) -> None:
    """Programs that keep the times of a live stream write the headers at 0: else the class began with silence."""
    tags = [(kind, (first_ms + time) % 2**32, body) for kind, time, body in flvs.lesson(4)]
    headers = [(kind, header_ms, body) for kind, _, body in tags[:2]]
    middle = (9, header_ms, flvs.AVC_HEADER + b"new")
    path = flvs.write(tmp_path / "a.flv", [*headers, *tags[2:102], middle, *tags[102:]])
    found = keyframe_index.look(path)
    keyframe_index.check(found)
    assert (found.duration_ms, found.size_bytes) == (99 * 40, path.stat().st_size)
    assert [one.time_ms for one in found.records if one.kind == KEYFRAME] == [0, 1000, 2000, 3000]
    assert [one.kind for one in found.records if one.kind != KEYFRAME] == [9, 8, 9]


@given(st.integers(1, 700))
def test_a_last_tag_that_is_cut_off_is_no_fault(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.flv"
    path.write_bytes(flvs.data([*flvs.lesson(1), (9, 1000, flvs.picture(1, 800))])[:-cut])
    found = keyframe_index.look(path)
    assert (found.broken_at, found.duration_ms) == (None, 1000 if cut <= flv.TAIL_BYTES else 960)


def test_a_file_that_is_broken_in_its_middle_says_where(tmp_path: Path) -> None:
    data = bytearray(flvs.data(flvs.lesson(4)))
    place = keyframe_index.look(flvs.write(tmp_path / "a.flv", flvs.lesson(4))).records[-1].offset
    data[place] = 77
    (tmp_path / "b.flv").write_bytes(data)
    found = keyframe_index.look(tmp_path / "b.flv")
    assert found.broken_at == place
    with pytest.raises(NotAirable, match=rf"cannot be read from byte {place} of \d+, 3 s from the beginning"):
        keyframe_index.check(found)


@pytest.mark.parametrize(("rest", "is_broken"), [(10, False), (11, True)])
def test_what_stands_behind_the_last_tag_is_a_fault_if_it_is_as_long_as_a_head(
    tmp_path: Path, rest: int, is_broken: bool
) -> None:
    data = flvs.data(flvs.lesson(1))
    (tmp_path / "a.flv").write_bytes(data + b"\x4d" * rest)
    assert keyframe_index.look(tmp_path / "a.flv").broken_at == (len(data) if is_broken else None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0\0\0\x18ftypmp42", "no FLV"),
        (b"FLV\x01\x05", "inside its header"),
        (b"FLV\x01\x05\0\0\0\x29\0\0\0\0", "version 1"),
        (flvs.data([]), "neither pictures nor sound"),
        (flvs.data([(9, 0, flvs.key(0))]), "pictures cannot be decoded"),
        (flvs.data([(8, 0, flvs.sound(0))]), "sound cannot be decoded"),
        (flvs.data([(9, 0, flvs.AVC_HEADER), (9, 0, flvs.picture(0))]), "no keyframe"),
        (flvs.data([(9, 0, b"\x1d\x01\0\0\0")]), "unknown kind 13"),
        (flvs.data([(kind, 0, body) for kind, _, body in flvs.lesson(2)]), "times do not go on"),
        (flvs.data([*flvs.lesson(1), *[(8, 1000, b"")] * 11_000]), "1000 tags a second"),
        (flvs.data([(9, 0, b"\x90xxxx\0\0\0\0")]), "unknown kind 'xxxx'"),
    ],
)
def test_what_cannot_be_aired_is_refused_with_its_reason(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.flv"
    path.write_bytes(data)
    with pytest.raises(NotAirable, match=words):
        keyframe_index.look(path)


def test_a_too_long_index_is_neither_written_nor_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(10))
    found, index = keyframe_index.look(path), keyframe_index.path_of(path)
    keyframe_index.write(found, index)
    monkeypatch.setattr(keyframe_index, "MAX_RECORDS", len(found.records))
    assert keyframe_index.read(index, found.size_bytes) == keyframe_index.look(path).records
    monkeypatch.setattr(keyframe_index, "MAX_RECORDS", len(found.records) - 1)
    assert keyframe_index.read(index, found.size_bytes) is None
    with pytest.raises(NotAirable, match="keyframes and headers"):
        keyframe_index.look(path)


def sounds_at(path: Path, *times_ms: int) -> keyframe_index.Look:
    """What is found in a recording of sounds at these times."""
    return keyframe_index.look(
        flvs.write(path, [(8, 0, flvs.AAC_HEADER), *((8, at, flvs.sound(at)) for at in times_ms)])
    )


def test_holes_steps_back_and_places_to_begin_have_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of all sounds, or of all of very many keyframes, would take more memory than the recording.

    A recorder that was paused leaves a hole: nothing would be sent in it, and the server may end the session.
    """
    path, first_ms = tmp_path / "a.flv", 70_000
    times = [first_ms + at for at in (0, 1999, 2000, 3999, 4000, 9000, 14_001, 12_001, 20_000)]
    found = sounds_at(path, *times)
    assert found.holes == ((9000, 14_001), (14_001, 20_000))
    assert [one.time_ms for one in found.records if one.kind == KEYFRAME] == [0, 2000, 4000, 9000, 14_001, 20_000]
    with pytest.raises(NotAirable, match=r"go back by 2\.0 s"):
        sounds_at(path, *times[:7], first_ms + 12_000)
    monkeypatch.setattr(keyframe_index, "MAX_HOLES", 1)
    assert sounds_at(path, *times).holes == ((9000, 14_001),)
    keys = [(9, at, flvs.key(at)) for at in (first_ms, first_ms + 199, first_ms + 200, first_ms + 150, first_ms + 400)]
    found = keyframe_index.look(flvs.write(path, [(9, 0, flvs.AVC_HEADER), *keys]))
    assert [one.time_ms for one in found.records if one.kind == KEYFRAME] == [0, 200, 150, 400]


@pytest.mark.parametrize(("more", "is_refused"), [(0, False), (1, True)])
def test_ten_thousand_tags_in_ten_seconds_are_as_many_as_may_be(tmp_path: Path, more: int, is_refused: bool) -> None:
    """Counted anew each ten seconds."""
    path = tmp_path / "a.flv"
    path.write_bytes(
        flvs.FILE_HEAD
        + flvs.tag(8, 0, flvs.AAC_HEADER)
        + flvs.tag(8, 0, b"\xaf\1") * (9998 + more)
        + flvs.tag(8, 10_000, b"\xaf\1") * 10_001
    )
    if is_refused:
        with pytest.raises(NotAirable, match="1000 tags a second"):
            keyframe_index.look(path)
    else:
        assert keyframe_index.look(path).duration_ms == 10_000


@given(st.binary(max_size=3000))
def test_any_bytes_can_be_looked_at(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.flv"
    path.write_bytes(flvs.FILE_HEAD + data)
    with suppress(NotAirable):
        assert keyframe_index.look(path).records


@given(st.lists(st.integers(-1000, 2**31 - 1), max_size=50))
def test_times_go_on_where_their_32_bits_begin_anew(steps: list[int]) -> None:
    unwrap = Unwrap()
    time = 0
    for step in steps:
        time += step
        assert unwrap(time & 0xFFFFFFFF) == time


def test_metadata_leave_out_what_speaks_of_the_file() -> None:
    body = amf0.encode("onMetaData", amf0.Named({"width": 640.0, "duration": 9.0, "filesize": 7.0, "keyframes": {}}))
    sent = flv.metadata(body)
    assert sent is not None
    assert amf0.decode(sent) == ["@setDataFrame", "onMetaData", {"width": 640.0}]
    assert flv.metadata(amf0.encode("onCuePoint", {})) is None
    assert flv.metadata(b"\x02\0") is None


@pytest.mark.parametrize(
    ("kind", "body", "is_what"),
    [
        (9, flvs.AVC_HEADER, "header"),
        (9, b"\x17\0", "header"),
        (9, flvs.key(1), "keyframe"),
        (9, b"\x17\1", "keyframe"),
        (9, b"\x1c\1", "keyframe"),  # HEVC
        (9, b"\x17", ""),
        (9, flvs.picture(1), ""),
        (9, b"\x12aa", "keyframe alone"),  # Sorenson
        (9, b"\x90hvc1aa", "header"),
        (9, b"\x91hvc1aa", "keyframe"),
        (9, b"\xa1hvc1aa", ""),
        (9, b"\x93hvc1aa", "keyframe"),
        (8, flvs.AAC_HEADER, "header"),
        (8, b"\xaf\0", "header"),
        (8, flvs.sound(1), ""),
        (8, b"\x2faa", "alone"),  # MP3
        (8, b"\x90Opusaa", "header"),
        (18, b"\x17\0", "alone"),
        (18, b"\xaf\0", "alone"),
    ],
)
def test_a_tag_says_what_it_is(kind: int, body: bytes, is_what: str) -> None:
    """*alone*: it can be decoded without a header."""
    found = [flv.is_keyframe(kind, body[:6]), flv.is_header(kind, body[:6]), not flv.needs_header(kind, body)]
    assert found == [word in is_what.split() for word in ("keyframe", "header", "alone")]


def test_a_head_that_is_cut_off_is_none() -> None:
    data = bytes(5) + flvs.tag(8, 0xFF123456, b"xy")
    assert [flv.tag_head(data[:size], 5) for size in (5, 15, 16)] == [None, None, flv.TagHead(8, 2, 0xFF123456)]


def test_the_playout_imports_the_standard_library_only() -> None:
    names = set()
    for module in Path(lectern.playout.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
    others = {one.partition(".")[0] for one in names if not one.startswith("lectern.playout")}
    assert others <= sys.stdlib_module_names


INSIDE = ["10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "fec0::1", "::1", "fe80::1%lo"]
OUTSIDE = ["1.1.1.1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2606:4700::1111"]


@pytest.mark.parametrize(
    ("address", "is_public"), [*((one, False) for one in INSIDE), *((one, True) for one in OUTSIDE)]
)
def test_an_address_that_contains_another_is_as_public_as_that_one(address: str, is_public: bool) -> None:
    """Where the network translates, it leads there."""
    assert may_reach(address, ["public"]) is is_public
    found = ipaddress.ip_address(address.partition("%")[0])
    assert (Allowlist.listed("public", "ALLOWED_PUSH_HOSTS").forbidden("h", 1935, [found]) is None) is is_public


def test_a_listed_network_is_reached_and_any_where_none_is_listed() -> None:
    listed = ["10.0.0.0/8", "192.168.0.0/16", "fd00::/8"]
    asked = ["10.0.0.1", "192.168.0.1", "fd00::1", "11.0.0.1", "1.1.1.1", "fe80::1", "224.0.0.1"]
    assert [one for one in asked if may_reach(one, listed)] == asked[:3]
    assert [one for one in asked if may_reach(one, ["public", *listed])] == asked[:5]
    assert [one for one in asked if may_reach(one, None)] == asked


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_a_broken_session_is_replaced_at_once_then_after_pauses_that_double_to_five_seconds(draw: float) -> None:
    """With up to half of a pause more, so that fifty classes that were cut at once do not come back at once."""

    class Chance(random.Random):
        def random(self) -> float:
            return draw

    backoff, pauses = Backoff(Chance()), []
    for _ in range(9):
        pauses.append(backoff.failed(100.0))
        assert backoff.is_due(100.0 + pauses[-1])
        assert not pauses[-1] or not backoff.is_due(100.0 + pauses[-1] - 0.001)
    doubled = [0.0, FIRST_S, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_S, LAST_S]
    assert pauses == pytest.approx([one * (1 + draw / 2) for one in doubled])
    backoff.failures = 1025  # a pause that was doubled as often is more than a number can hold
    assert backoff.failed(100.0) == pytest.approx(LAST_S * (1 + draw / 2))
    backoff.reset()
    assert (backoff.failures, backoff.is_due(0.0), backoff.failed(100.0)) == (0, True, 0.0)
