"""A still is the keyframe at a position of the recording, decoded by a child with limits."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lectern import subprocesses
from lectern.errors import TryAgain
from lectern.media import ffmpeg
from lectern.playout import keyframe_index
from tests.effects.conftest import make_recording


def similarity(one: Path, other: Path) -> float:
    """The structural similarity of two pictures, 1 for the same."""
    argv = ["ffmpeg", "-hide_banner", "-nostdin", "-i", str(one), "-i", str(other), "-lavfi", "ssim", "-f", "null", "-"]
    said = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stderr
    return float(re.findall(r"All:([\d.]+)", said)[-1])


def pick(recording: Path, frame: int, to: Path) -> None:
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(recording), "-vf", rf"select=eq(n\,{frame}),scale=320:-2"]
    subprocess.run([*argv, "-frames:v", "1", str(to)], check=True, timeout=60)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s with a keyframe every 2 s, and its index."""
    path = make_recording(tmp_path_factory.mktemp("still") / "lesson.flv", seconds=8)
    keyframe_index.write(keyframe_index.look(path), keyframe_index.path_of(path))
    return path


async def jpeg(recording: Path, at_s: float) -> bytes:
    (made,) = await ffmpeg.jpegs([await ffmpeg.excerpt(recording, at_s)])
    if isinstance(made, str):
        raise TryAgain(made)
    return made


@pytest.fixture(autouse=True)
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs much else takes longer for a picture than a viewer would wait."""
    monkeypatch.setattr(ffmpeg, "STILL_S", 60.0)


@pytest.mark.parametrize(("at_s", "frame"), [(0.0, 0), (3.9, 50), (4.1, 100), (100.0, 150)])
async def test_it_is_the_keyframe_at_the_position(lesson: Path, tmp_path: Path, at_s: float, frame: int) -> None:
    made, wanted = tmp_path / "made.jpg", tmp_path / "wanted.png"
    made.write_bytes(await jpeg(lesson, at_s))
    pick(lesson, frame, wanted)
    assert similarity(made, wanted) > 0.95
    assert len(made.read_bytes()) < ffmpeg.MOST_STILL_BYTES


async def test_a_small_recording_needs_no_index_and_a_large_one_is_not_looked_through(
    lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slate = tmp_path / "slate.flv"
    slate.write_bytes(lesson.read_bytes())
    assert (await jpeg(slate, 0.0)).startswith(b"\xff\xd8")
    monkeypatch.setattr(ffmpeg, "SCANNED_BYTES", 100)
    with pytest.raises(TryAgain, match="no picture here"):
        await jpeg(slate, 0.0)


async def test_without_a_picture_it_says_so(tmp_path: Path, lesson: Path) -> None:
    sound = make_recording(tmp_path / "sound.flv", video=False, seconds=1)
    broken = tmp_path / "broken.flv"
    broken.write_bytes(b"FLV" + bytes(100))
    shifted = tmp_path / "shifted.flv"
    shifted.write_bytes(bytes(lesson.stat().st_size))  # another recording took the place of the one of the index
    keyframe_index.path_of(shifted).write_bytes(keyframe_index.path_of(lesson).read_bytes())
    for path in (sound, broken, shifted, tmp_path / "nowhere.flv"):
        with pytest.raises(TryAgain):
            await jpeg(path, 0.0)


async def test_a_picture_that_needs_too_much_memory_is_none(lesson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "MEMORY_BYTES", 1_000_000)
    with pytest.raises(TryAgain):
        await jpeg(lesson, 0.0)


async def test_one_child_makes_several_and_a_broken_one_harms_no_other(
    lesson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broken one among them, each has a child of its own."""
    children, run = list[int](), subprocesses.run

    async def counted(*args: Any, **more: Any) -> subprocesses.Finished:
        children.append(1)
        return await run(*args, **more)

    monkeypatch.setattr(subprocesses, "run", counted)
    wanted = [await ffmpeg.excerpt(lesson, at_s) for at_s in (0.0, 2.0, 4.0, 100.0)]
    made = await ffmpeg.jpegs(wanted)
    assert ([type(one) for one in made], len(children)) == ([bytes] * 4, 1)
    mixed = await ffmpeg.jpegs([wanted[0], wanted[0][:40], wanted[3]])
    assert [type(one) for one in mixed] == [bytes, str, bytes]
    assert (mixed[0], mixed[2], len(children)) == (made[0], made[3], 5)
