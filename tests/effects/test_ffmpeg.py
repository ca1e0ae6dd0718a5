"""The sizes and command lines that ffmpeg is given, and what becomes of a push."""

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.effects import process
from lectern.effects.media import ffmpeg, probe
from lectern.effects.media.ffmpeg import Output, Progress
from lectern.errors import Misuse, Refuse
from lectern.states import Resolution
from tests.effects.conftest import alive
from town.ports import free_port


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


@pytest.mark.asyncio
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


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """An ffmpeg that takes one push."""
    url, target = f"rtmp://127.0.0.1:{free_port()}/live/c-1", tmp_path / "received.flv"
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-listen", "1", "-timeout", "20", "-i", url, "-c", "copy"]
    with subprocess.Popen([*argv, str(target)]) as server:
        yield url, target, server
        server.kill()


async def push_until_taken(path: Path, url: str, **options: float) -> process.Finished:
    """The receiver needs a moment to listen; a push before that ends at once."""
    for _ in range(100):
        finished = await ffmpeg.push(ffmpeg.executable(), path, url, timeout_s=20, **options)  # type: ignore[arg-type]
        if "Connection refused" not in finished.errors:
            return finished
        await asyncio.sleep(0.1)
    raise AssertionError("nobody listens")


@pytest.mark.asyncio
async def test_a_push_sends_in_real_time_from_its_position(
    recording: Path, receiver: tuple[str, Path, subprocess.Popen[bytes]]
) -> None:
    url, target, server = receiver
    finished = await push_until_taken(recording, url, position_s=2, length_s=1.5)
    assert finished.returncode == 0, finished.errors
    assert 1.2 < finished.seconds < 5
    server.wait(10)
    assert (await probe.probe(target)).duration_s == pytest.approx(1.5, abs=0.3)


def packets(path: Path) -> list[tuple[int, int | None, int | None, int, bool]]:
    """All of a recording, as a player reads it."""
    with av.open(str(path)) as container:
        return [
            (one.stream_index, one.pts, one.dts, hash(bytes(one)), one.is_keyframe)
            for one in container.demux()
            if one.size
        ]


def connections(port: int, status: str) -> int:
    """How many there are on this machine at *port*."""
    found = psutil.net_connections("tcp")
    return sum(one.laddr[1:] == (port,) and one.status == status for one in found)


async def resting(pid: int) -> None:
    """Wait until a process does nothing any more but wait."""
    looks = 0
    while looks < 10:
        looks = looks + 1 if psutil.Process(pid).status() == psutil.STATUS_SLEEPING else 0
        await asyncio.sleep(0.02)


async def sent(recording: Path, target: Path, *, is_loaded: bool) -> None:
    """Push two seconds of the recording into *target*, by an ffmpeg that was loaded before or at once."""
    port, go, pids = free_port(), asyncio.Event(), list[int]()
    url = f"rtmp://127.0.0.1:{port}/live/c-1"
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-listen", "1", "-timeout", "20", "-i", url, "-c", "copy"]
    async with asyncio.TaskGroup() as group:
        server = group.create_task(process.run([*argv, str(target)], timeout_s=30))
        await wait_for(lambda: connections(port, psutil.CONN_LISTEN) == 1)
        pushing = group.create_task(
            ffmpeg.push(
                ffmpeg.executable(),
                recording,
                url,
                position_s=0,
                length_s=2,
                timeout_s=30,
                on_start=pids.append,
                go=go if is_loaded else None,
            )
        )
        if is_loaded:
            await wait_for(lambda: bool(pids))
            await resting(pids[0])
            assert connections(port, psutil.CONN_ESTABLISHED) == 0, "it has begun before it was told"
        go.set()
        assert (await pushing).returncode == 0, (await pushing).errors
        assert (await server).returncode == 0, (await server).errors


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (of other processes)
            await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_a_push_that_was_loaded_before_sends_the_same_when_it_is_told(recording: Path, tmp_path: Path) -> None:
    """Packet by packet what any push sends; until then nobody is connected to. The name may have a quote in it."""
    odd = tmp_path / "it's 6666 \\ 'x'.flv"
    odd.write_bytes(recording.read_bytes())
    await sent(odd, tmp_path / "at once.flv", is_loaded=False)
    await sent(odd, tmp_path / "loaded.flv", is_loaded=True)
    assert packets(tmp_path / "loaded.flv") == packets(tmp_path / "at once.flv") != []


@pytest.mark.asyncio
async def test_a_push_nobody_takes_ends_by_itself(recording: Path) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/c-1"
    finished = await ffmpeg.push(ffmpeg.executable(), recording, url, position_s=0, length_s=4, timeout_s=20)
    assert finished.returncode != 0
    assert "refused" in finished.errors


@pytest.mark.asyncio
async def test_a_push_to_a_silent_server_ends_in_about_five_seconds(recording: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        thread = threading.Thread(target=lambda: taken.append(server.accept()[0]))
        thread.start()
        url = f"rtmp://127.0.0.1:{server.getsockname()[1]}/live/c-1"
        begun_at = time.monotonic()
        try:
            finished = await ffmpeg.push(ffmpeg.executable(), recording, url, position_s=0, length_s=4, timeout_s=20)
            assert finished.returncode != 0
        except process.Stalled:
            pass  # whoever of the two looks first
        thread.join()
    taken[0].close()
    assert 4 < time.monotonic() - begun_at < 18  # of the 20 that it may take


@pytest.mark.asyncio
async def test_a_cancelled_push_is_off_the_air(
    recording: Path, receiver: tuple[str, Path, subprocess.Popen[bytes]]
) -> None:
    url, _, _ = receiver
    pids, sent = [0], asyncio.Event()

    async def push() -> None:
        while not sent.is_set():  # until the receiver listens
            await ffmpeg.push(
                ffmpeg.executable(),
                recording,
                url,
                position_s=0,
                length_s=4,
                timeout_s=20,
                on_start=pids.append,
                on_progress=lambda report: sent.set() if report.frame else None,
            )

    task = asyncio.create_task(push())
    await asyncio.wait_for(sent.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pids[-1])


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["/tmp/x.flv", "file:/tmp/x", "-f", "http://h/x", "tee:rtmp://h/x"])
async def test_a_push_goes_to_rtmp_only(recording: Path, url: str) -> None:
    with pytest.raises(Refuse, match="the push URL must be"):
        await ffmpeg.push("ffmpeg", recording, url, position_s=0, length_s=1, timeout_s=5)
