"""The sizes and command lines that ffmpeg is given, and what becomes of a push."""

from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.effects import process
from lectern.effects.media import ffmpeg, probe
from lectern.effects.media.ffmpeg import Output, Progress
from lectern.errors import Misuse
from lectern.states import Resolution


@pytest.mark.parametrize(
    ("size", "resolution", "fitted"),
    [
        ((1280, 720), "240P", (320, 180)),
        ((640, 360), "720P", (1280, 720)),
        ((1024, 768), "480P", (640, 480)),
        ((720, 1280), "720P", (404, 720)),
        ((10000, 1), "240P", (320, 2)),
        ((1, 10000), "240P", (2, 240)),
    ],
)
def test_a_picture_is_fitted_into_the_box(size: tuple[int, int], resolution: str, fitted: tuple[int, int]) -> None:
    assert ffmpeg.fitted_size(*size, Resolution(resolution)) == fitted


@given(st.integers(1, 8000), st.integers(1, 8000), st.sampled_from(Resolution))
def test_a_fitted_size_is_even_inside_the_box_and_touches_it(width: int, height: int, resolution: Resolution) -> None:
    fitted = ffmpeg.fitted_size(width, height, resolution)
    box = resolution.box
    assert all(0 < side <= limit and side % 2 == 0 for side, limit in zip(fitted, box, strict=True))
    assert fitted[0] == box[0] or fitted[1] == box[1]


def test_a_picture_without_a_size_is_no_picture() -> None:
    with pytest.raises(ValueError, match="0x3"):
        ffmpeg.fitted_size(0, 3, Resolution.P240)


def test_reports_are_read_when_they_are_complete() -> None:
    reader = ffmpeg.ProgressReader()
    text = (
        "frame=50 fps=25 total_size=1234 out_time_us=2000000 speed=1.5x progress=continue out_time_us=N/A progress=end"
    )
    reports = [report for line in text.split() if (report := reader.progress(line))]
    assert reports == [Progress(2.0, 50, 1.5, 1234, done=False), Progress(0.0, 0, 0.0, 0, done=True)]


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
    reader, reports = ffmpeg.ProgressReader(), list[Progress]()

    def on_line(line: str) -> None:
        if report := reader.progress(line):
            reports.append(report)

    argv = ffmpeg.encode_argv(ffmpeg.executable(), str(recording), outputs)
    finished = await process.run(argv, timeout_s=60, stall_s=20, on_line=on_line)
    assert finished.returncode == 0, finished.errors
    assert reports[-1].done
    for output in outputs:
        found = await probe.probe(Path(output.path))
        assert (found.width, found.height, found.audio_codec) == (output.width, output.height, "aac")
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
