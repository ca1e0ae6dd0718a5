"""A recording is looked at, checked whole, and made such that it can be aired."""

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from lectern import subprocesses
from lectern.errors import BAD_RECORDING, DISK_FULL, ErrorCode, LecternError, Refuse, TryAgain
from lectern.i18n import unpacked
from lectern.media import ffmpeg, integrity, probe, sampling
from lectern.model.facts import Cached
from lectern.playout import keyframe_index
from lectern.states import FileState
from lectern.storage import cache_dir
from tests import flv
from tests.effects.conftest import make_recording, shape
from tests.text.test_catalogues import left


@pytest.mark.parametrize("flags", [(), ("-flvflags", "no_duration_filesize+no_metadata")], ids=["said", "not said"])
@pytest.mark.parametrize(("begins", "within_s"), [("0", 0.1), ("5000", 0.2)], ids=["at 0", "late"])
async def test_a_recording_is_described(tmp_path: Path, flags: tuple[str, ...], begins: str, within_s: float) -> None:
    """A recorded live stream begins at its own clock, and is whole also if its header does not say how long it is."""
    path = make_recording(tmp_path / 'it\'s a "lesson" -1.flv', "-output_ts_offset", begins, *flags)
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(4, abs=within_s)
    assert (found.size_bytes, found.last_second_decodes) == (path.stat().st_size, True)


async def test_a_recording_may_lack_sound_only_and_a_long_one_is_looked_at_at_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refuse, match="only audio") as raised:
        await probe.probe(make_recording(tmp_path / "audio.flv", video=False))
    assert raised.value.code is BAD_RECORDING
    monkeypatch.setattr(probe, "_TAIL_BYTES", 100_000)
    fine = ("-b:v", "4M", "-minrate", "4M", "-bufsize", "1M")
    path = make_recording(tmp_path / "long.flv", *fine, audio=False, seconds=6)
    assert path.stat().st_size > 1_000_000
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(6, abs=0.1)
    assert found.last_second_decodes


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 100, flv.HEADER, b"ffconcat version 1.0\nfile x.flv\n"])
async def test_what_is_no_recording_is_refused_and_leaves_nothing(
    tmp_path: Path, recording: Path, content: bytes
) -> None:
    """A playlist that is called .flv reads no other file."""
    shutil.copy(recording, tmp_path / "x.flv")
    path = tmp_path / "bad.flv"
    path.write_bytes(content)
    for look, words in ((probe.probe, "cannot be opened|no stream"), (integrity.looked, "cannot be aired")):
        with pytest.raises(Refuse, match=words) as raised:
            await look(path)
        assert raised.value.code is BAD_RECORDING
    assert {one.name for one in tmp_path.iterdir()} == {"bad.flv", "x.flv"}


async def test_a_recording_is_not_refused_because_too_many_files_are_open(recording: Path) -> None:
    """It would be deleted, and its classes be refused, for what is wrong with this process."""
    _, most = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        with pytest.raises(TryAgain, match="Too many open files"):
            await probe.probe(recording)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_slides_with_few_keyframes_are_no_fault_though_the_file_is_small(tmp_path: Path) -> None:
    """A transport stream is sought by time to any picture; encoders make a keyframe every 250 pictures, or fewer."""
    path = tmp_path / "slides.ts"
    slides = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=5:duration=50")
    argv = ("ffmpeg", "-v", "error", *slides, "-c:v", "libx264", "-preset", "ultrafast", "-g", "250", "-f", "mpegts")
    assert (await subprocesses.run([*argv, str(path)], timeout_s=60)).returncode == 0
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(50, abs=0.3)
    assert found.last_second_decodes


async def test_a_recording_with_one_keyframe_takes_no_more_memory_than_another(tmp_path: Path) -> None:
    """All its pictures since the keyframe were kept: a minute of them took gigabytes of the resident."""
    long = ("-s", "1280x720", "-g", "500", "-keyint_min", "500", "-sc_threshold", "0")
    path = make_recording(tmp_path / "long.flv", *long, seconds=16)

    async def within(megabytes: int) -> str:
        code = f"from lectern.media import probe; probe.MEMORY_BYTES = {megabytes} * 1024**2"
        argv = [sys.executable, "-I", "-c", f"{code}; probe.main({str(path)!r})"]
        return (await subprocesses.run(argv, timeout_s=60)).output

    assert '["found", ' in await within(100)
    refused = await within(20)
    assert '["refused", ' in refused
    said = unpacked(json.loads(refused)[1])
    assert said.endswith("cannot be opened as a recording: decoding it takes more than 20 MB of memory")
    assert left(said) == [], "it has its Chinese"


