"""Samples what viewers of a recording would see and hear: its key frames, and all of its sound.

This runs as a program of its own (``python -m lectern.media.sampling PATH``), at the lowest priority: whatever a
file does to a decoder, it does not do it to the process that airs classes, and it can be ended at any moment.
"""

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame

from lectern import subprocesses
from lectern.errors import TryAgain
from lectern.i18n import Text, msgid
from lectern.media.probe import HOW
from lectern.model.facts import Samples
from lectern.playout import keyframe_index
from lectern.playout.flv import NotAirable
from lectern.storage import cache_dir

EVERY_S = 1.0
"""Seconds after a key frame in which other ones are skipped: a recording may have nothing but key frames."""

CPU_SHARE, CPU_S = 0.03, 30
"""CPU time that a look may use: this share of the recording's length, and these seconds. It needs about 0.006."""

LEAST_S, MOST_S, SHARE = 600.0, 3600.0, 0.5
"""Seconds that a look may take: SHARE of the length, at least LEAST_S, at most MOST_S. Other programs go first."""

STALL_S = 300.0
NICE = 19
WIDTH, HEIGHT = 64, 36
STILL = 5
"""Difference in brightness (of 255), in any part, up to which a picture counts as the same as the first of its kind."""

SAMPLE_RATE = 16_000
_NOTHING = -120.0


async def samples(path: Path, duration_s: float) -> Samples:
    """Look through *path*, whose length is about *duration_s*; raises LecternError if that cannot be done in time."""
    told: dict[str, list[Any]] = {"picture": [], "sound": [], "loudness": []}

    def take(line: str) -> None:
        what, *values = json.loads(line)
        told[what].append(tuple(values))

    timeout_s = min(max(LEAST_S, duration_s * SHARE), MOST_S)
    argv = [sys.executable, "-I", "-m", __name__, str(path.absolute()), str(int(CPU_S + duration_s * CPU_SHARE))]
    done = await subprocesses.run(argv, timeout_s=timeout_s, stall_s=STALL_S, on_line=take, nice=NICE)
    if done.returncode != 0:
        text = msgid("{path}: cannot be looked through: {last_words}")
        raise TryAgain(text, path=path, last_words=done.last_words or Text("exit code {code}", code=done.returncode))
    holes: tuple[tuple[float, float], ...] = ()
    with suppress(NotAirable):  # it is no plain FLV, and nobody airs it
        found = await cache_dir.in_thread(keyframe_index.look, path)
        holes = tuple((begins_ms / 1000, ends_ms / 1000) for begins_ms, ends_ms in found.holes)
    loudness = told["loudness"][-1][0] if told["loudness"] else None
    return Samples(duration_s, tuple(told["picture"]), tuple(told["sound"]), loudness, holes)


Line = tuple[object, ...]
"""What is said of a moment: `picture`, `sound` or `loudness`, and its values, as `Samples` has them."""


class _Pictures:
    """Makes the line of a key frame: time, its lightest part (0 to 255), and whether the picture is still the same."""

    def __init__(self) -> None:
        self._last_s = -EVERY_S
        self._first: bytes | None = None

    def lines(self, frame: VideoFrame, begin_s: float) -> Iterator[Line]:
        at_s = frame.time - begin_s if frame.pts is not None else None
        if at_s is None or 0 <= at_s - self._last_s < EVERY_S:
            return
        small = frame.reformat(WIDTH, HEIGHT, "gray", interpolation="AREA").planes[0]
        rows = memoryview(small)
        seen = b"".join(rows[y * small.line_size :][:WIDTH] for y in range(HEIGHT))
        is_same = self._first is not None and max(abs(a - b) for a, b in zip(seen, self._first, strict=True)) <= STILL
        if not is_same:
            self._first = seen
        self._last_s = at_s
        yield "picture", round(at_s, 3), max(seen), is_same


class _Sounds:
    """Makes the line of each second of sound: its loudest moment in LUFS (EBU R128); at the end, that of all."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        self._graph: Graph | None = None
        self._second: int | None = None
        self._loudest = self._whole = _NOTHING

    def lines(self, frame: AudioFrame) -> Iterator[Line]:
        for part in self._resampler.resample(frame):
            if self._graph is None:
                self._graph = _loudness_graph(part)
            self._graph.push(part)
            with suppress(av.error.BlockingIOError, av.error.EOFError):
                while True:
                    metered = self._graph.pull()
                    second = int(metered.time or 0.0)
                    if second != self._second:
                        yield from self._line()
                        self._second, self._loudest = second, _NOTHING
                    self._loudest = max(self._loudest, _number(metered.metadata.get("lavfi.r128.M")))
                    self._whole = _number(metered.metadata.get("lavfi.r128.I"))

    def _line(self) -> Iterator[Line]:
        if self._second is not None:
            yield "sound", self._second, round(self._loudest, 1)

    def end(self) -> Iterator[Line]:
        yield from self._line()
        if self._second is not None:
            yield "loudness", round(self._whole, 1)


def _loudness_graph(part: AudioFrame) -> Graph:
    graph = Graph()
    source = graph.add_abuffer(
        format=part.format.name, sample_rate=part.sample_rate, layout=part.layout.name, time_base=part.time_base
    )
    meter = graph.add("ebur128", "metadata=1:framelog=quiet")
    graph.link_nodes(source, meter, graph.add("abuffersink")).configure()
    return graph


def _number(text: str | None) -> float:
    """The loudness in *text*, at least _NOTHING: for digital silence the meter says minus infinity, or no number."""
    value = float(text) if text else _NOTHING
    return max(value, _NOTHING) if value == value else _NOTHING  # noqa: PLR0124 (no number differs from itself)


def _told(container: InputContainer) -> Iterator[Line]:
    """The lines of all that is found; damage in the middle is skipped, as a player does."""
    video = container.streams.video[0] if container.streams.video else None
    audio: AudioStream | None = container.streams.audio[0] if container.streams.audio else None
    begin_s = container.start_time / av.time_base if container.start_time else 0.0
    pictures, sounds = _Pictures(), _Sounds()
    if video is not None:
        video.codec_context.skip_frame = "NONKEY"
        video.thread_type = "NONE"
    for packet in container.demux([one for one in (video, audio) if one is not None]):
        if packet.size and packet.stream is video and not packet.is_keyframe:
            continue
        with suppress(av.error.InvalidDataError, av.error.EOFError):
            for frame in packet.decode():
                if isinstance(frame, AudioFrame):
                    yield from sounds.lines(frame)
                elif isinstance(frame, VideoFrame):
                    yield from pictures.lines(frame, begin_s)
    yield from sounds.end()


def main(path: str, cpu_s: str) -> None:
    """Print what is found in *path*, in at most *cpu_s* seconds of a processor."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 1))
    av.logging.set_level(None)
    with av.open(f"file:{path}", **HOW) as container:
        for line in _told(container):
            sys.stdout.write(f"{json.dumps(line)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
