"""Eighty lessons are looked through: nothing is told of the forty clean ones, each fault of the others is found."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lectern.decide import dead_air
from lectern.effects.media.samples import CPU_S, samples
from lectern.errors import LecternError
from town import recordings

LESSON_S = 90
SIDE_BY_SIDE = 2

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


@dataclass(frozen=True)
class Lesson:
    """What a lesson shows and sounds like; *told* is the beginning of what is to be told of it, and where."""

    name: str
    picture: str
    sound: str = f"{SPEECH}+{ROOM}"
    told: str = ""
    at_s: float = 0.0


def _black(picture: str, begin: float, end: float) -> str:
    return f"{picture},drawbox=color=black:t=fill:enable='between(t,{begin},{end})'"


def _frozen(picture: str, begin: float, end: float) -> str:
    return f"{picture},drawbox=color=olive:t=fill:enable='between(t,{begin},{end})'"


def _hushed(begin: float, end: float) -> str:
    return f"{SPEECH}*(1-between(t,{begin},{end}))+{ROOM}"


def _clean() -> list[Lesson]:
    found: list[Lesson] = []
    for name, picture in PICTURES.items():
        found += [
            Lesson(f"{name}, plain", picture),
            Lesson(f"{name}, quiet", picture, f"0.25*({SPEECH})+{ROOM}"),
            Lesson(f"{name}, loud", picture, f"2*({SPEECH})+{ROOM}"),
            Lesson(f"{name}, through black", _black(picture, 31.3, 35.1)),
            Lesson(f"{name}, a pause", picture, _hushed(20, 43) if "slides" not in name else _hushed(26, 46)),
            Lesson(f"{name}, a long pause", PICTURES["camera"], _hushed(15, 68)),
            Lesson(f"{name}, a still picture with speech", _frozen(picture, 20, 80)),
            Lesson(f"{name}, a black title", _black(picture, 0, 4.2), _hushed(0, 4)),
        ]
    return found


def _faulty() -> list[Lesson]:
    found: list[Lesson] = []
    for number, (name, picture) in enumerate(PICTURES.items()):
        at = 7.0 + 3 * number
        found += [
            Lesson(f"{name}, black", _black(picture, at, at + 10), told="black", at_s=at),
            Lesson(f"{name}, black and silent", _black(picture, at, at + 35), _hushed(at, at + 35), "black", at),
            Lesson(f"{name}, black to its end", _black(picture, 77, 200), told="black", at_s=77),
            Lesson(f"{name}, black from its beginning", _black(picture, 0, 14), told="black"),
            Lesson(f"{name}, frozen", _frozen(picture, at, at + 30), _hushed(at, at + 30), "frozen and silent", at),
            Lesson(f"{name}, stays frozen", _frozen(picture, 50, 200), _hushed(50, 200), "frozen and silent", 50),
            Lesson(f"{name}, silent", PICTURES["camera"], _hushed(at, at + 60), "silent", at),
            Lesson(f"{name}, far too quiet", picture, f"0.01*({SPEECH})+{ROOM}", "very quiet"),
        ]
    return found


async def _made(folder: Path, lesson: Lesson) -> Path:
    picture = ("-f", "lavfi", "-i", lesson.picture, "-f", "lavfi", "-i", f"aevalsrc='{lesson.sound}':s=11025")
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10", "-sc_threshold", "0")
    sound = ("-c:a", "pcm_s16le", "-t", str(LESSON_S))  # to encode AAC takes longer than all the rest
    path = folder / f"{lesson.name.replace(' ', '-')}.flv"
    await recordings.encode(recordings.ffmpeg_path(), *picture, *video, *sound, to=path)
    return path


def _told(folder: Path, lessons: list[Lesson]) -> dict[str, list[dead_air.Fault] | str]:
    """What is told of each lesson."""

    async def one(lesson: Lesson, gate: asyncio.Semaphore) -> list[dead_air.Fault] | str:
        async with gate:
            found = await samples(await _made(folder, lesson), LESSON_S)
        return dead_air.faults(found) or dead_air.warning(found)

    async def all_of_them() -> list[list[dead_air.Fault] | str]:
        gate = asyncio.Semaphore(SIDE_BY_SIDE)
        return await asyncio.gather(*(one(lesson, gate) for lesson in lessons))

    return dict(zip([one.name for one in lessons], asyncio.run(all_of_them()), strict=True))


@pytest.mark.live
def test_nothing_is_told_of_forty_clean_lessons(tmp_path: Path) -> None:
    """With slides, speech to a still picture, pauses, fades and titles among them."""
    lessons = _clean()
    assert len(lessons) == 40
    assert {name: told for name, told in _told(tmp_path, lessons).items() if told} == {}


@pytest.mark.live
def test_the_fault_of_each_of_forty_lessons_is_found_at_its_place(tmp_path: Path) -> None:
    lessons = _faulty()
    assert len(lessons) == 40
    told = _told(tmp_path, lessons)
    missed = {}
    for one in lessons:
        said = told[one.name]
        places = [fault for fault in said if not isinstance(fault, str) and fault.what == one.told]
        found = any(abs(fault.begins_s - one.at_s) <= 3.0 for fault in places)
        if not found and not (isinstance(said, str) and one.told and said.startswith(one.told)):
            missed[one.name] = said
    assert missed == {}


def test_what_is_no_recording_ends_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "odd.flv"
    path.write_bytes(b"FLV" + bytes(range(256)) * 40)
    began = time.monotonic()
    with pytest.raises(LecternError, match="cannot be looked through"):
        asyncio.run(samples(path, 10.0))
    assert time.monotonic() - began < CPU_S