async def test_a_damaged_end_is_seen_and_a_truncated_recording_says_what_is_there(tmp_path: Path) -> None:
    """A title in GBK, as many Chinese tools write one, is no fault: the playout sends it as it is."""
    path = make_recording(tmp_path / "1.flv", "-metadata", "title=ABCDEFGH", seconds=6)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"ABCDEFGH", "语文课一".encode("gbk")))
    assert (await probe.probe(path)).last_second_decodes
    assert (await sampling.samples(path, 6.0)).sounds
    path.write_bytes(whole[:-700_000] + bytes(700_000))
    assert not (await probe.probe(path)).last_second_decodes
    path.write_bytes(whole[: len(whole) // 2])
    found = await probe.probe(path)
    assert 1 < found.duration_s < 5
    assert not found.last_second_decodes


@pytest.mark.parametrize(("kind", "codec"), [(8, 0xD0), (9, 0x0F)], ids=["sound", "pictures"])
async def test_a_codec_that_nobody_knows_is_found(tmp_path: Path, recording: Path, kind: int, codec: int) -> None:
    """Pictures that cannot be decoded are refused at once, not after ten runs that crash."""
    data, place = bytearray(recording.read_bytes()), 13
    while place < len(data):
        if data[place] == kind:
            data[place + 11] = codec | data[place + 11] & (0x0F if kind == 8 else 0xF0)
        place += 15 + int.from_bytes(data[place + 1 : place + 4])
    path = tmp_path / "odd.flv"
    path.write_bytes(data)
    if kind == 8:
        assert (await probe.probe(path)).size_bytes == len(data)
        return
    with pytest.raises(Refuse, match="its pictures are of a kind that is not known") as raised:
        await probe.probe(path)
    assert raised.value.code is BAD_RECORDING


async def row_of(path: Path) -> Cached:
    """The row of a file that is whole now."""
    found, at = await probe.probe(path), str(path)
    its = (found.size_bytes, found.duration_s)
    return Cached("1", FileState.READY, 1, at, None, *its, crc64=cache_dir.crc64(path), mtime=found.mtime)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "1.flv", seconds=12)


async def test_damage_in_the_middle_is_found_by_sum_and_tags_whatever_size_and_time_say(whole: Path) -> None:
    """A whole recording has no trouble; without an index nobody knows how it was. A cheap look is for its last tags."""
    row, before = await row_of(whole), whole.stat()
    assert row.duration_s == pytest.approx(12, abs=0.2)
    assert (integrity.last_tag_s(whole) or 0.0) >= 12.2 - integrity.SHORT_S
    found = [await integrity.end_trouble(whole, row), await integrity.trouble(whole, row)]
    found.append(await integrity.middle_trouble(whole))
    looked, _ = await integrity.looked(whole)
    integrity.write_index(looked, whole)
    assert [*found, await integrity.middle_trouble(whole)] == [None] * 4
    with whole.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(bytes(40_000))
    os.utime(whole, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert whole.stat().st_size == before.st_size
    assert await integrity.end_trouble(whole, row) is None
    assert "its tags cannot be read from byte" in str(await integrity.middle_trouble(whole))
    assert "CRC-64" in str(await integrity.trouble(whole, row))


async def test_a_file_without_its_end_is_found(whole: Path) -> None:
    """Whether it is cut short, or there are zeros in its second half."""
    row, size = await row_of(whole), whole.stat().st_size
    for length in (size // 2, size):
        os.truncate(whole, length)
        assert "it ends after" in str(await integrity.end_trouble(whole, row))


async def test_an_odd_end_and_a_slow_disk_are_no_damage(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder that was stopped left half a tag behind: the decoder has the last word, and time to say it."""
    with whole.open("ab") as file:
        file.write(b"\x09\x00\x10\x00half a tag")
    row = await row_of(whole)
    assert integrity.last_tag_s(whole) is None
    assert await integrity.end_trouble(whole, row) is None
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.0)
    with pytest.raises(TryAgain, match="is the disk busy"):
        await integrity.seen(whole, row)


def test_the_last_tags_are_read_whatever_the_file_is(tmp_path: Path) -> None:
    assert integrity.last_tag_s(flv.write(tmp_path / "1.flv", 40)) == 40
    for data in (b"", b"FLV", flv.HEADER, b"x" * 100, flv.HEADER + bytes(500)):
        (tmp_path / "odd").write_bytes(data)
        assert integrity.last_tag_s(tmp_path / "odd") is None


async def test_a_plain_recording_stays_as_it_is_and_gets_its_index_which_goes_with_it(
    recording: Path, tmp_path: Path
) -> None:
    """A start takes an index neither for a rendition nor for something unknown; what lies alone is left over."""
    path = cache_dir.rendition_path(tmp_path, "6666")
    path.parent.mkdir()
    path.write_bytes(recording.read_bytes())
    assert not integrity.has_index(path)
    found, plain = await integrity.looked(path)
    assert plain == path
    assert path.read_bytes() == recording.read_bytes()
    integrity.write_index(found, path)
    assert integrity.has_index(path)
    records = keyframe_index.read(keyframe_index.path_of(path), path.stat().st_size)
    assert records is not None
    assert next(one.time_ms for one in records if one.kind == keyframe_index.KEYFRAME) < 100
    assert [one.kind for one in cache_dir.scan(tmp_path)] == ["rendition"]
    cache_dir.remove(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    keyframe_index.path_of(path).touch()
    (alone,) = cache_dir.scan(tmp_path)
    assert cache_dir.is_sidecar(alone.path.name)


async def test_another_container_is_made_plain_with_the_same_packets(tmp_path: Path) -> None:
    """Beside it: its caller puts it in its place."""
    path = make_recording(tmp_path / "6666.flv", container="mp4")
    came = path.read_bytes()
    found, plain = await integrity.looked(path)
    assert plain == tmp_path / "6666.flv.remuxed"
    assert path.read_bytes() == came
    assert plain.read_bytes()[:3] == b"FLV"
    assert found.size_bytes == plain.stat().st_size
    assert abs(found.duration_ms - 4_000) < 100


@pytest.mark.parametrize(
    ("ends", "why", "code"),
    [
        *((ends, "ffmpeg was ended from outside", None) for ends in ("kill -KILL $$", "kill -TERM $$", "exit 255")),
        *(
            (f"echo 1.flv: {words} >&2; exit 1", "no space left on the disk", DISK_FULL)
            for words in ("No space left on device", "Disk quota exceeded", "Read-only file system")
        ),
    ],
)
async def test_an_ffmpeg_that_somebody_ends_or_that_has_no_room_says_nothing_of_the_recording(
    ends: str, why: str, code: ErrorCode | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without memory ends it, for example: it is tried again. A full disk has a code of its own."""
    path = make_recording(tmp_path / "6666.flv", container="mp4")
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{ends}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(TryAgain, match=why) as raised:
        await integrity.looked(path)
    assert raised.value.code is code


async def test_a_slate_is_made_once_and_can_be_aired(tmp_path: Path) -> None:
    """One that is empty is none: if it stayed, no class would ever have one on this host."""
    path = tmp_path / "slate.flv"
    path.touch()
    await ffmpeg.make_slate(path)
    found = keyframe_index.look(path)
    keyframe_index.check(found)
    assert shape(path) == (640, 360, ["aac"])
    assert abs(found.duration_ms - 1000 * ffmpeg.SLATE_S) < 500
    made = path.stat().st_mtime_ns
    await ffmpeg.make_slate(path)
    assert path.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [path]
    for folder in (tmp_path / "nowhere", path):  # nobody can look into the second, as if it were another user's
        with pytest.raises(LecternError, match="the slate cannot be made"):
            await ffmpeg.make_slate(folder / "slate.flv")
