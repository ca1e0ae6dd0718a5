"""The sizes and command lines that ffmpeg is given, and what becomes of a push."""

import asyncio
import re
import resource
import subprocess
from pathlib import Path

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lectern import subprocesses
from lectern.decide import readiness
from lectern.errors import LecternError, Misuse, TryAgain
from lectern.media import ffmpeg, probe
from lectern.media.ffmpeg import Output
from lectern.media.sampling import CPU_S, samples
from lectern.playout import keyframe_index
from lectern.states import Resolution
from tests.effects.conftest import make_recording, shape
from town import recordings


@given(st.integers(1, 8000), st.integers(1, 8000), st.sampled_from(Resolution))
@example(1, 10_000, Resolution.P240)
def test_a_fitted_size_is_even_inside_the_box_and_touches_it(width: int, height: int, resolution: Resolution) -> None:
    fitted = ffmpeg.fitted_size(width, height, resolution)
    box = resolution.box
    assert all(0 < side <= limit and side % 2 == 0 for side, limit in zip(fitted, box, strict=True))
    assert fitted[0] == box[0] or fitted[1] == box[1]


def test_a_report_has_its_time_and_a_picture_its_size_in_its_own_shape() -> None:
    lines = ["frame=50", "total_size=1234", "out_time_us=2000000", "progress=continue", "out_time_us=N/A", ""]
    assert [ffmpeg.out_time_s(line) for line in lines] == [None, None, 2.0, None, None, None]
    assert ffmpeg.fitted_size(1280, 720, Resolution.P240) == (320, 180)
    assert ffmpeg.fitted_size(720, 1280, Resolution.P720) == (404, 720)
    with pytest.raises(ValueError, match="0x3"):
        ffmpeg.fitted_size(0, 3, Resolution.P240)


def test_no_ffmpeg_anywhere_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(Misuse, match="apt-get install ffmpeg"):
        ffmpeg.executable()


async def test_two_renditions_come_out_of_one_run(recording: Path, tmp_path: Path) -> None:
    """Of any name: 'it's -1' is neither an option nor a protocol."""
    wanted = {Resolution.P240: tmp_path / "a:b's 240.flv", Resolution.P480: tmp_path / "-480.flv"}
    outputs = [
        Output(str(path), resolution, *ffmpeg.fitted_size(640, 360, resolution)) for resolution, path in wanted.items()
    ]
    lines: list[str] = []
    argv = ffmpeg.encode_argv(ffmpeg.executable(), str(recording), outputs)
    finished = await subprocesses.run(argv, timeout_s=60, stall_s=20, on_line=lines.append)
    assert finished.returncode == 0, finished.errors
    assert max(ffmpeg.out_time_s(line) or 0 for line in lines) == pytest.approx(4, abs=0.1)
    for output in outputs:
        found = await probe.probe(Path(output.path))
        assert shape(Path(output.path)) == (output.width, output.height, ["aac"])
        assert found.duration_s == pytest.approx(4, abs=0.1)
        assert keyframes(Path(output.path)) == [0, 2]


def keyframes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        times = [
            float(one.pts * one.time_base)
            for one in packets
            if one.is_keyframe and one.pts is not None and one.time_base
        ]
    return [round(time - times[0]) for time in times]


LESSON_S = 90
SPEECH = "0.3*sin(2*PI*210*t)*(0.55+0.45*sin(2*PI*2.7*t))*lt(mod(t,11),9)"
ROOM = "0.0003*(random(0)-0.5)"
"""What a microphone hears of a silent room."""
PICTURES = {
    "camera": "testsrc2=size=96x54:rate=5",
    "slides": "color=c=white:size=96x54:rate=5,drawbox=x='6+20*mod(floor(t/24),4)':y=8:w=20:h=30:color=navy:t=fill",
    "dark slides": "color=c=black:size=96x54:rate=5,"
    "drawbox=x='6+9*mod(floor(t/24),4)':y=20:w=50:h=6:color=white:t=fill",
    "board": "color=c=darkgreen:size=96x54:rate=5,drawbox=x='mod(2*t,80)':y=12:w=14:h=38:color=tan:t=fill",
    "noise": "color=c=gray:size=96x54:rate=5,noise=alls=40:allf=t",
}
Lesson = tuple[str, str, str, float]
"""What it shows and sounds like; the beginning of what is to be told of it, and where."""


def _lessons(kind: str) -> dict[str, Lesson]:
    """Lessons in which this kind of picture is seen, eight without a fault and eight with one."""
    picture, camera = PICTURES[kind], PICTURES["camera"]
    at = 7.0 + 3 * list(PICTURES).index(kind)

    def covered(color: str, begin: float, end: float = 200) -> str:
        return f"{picture},drawbox=color={color}:t=fill:enable='between(t,{begin},{end})'"

    def hushed(begin: float, end: float = 200) -> str:
        return f"{SPEECH}*(1-between(t,{begin},{end}))"

    return {
        "plain": (picture, SPEECH, "", 0),
        "quiet": (picture, f"0.25*({SPEECH})", "", 0),
        "loud": (picture, f"2*({SPEECH})", "", 0),
        "through black": (covered("black", 31.3, 35.1), SPEECH, "", 0),
        "a pause": (picture, hushed(26, 46) if "slides" in kind else hushed(20, 43), "", 0),
        "a long pause": (camera, hushed(15, 68), "", 0),
        "a still picture with speech": (covered("olive", 20, 80), SPEECH, "", 0),
        "a black title": (covered("black", 0, 4.2), hushed(0, 4), "", 0),
        "black": (covered("black", at, at + 10), SPEECH, "black", at),
        "black and silent": (covered("black", at, at + 35), hushed(at, at + 35), "black", at),
        "black to its end": (covered("black", 77), SPEECH, "black", 77),
        "black from its beginning": (covered("black", 0, 14), SPEECH, "black", 0),
        "frozen": (covered("olive", at, at + 30), hushed(at, at + 30), "frozen and silent", at),
        "stays frozen": (covered("olive", 50), hushed(50), "frozen and silent", 50),
        "silent": (camera, hushed(at, at + 60), "silent", at),
        "far too quiet": (picture, f"0.01*({SPEECH})", "very quiet", 0),
    }


