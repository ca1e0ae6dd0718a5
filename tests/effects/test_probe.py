"""What is found in recordings, good and bad."""

import resource
import sys
from pathlib import Path

import pytest

from lectern.effects import process
from lectern.effects.media import probe, samples
from lectern.errors import BAD_RECORDING, Refuse, TryAgain
from tests.effects.conftest import make_recording


async def test_a_recording_is_described(recording: Path) -> None:
    found = await probe.probe(recording)
    assert (found.width, found.height, found.video_codec, found.audio_codec) == (640, 360, "h264", "aac")
    assert found.duration_s == pytest.approx(4, abs=0.1)
    assert found.size_bytes == recording.stat().st_size
    assert found.last_second_decodes


async def test_duration_is_found_without_metadata(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "bare.flv", "-flvflags", "no_duration_filesize+no_metadata")
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(4, abs=0.1)
    assert found.last_second_decodes


@pytest.mark.parametrize("flags", [(), ("-flvflags", "no_duration_filesize+no_metadata")], ids=["said", "not said"])
async def test_duration_does_not_count_the_hours_before_the_recording(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A recorded live stream begins at its own clock, and is whole also if its header does not say how long it is."""
    found = await probe.probe(make_recording(tmp_path / "late.flv", "-output_ts_offset", "5000", *flags))
    assert found.duration_s == pytest.approx(4, abs=0.2)
    assert found.last_second_decodes


async def test_a_long_file_is_looked_at_only_at_its_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_TAIL_BYTES", 100_000)
    path = make_recording(tmp_path / "long.flv", "-b:v", "4M", "-minrate", "4M", "-bufsize", "1M", seconds=6)
    assert path.stat().st_size > 1_000_000
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(6, abs=0.1)
    assert found.last_second_decodes


async def test_no_sound_is_said(tmp_path: Path) -> None:
    found = await probe.probe(make_recording(tmp_path / "mute.flv", audio=False))
    assert found.audio_codec is None
    assert found.last_second_decodes


async def test_a_recording_without_video_is_refused(tmp_path: Path) -> None:
    path = make_recording(tmp_path / "audio.flv", video=False)
    with pytest.raises(Refuse, match="only audio") as raised:
        await probe.probe(path)
    assert raised.value.code is BAD_RECORDING


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 100, b"FLV\x01\x05\x00\x00\x00\x09"])
async def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.flv"
    path.write_bytes(content)
    with pytest.raises(Refuse, match=r"cannot be opened|no stream") as raised:
        await probe.probe(path)
    assert raised.value.code is BAD_RECORDING


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
    assert (await process.run([*argv, str(path)], timeout_s=60)).returncode == 0
    found = await probe.probe(path)
    assert found.duration_s == pytest.approx(50, abs=0.3)
    assert found.last_second_decodes


async def test_a_recording_with_one_keyframe_takes_no_more_memory_than_another(tmp_path: Path) -> None:
    """All its pictures since the keyframe were kept: a minute of them took gigabytes of the resident."""
    long = ("-s", "1280x720", "-g", "500", "-keyint_min", "500", "-sc_threshold", "0")
    path = make_recording(tmp_path / "long.flv", *long, seconds=16)

    async def within(megabytes: int) -> str:
        code = f"from lectern.effects.media import probe; probe.MEMORY_BYTES = {megabytes} * 1024**2"
        argv = [sys.executable, "-I", "-c", f"{code}; probe.main({str(path)!r})"]
        return (await process.run(argv, timeout_s=60)).output

    assert '["found", ' in await within(100)
    refused = await within(20)
    assert '["refused", ' in refused
    assert "cannot be opened as a recording: decoding it takes more than 20 MB of memory" in refused


async def test_a_playlist_that_is_called_flv_reads_no_other_file(tmp_path: Path, recording: Path) -> None:
    path = tmp_path / "list.flv"
    path.write_text(f"ffconcat version 1.0\nfile '{make_recording(tmp_path / 'x.flv')}'\n")
    with pytest.raises(Refuse):
        await probe.probe(path)


async def test_a_truncated_recording_says_what_is_there(tmp_path: Path) -> None:
    whole = make_recording(tmp_path / "whole.flv", seconds=6).read_bytes()
    path = tmp_path / "half.flv"
    path.write_bytes(whole[: len(whole) // 2])
    found = await probe.probe(path)
    assert 1 < found.duration_s < 5
    assert not found.last_second_decodes


async def test_a_damaged_end_is_seen(tmp_path: Path, recording: Path) -> None:
    whole = bytearray(recording.read_bytes())
    whole[-700_000:] = bytes(700_000)
    path = tmp_path / "damaged.flv"
    path.write_bytes(whole)
    assert not (await probe.probe(path)).last_second_decodes


async def test_a_title_in_gbk_is_no_fault(tmp_path: Path) -> None:
    """Many Chinese tools write one; the playout sends it as it is."""
    path = make_recording(tmp_path / "title.flv", "-metadata", "title=ABCDEFGH")
    path.write_bytes(path.read_bytes().replace(b"ABCDEFGH", "语文课一".encode("gbk")))
    assert (await probe.probe(path)).last_second_decodes
    assert (await samples.samples(path, 4.0)).sounds


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
        assert (await probe.probe(path)).audio_codec is None
        return
    with pytest.raises(Refuse, match="its pictures are of a kind that is not known") as raised:
        await probe.probe(path)
    assert raised.value.code is BAD_RECORDING
