"""What was downloaded is made airable: plain FLV, the index of its keyframes beside it; and the slate is there."""

from pathlib import Path

import pytest

from lectern.effects import process
from lectern.effects.files import scan, store
from lectern.effects.media import airable, ffmpeg, slate
from lectern.errors import BAD_RECORDING, LecternError, Refuse, TryAgain
from lectern.playout import index


async def remade(recording: Path, to: Path, *arguments: str) -> Path:
    """The recording in another container."""
    argv = [ffmpeg.executable(), "-v", "error", "-nostdin", "-y", "-i", str(recording), "-c", "copy", *arguments]
    finished = await process.run([*argv, str(to)], timeout_s=30)
    assert finished.returncode == 0, finished.errors
    return to


async def test_a_plain_recording_stays_as_it_is_and_gets_its_index(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "6666.flv"
    path.write_bytes(recording.read_bytes())
    assert not airable.has_index(path)
    found, plain = await airable.looked(path)
    assert plain == path
    assert path.read_bytes() == recording.read_bytes()
    airable.write_index(found, path)
    assert airable.has_index(path)
    records = index.read(index.path_of(path), path.stat().st_size)
    assert records is not None
    assert next(one.time_ms for one in records if one.kind == index.KEYFRAME) < 100


async def test_another_container_is_made_plain_with_the_same_packets(recording: Path, tmp_path: Path) -> None:
    """Beside it: its caller puts it in its place."""
    path = await remade(recording, tmp_path / "6666.flv", "-f", "mp4")
    came = path.read_bytes()
    found, plain = await airable.looked(path)
    assert plain == tmp_path / "6666.flv.remuxed"
    assert path.read_bytes() == came
    assert plain.read_bytes()[:3] == b"FLV"
    assert found.size_bytes == plain.stat().st_size
    assert abs(found.duration_ms - index.look(recording).duration_ms) < 100


@pytest.mark.parametrize("content", [b"", b"not a recording" * 100])
async def test_what_cannot_be_aired_is_refused_with_its_code_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "6666.flv"
    path.write_bytes(content)
    with pytest.raises(Refuse, match="cannot be aired") as caught:
        await airable.looked(path)
    assert caught.value.code is BAD_RECORDING
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ends", ["kill -KILL $$", "kill -TERM $$", "exit 255"])
async def test_an_ffmpeg_that_somebody_ends_says_nothing_of_the_recording(
    ends: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without memory ends it, for example: the classes are not refused, it is tried again."""
    path = await remade(recording, tmp_path / "6666.flv", "-f", "mp4")
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{ends}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(TryAgain, match="ffmpeg was ended from outside"):
        await airable.looked(path)


async def test_an_index_is_nobodys_recording_and_goes_with_its_own(recording: Path, tmp_path: Path) -> None:
    """A start takes it neither for a rendition nor for something unknown; what lies alone is left over."""
    path = store.rendition_path(tmp_path, "6666")
    path.parent.mkdir()
    path.write_bytes(recording.read_bytes())
    airable.write_index((await airable.looked(path))[0], path)
    assert [one.kind for one in scan.scan(tmp_path)] == ["rendition"]
    store.remove(path)
    assert not path.parent.exists()
    path.parent.mkdir()
    index.path_of(path).touch()
    (alone,) = scan.scan(tmp_path)
    assert store.is_sidecar(alone.path.name)


async def test_a_slate_is_made_once_and_can_be_aired(tmp_path: Path) -> None:
    path = tmp_path / "slate.flv"
    await slate.make(path)
    found = index.look(path)
    index.check(found)
    assert found.has_picture
    assert found.has_sound
    assert abs(found.duration_ms - 1000 * slate.LENGTH_S) < 500
    made = path.stat().st_mtime_ns
    await slate.make(path)
    assert path.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [path]


async def test_an_empty_file_that_a_power_cut_left_is_no_slate(tmp_path: Path) -> None:
    """If it stayed, no class would ever have one on this host."""
    path = tmp_path / "slate.flv"
    path.touch()
    await slate.make(path)
    assert index.look(path).has_picture


async def test_a_slate_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(LecternError, match="the slate cannot be made"):
        await slate.make(tmp_path / "nowhere" / "slate.flv")