async def _wrongly_told(path: Path, lesson: Lesson) -> object:
    """What is told of *lesson* if it is not what is to be told."""
    picture, sound, what, at_s = lesson
    argv = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"aevalsrc='{sound}+{ROOM}':s=11025", "-c:v", "libx264"]
    argv += ["-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10", "-sc_threshold", "0"]
    argv += ["-c:a", "pcm_s16le", "-t", str(LESSON_S)]  # to encode AAC takes longer than all the rest
    await recordings.encode(ffmpeg.executable(), *argv, to=path)
    found = await samples(path, LESSON_S)
    faults, warning = readiness.dead_air_faults(found), readiness.dead_air_warning(found)
    at_its_place = any(one.startswith(what) and abs(one.args["begins_s"] - at_s) <= 3.0 for one in faults)
    is_right = (at_its_place if faults else warning.startswith(what)) if what else not (faults or warning)
    return None if is_right else (faults, warning)


@pytest.mark.live
@pytest.mark.parametrize("kind", PICTURES)
async def test_of_sixteen_lessons_each_fault_is_found_at_its_place_and_nothing_else(tmp_path: Path, kind: str) -> None:
    """Slides, speech to a still picture, pauses, fades and titles are no fault."""
    told = {name: await _wrongly_told(tmp_path / "lesson.flv", one) for name, one in _lessons(kind).items()}
    assert {name: one for name, one in told.items() if one is not None} == {}


def test_what_is_no_recording_ends_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "odd.flv"
    path.write_bytes(b"FLV" + bytes(range(256)) * 40)
    spent_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(LecternError, match="cannot be looked through"):
        asyncio.run(samples(path, 10.0))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - spent_s < CPU_S / 2, "its limit has not ended it"


# A still is the keyframe at a position of the recording, decoded by a child with limits.


def similarity(picture: Path, recording: Path, frame: int) -> float:
    """The structural similarity of *picture* and a frame of *recording*, 1 for the same."""
    compared = rf"[1:v]select=eq(n\,{frame}),scale=320:-2,setpts=0[wanted];[0:v][wanted]ssim"
    argv = ["ffmpeg", "-hide_banner", "-nostdin", "-i", str(picture), "-i", str(recording), "-lavfi", compared]
    said = subprocess.run([*argv, "-f", "null", "-"], check=True, timeout=60, capture_output=True, text=True).stderr
    return float(re.findall(r"All:([\d.]+)", said)[-1])


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s with a keyframe every 2 s, and its index."""
    path = make_recording(tmp_path_factory.mktemp("still") / "lesson.flv", seconds=8)
    keyframe_index.write(keyframe_index.look(path), keyframe_index.path_of(path))
    return path


async def jpeg(recording: Path, at_s: float) -> bytes:
    return await ffmpeg.jpeg(await ffmpeg.excerpt(recording, at_s))


@pytest.fixture(autouse=True)
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs much else takes longer for a picture than a viewer would wait."""
    monkeypatch.setattr(ffmpeg, "STILL_S", 60.0)


@pytest.mark.parametrize(("at_s", "frame"), [(0.0, 0), (3.9, 50), (4.1, 100), (100.0, 150)])
async def test_it_is_the_keyframe_at_the_position(lesson: Path, tmp_path: Path, at_s: float, frame: int) -> None:
    made = tmp_path / "made.jpg"
    made.write_bytes(await jpeg(lesson, at_s))
    assert similarity(made, lesson, frame) > 0.95
    assert len(made.read_bytes()) < ffmpeg.MOST_STILL_BYTES


async def test_a_recording_needs_no_index_as_a_slate_has_none(lesson: Path, tmp_path: Path) -> None:
    slate = tmp_path / "slate.flv"
    slate.write_bytes(lesson.read_bytes())
    assert (await jpeg(slate, 0.0)).startswith(b"\xff\xd8")


async def test_without_a_picture_or_the_memory_for_it_it_says_so(
    tmp_path: Path, lesson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = make_recording(tmp_path / "sound.flv", video=False, seconds=1)
    broken = tmp_path / "broken.flv"
    broken.write_bytes(b"FLV" + bytes(100))
    shifted = tmp_path / "shifted.flv"
    shifted.write_bytes(bytes(lesson.stat().st_size))  # another recording took the place of the one of the index
    keyframe_index.path_of(shifted).write_bytes(keyframe_index.path_of(lesson).read_bytes())
    for path in (sound, broken, shifted, tmp_path / "nowhere.flv"):
        with pytest.raises(TryAgain):
            await jpeg(path, 0.0)
    monkeypatch.setattr(ffmpeg, "MEMORY_BYTES", 1_000_000)
    with pytest.raises(TryAgain):
        await jpeg(lesson, 0.0)
