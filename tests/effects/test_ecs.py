"""A real transcoding on a real host (this one, by SSH), and all that can go wrong there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from lectern.effects import ecs, probe, ssh
from lectern.effects.ecs import Job, Made, Programs
from lectern.errors import (
    BAD_RECORDING,
    DOWNLOAD_FAILED,
    TRANSCODE_FAILED,
    CallAPerson,
    FallBack,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.states import Resolution
from tests.effects.conftest import Origin, Sshd, make_recording, running_with

SOURCE = "/it's%20a%20%22lesson%22/6666.flv"


@pytest_asyncio.fixture
async def connection(sshd: Sshd) -> AsyncIterator[ssh.Connection]:
    async with ssh.connect(ssh.Host.parse(sshd.url), sshd.key, sshd.known_hosts, timeout_s=10) as made:
        yield made


@pytest.fixture
def job(origin: Origin, recording: Path, tmp_path: Path) -> Job:
    origin.files[SOURCE] = recording.read_bytes()
    return Job(
        record_id=6666,
        attempt=1,
        source_url=f"{origin.url}{SOURCE}",
        wanted=(Resolution.P240,),
        upload_base=f"{origin.url}/up/",
        public_base=f"{origin.url}/up",
        work_root=str(tmp_path / "the host's work"),
    )


async def transcode(
    connection: ssh.Connection, job: Job, on_progress: Callable[[float], object] = lambda _: None
) -> list[Made]:
    """Whatever happens, nothing is left behind."""
    try:
        return await ecs.transcode(connection, job, on_progress=lambda percent: (on_progress(percent), None)[1])
    finally:
        root = Path(job.work_root)
        assert not root.exists() or list(root.iterdir()) == []
        assert running_with(job.work_root) == []


@pytest.mark.asyncio
async def test_renditions_are_made_checked_and_uploaded(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """Two at once, in one run."""
    seen: list[float] = []
    made = await transcode(connection, replace(job, wanted=(Resolution.P720, Resolution.P240)), seen.append)
    assert [(one.url, one.width, one.height) for one in made] == [
        (f"{origin.url}/up/6666_720P.flv", 1280, 720),
        (f"{origin.url}/up/6666_240P.flv", 320, 180),
    ]
    assert seen == sorted(seen)
    assert seen[-1] == 100
    for one in made:
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[one.url.removeprefix(origin.url)])
        found = await probe.probe(path)
        assert (found.width, found.height, found.audio_codec) == (one.width, one.height, "aac")
        assert found.size_bytes == one.size_bytes
        assert one.duration_s == pytest.approx(4, abs=0.1)


@pytest.mark.asyncio
async def test_neither_ffprobe_nor_curl_is_needed(connection: ssh.Connection, job: Job) -> None:
    programs = Programs(ffprobe="no-ffprobe", curl="no-curl")
    (made,) = await transcode(connection, replace(job, programs=programs))
    assert (made.width, made.height) == (320, 180)


@pytest.mark.asyncio
@pytest.mark.parametrize("programs", [Programs(wget="no-wget"), Programs(ffmpeg="no-ffmpeg")])
async def test_a_missing_program_calls_a_person(connection: ssh.Connection, job: Job, programs: Programs) -> None:
    with pytest.raises(CallAPerson, match=r"ssh://.*no-.*apt-get install"):
        await transcode(connection, replace(job, programs=programs))


@pytest.mark.asyncio
async def test_the_work_folder_can_be_in_the_home_folder(connection: ssh.Connection, job: Job) -> None:
    root = f"~/.lectern-test-{connection.host.port}"
    await ecs.transcode(connection, replace(job, work_root=root), on_progress=lambda _: None)
    home = (await connection.run(["sh", "-c", 'echo "$HOME"'], timeout_s=10)).output.strip()
    left = Path(home) / root.removeprefix("~/")
    assert list(left.iterdir()) == []
    left.rmdir()


@pytest.mark.asyncio
async def test_a_source_that_is_not_there_is_refused(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.files.clear()
    with pytest.raises(Refuse, match="404") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


@pytest.mark.asyncio
async def test_a_busy_origin_is_tried_again(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.statuses[SOURCE] = [503]
    with pytest.raises(TryAgain, match="503"):
        await transcode(connection, job)


@pytest.mark.asyncio
@pytest.mark.parametrize("programs", [Programs(), Programs(ffprobe="no-ffprobe")])
async def test_a_source_that_is_no_recording_is_refused(
    connection: ssh.Connection, job: Job, origin: Origin, programs: Programs
) -> None:
    origin.files[SOURCE] = b"<html>no</html>" * 1000
    with pytest.raises(Refuse, match="not playable") as raised:
        await transcode(connection, replace(job, programs=programs))
    assert raised.value.code is BAD_RECORDING


@pytest.mark.asyncio
async def test_a_source_without_picture_is_refused(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "audio.flv", video=False).read_bytes()
    with pytest.raises(Refuse, match="no video") as raised:
        await transcode(connection, job)
    assert raised.value.code is BAD_RECORDING


@pytest.mark.asyncio
async def test_a_source_without_sound_is_fine(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "mute.flv", audio=False).read_bytes()
    assert len(await transcode(connection, job)) == 1


@pytest.mark.asyncio
async def test_a_truncated_source_is_refused_with_what_was_found(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.files[SOURCE] = origin.files[SOURCE][:400_000]
    with pytest.raises(Refuse, match="but the source says 4") as raised:
        await transcode(connection, job)
    assert raised.value.code is TRANSCODE_FAILED


@pytest.mark.asyncio
async def test_an_upload_that_is_not_allowed_calls_a_person(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses["/up/6666_240P.flv"] = [403]
    for programs in (Programs(), Programs(curl="no-curl")):
        with pytest.raises(CallAPerson, match="403"):
            await transcode(connection, replace(job, programs=programs))


@pytest.mark.asyncio
async def test_an_upload_to_a_busy_server_is_tried_again(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.statuses["/up/6666_240P.flv"] = [503]
    with pytest.raises(TryAgain, match="503"):
        await transcode(connection, job)


@pytest.mark.asyncio
async def test_an_upload_that_nobody_can_see_is_not_made(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    with pytest.raises(TryAgain, match="was uploaded, but"):
        await transcode(connection, replace(job, public_base=f"{origin.url}/elsewhere"))


@pytest.mark.asyncio
async def test_a_full_disk_there_is_fallen_back_from(connection: ssh.Connection, job: Job, tmp_path: Path) -> None:
    """A stand-in says what wget says then: a full disk is not to be had everywhere."""
    full = tmp_path / "wget"
    full.write_text("#!/bin/sh\necho 'source: No space left on device' >&2\nexit 3\n")
    full.chmod(0o755)
    with pytest.raises(FallBack, match="No space left"):
        await transcode(connection, replace(job, programs=Programs(wget=str(full))))


@pytest.mark.asyncio
async def test_an_encoder_that_stands_still_is_ended(connection: ssh.Connection, job: Job, tmp_path: Path) -> None:
    """Although it goes on reporting."""
    stuck = tmp_path / "ffmpeg"
    says = "while :; do printf 'out_time_us=1000000\\nprogress=continue\\n'; sleep 0.2; done"
    stuck.write_text(f'#!/bin/sh\ncase "$*" in *-progress*) {says};; esac\nexec ffmpeg "$@"\n')
    stuck.chmod(0o755)
    with pytest.raises(TryAgain, match="no progress"):
        await transcode(connection, replace(job, stall_s=0.8, programs=Programs(ffmpeg=str(stuck))))


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["wget", "ffmpeg"])
async def test_a_cancelled_job_leaves_nothing(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, step: str
) -> None:
    if step == "wget":
        job = replace(job, wget_rate="50k")
    else:
        long = make_recording(tmp_path / "long.flv", seconds=20)
        origin.files[SOURCE] = long.read_bytes()
        job = replace(job, wanted=(Resolution.P1080,))
    task = asyncio.create_task(transcode(connection, job))
    marker = "--limit-rate" if step == "wget" else "-progress"
    at_it: set[int] = set()
    for _ in range(500):
        at_it = set(running_with(job.work_root)) & set(running_with(marker))
        if at_it:
            break
        await asyncio.sleep(0.02)
    assert at_it, f"{step} is at work there"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_what_is_no_job_is_misuse(connection: ssh.Connection, job: Job) -> None:
    for wrong in (
        replace(job, wanted=()),
        replace(job, record_id=-1),
        replace(job, wanted=(Resolution.P240, Resolution.P240)),
        replace(job, upload_base="oss://bucket/prefix"),
    ):
        with pytest.raises(Misuse):
            await ecs.transcode(connection, wrong, on_progress=lambda _: None)
