"""A real transcoding on a real host (this one, by SSH), and all that can go wrong there."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
import pytest_asyncio

from lectern.demo import origin as demo
from lectern.effects import ecs, ecs_media, probe, ssh
from lectern.effects.ecs_job import Job, Made, Programs, Report
from lectern.effects.origin import Allowed, RemoteFile
from lectern.effects.upload import Target
from lectern.errors import (
    BAD_RECORDING,
    DOWNLOAD_FAILED,
    FORBIDDEN_ORIGIN,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    TRANSCODE_TIMED_OUT,
    UPLOAD_FAILED,
    CallAPerson,
    FallBack,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.states import Resolution
from tests.effects.conftest import Origin, Sshd, make_recording, running_with

SOURCE = "/it's%20a%20%22lesson%22/6666.flv"
UP = "/up/6666/6666_240P.flv"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(_number: int) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(ecs, "_pause", pause)


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
        target=Target(f"{origin.url}/up/", f"{origin.url}/up"),
        begun_at=time.time(),
        limit_s=lambda duration_s: 3600.0 if duration_s is None else 3 * duration_s + 120,
        allowed=Allowed.parse("127.0.0.1"),
        work_root=str(tmp_path / "the host's work"),
    )


async def transcode(connection: ssh.Connection, job: Job, report: Report | None = None) -> list[Made]:
    """Whatever happens, nothing is left behind."""
    try:
        return await ecs.transcode(connection, job, report or Report())
    finally:
        await ecs.leave(connection, job.work_root, job.name)
        root = Path(job.work_root)
        assert not root.exists() or list(root.iterdir()) == []
        assert running_with(job.work_root) == []


async def until(condition: Callable[[], object], description: str, timeout_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {timeout_s} s until {description}"
        await asyncio.sleep(0.02)


def stand_in(path: Path, script: str) -> str:
    """A program that does what the test needs; *script* is in the words of sh."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def slow_job(job: Job, origin: Origin, tmp_path: Path) -> Job:
    """It encodes 12 s in real time, so that something can happen to it meanwhile."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=12).read_bytes()
    slow = stand_in(tmp_path / "slow", 'case "$*" in *-force_key*) exec ffmpeg -re "$@";; esac\nexec ffmpeg "$@"')
    return replace(job, programs=Programs(ffmpeg=slow))


# -- what it makes -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_renditions_are_made_checked_and_uploaded(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """Two at once, in one run."""
    report = Report()
    made = await transcode(connection, replace(job, wanted=(Resolution.P720, Resolution.P240)), report)
    assert [(one.url, one.width, one.height) for one in made] == [
        (f"{origin.url}/up/6666/6666_720P.flv", 1280, 720),
        (f"{origin.url}/up/6666/6666_240P.flv", 320, 180),
    ]
    assert (report.step, report.percent) == ("upload", 100)
    assert report.duration_s == pytest.approx(4, abs=0.1)
    assert origin.took("GET", SOURCE) == 1
    for one in made:
        path = tmp_path / "made.flv"
        path.write_bytes(origin.files[one.url.removeprefix(origin.url)])
        found = await probe.probe(path)
        assert (found.width, found.height, found.audio_codec) == (one.width, one.height, "aac")
        assert found.size_bytes == one.size_bytes
        assert one.duration_s == pytest.approx(4, abs=0.1)


@pytest.mark.asyncio
@pytest.mark.parametrize("every_s", [1.0, 2.0])
async def test_what_it_makes_can_be_pushed(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, every_s: float
) -> None:
    """A keyframe comes in time, and sound and picture lie beside each other: a push need not read ahead for either."""
    origin.files[SOURCE] = make_recording(tmp_path / "long.flv", seconds=9).read_bytes()
    await transcode(connection, replace(job, keyframe_s=every_s))
    path = tmp_path / "made.flv"
    path.write_bytes(origin.files[UP])
    keys: list[float] = []
    at: dict[str, float] = {"video": 0.0, "audio": 0.0}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None:
                continue
            at[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(at["video"] - at["audio"]) < 0.3
            if packet.stream.type == "video" and packet.is_keyframe:
                keys.append(float((packet.pts or 0) * packet.time_base))
    gaps = [after - before for before, after in itertools.pairwise(keys)]
    assert max(gaps) <= every_s + 0.05
    assert len(keys) >= 9 / every_s - 1


@pytest.mark.asyncio
async def test_neither_ffprobe_nor_curl_is_needed(connection: ssh.Connection, job: Job) -> None:
    programs = Programs(ffprobe="no-ffprobe", curl="no-curl")
    (made,) = await transcode(connection, replace(job, programs=programs))
    assert (made.width, made.height) == (320, 180)


@pytest.mark.asyncio
async def test_the_work_folder_can_be_in_the_home_folder(connection: ssh.Connection, job: Job) -> None:
    job = replace(job, work_root=f"~/.lectern-test-{connection.host.port}")
    await ecs.transcode(connection, job, Report())
    await ecs.leave(connection, job.work_root, job.name)
    home = (await connection.run(["sh", "-c", 'echo "$HOME"'], timeout_s=10)).output.strip()
    left = Path(home) / job.work_root.removeprefix("~/")
    assert list(left.iterdir()) == []
    left.rmdir()


@pytest.mark.asyncio
async def test_a_source_that_moved_is_followed(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.redirects["/old.flv"] = f"{origin.url}{SOURCE}"
    assert len(await transcode(connection, replace(job, source_url=f"{origin.url}/old.flv"))) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [1, 2, 11])
async def test_a_source_of_any_length_is_fine(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, seconds: int
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "short.flv", seconds=seconds).read_bytes()
    (made,) = await transcode(connection, job)
    assert made.duration_s == pytest.approx(seconds, abs=0.2)


@pytest.mark.asyncio
async def test_a_source_without_sound_is_fine(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "mute.flv", audio=False).read_bytes()
    assert len(await transcode(connection, job)) == 1


# -- it survives us ----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_job_that_we_are_torn_from_goes_on_and_is_found_again(
    sshd: Sshd, slow_job: Job, origin: Origin
) -> None:
    """The same ffmpeg, one download, one upload."""
    job = slow_job
    host = ssh.Host.parse(sshd.url)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as first:
        task = asyncio.create_task(ecs.transcode(first, job, Report()))
        await until(lambda: encoders(job), "ffmpeg is at work there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (before,) = encoders(job)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as second:
        report = Report()
        again = asyncio.create_task(transcode(second, job, report))
        await until(lambda: report.percent > 0 or again.done(), "it is watched again")
        assert encoders(job) == [before]
        assert len(await again) == 1
    assert origin.took("GET", SOURCE) == 1
    assert origin.took("PUT", UP) == 1


def encoders(job: Job) -> list[int]:
    """The ffmpegs that encode for *job*."""
    return [pid for pid in running_with(job.work_root) if pid in running_with("-force_key_frames") and is_ffmpeg(pid)]


def is_ffmpeg(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "ffmpeg"
    except OSError:
        return False


@pytest.mark.asyncio
async def test_a_job_that_was_made_already_is_not_made_again(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    """Torn off after the upload: one look, and it is told."""
    first = await ecs.transcode(connection, job, Report())
    assert await transcode(connection, job) == first
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP)) == (1, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
async def test_a_job_that_is_left_leaves_nothing(
    connection: ssh.Connection, job: Job, slow_job: Job, origin: Origin, tmp_path: Path, step: str
) -> None:
    if step == "fetch":
        origin.slow_s = 0.3
    elif step == "encode":
        job = slow_job
    else:
        job = replace(job, programs=Programs(curl=stand_in(tmp_path / "curl", f"exec sleep 60.{os.getpid()}")))
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": f"sleep 60.{os.getpid()}"}[step]
    report = Report()
    before = set(running_with(marker))  # of tests that run beside this one
    task = asyncio.create_task(transcode(connection, job, report))
    await until(lambda: report.step == step and set(running_with(marker)) - before, f"it is at {step}")
    ours = set(running_with(marker)) - before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ours & set(running_with(marker))


@pytest.mark.asyncio
async def test_what_nobody_looked_at_for_long_is_ended_by_the_next_job(
    connection: ssh.Connection, job: Job, slow_job: Job
) -> None:
    """Its teacher went for good, or was cut off and took another host."""
    lost = replace(slow_job, attempt=7)
    task = asyncio.create_task(ecs.transcode(connection, lost, Report()))
    await until(lambda: encoders(lost), "the lost job encodes")
    task.cancel()
    await asyncio.wait({task})
    long_ago = time.time() - 20 * 60
    os.utime(Path(job.work_root) / lost.name / "seen", (long_ago, long_ago))
    assert len(await transcode(connection, job)) == 1


# -- a bad source ------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_source_that_is_not_there_is_refused(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.files.clear()
    with pytest.raises(Refuse, match="404") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


@pytest.mark.asyncio
async def test_a_source_at_a_forbidden_place_is_refused(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    with pytest.raises(Refuse, match="ALLOWED_ORIGINS") as raised:
        await transcode(connection, replace(job, allowed=Allowed()))
    assert raised.value.code is FORBIDDEN_ORIGIN
    assert origin.asked == []


@pytest.mark.asyncio
async def test_a_busy_origin_is_tried_again(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.statuses[SOURCE] = [503, 503, 503, 503, 0]
    assert len(await transcode(connection, job)) == 1


@pytest.mark.asyncio
async def test_an_origin_that_stays_busy_is_at_fault_itself(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses[SOURCE] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


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
async def test_a_playlist_reads_no_file_of_the_host(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    origin.files[SOURCE] = b"#EXTM3U\n#EXTINF:4,\nfile:/etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(Refuse, match="not playable"):
        await transcode(connection, job)


@pytest.mark.asyncio
@pytest.mark.parametrize("programs", [Programs(), Programs(ffprobe="no-ffprobe")])
async def test_a_source_without_picture_is_refused(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, programs: Programs
) -> None:
    origin.files[SOURCE] = make_recording(tmp_path / "audio.flv", video=False).read_bytes()
    with pytest.raises(Refuse, match="no video") as raised:
        await transcode(connection, replace(job, programs=programs))
    assert raised.value.code is BAD_RECORDING


@pytest.mark.asyncio
async def test_a_truncated_source_is_refused_with_what_was_found(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.files[SOURCE] = origin.files[SOURCE][:400_000]
    with pytest.raises(Refuse, match=r"only \d\.\d s can be read, but the source says 4\.0 s") as raised:
        await transcode(connection, job)
    assert raised.value.code is BAD_RECORDING
    assert origin.took("PUT", UP) == 0


@pytest_asyncio.fixture
async def liar(recording: Path, tmp_path: Path) -> AsyncIterator[demo.Origin]:
    """An origin whose promises can be made as long as wanted."""
    root = tmp_path / "origin"
    root.mkdir()
    (root / "6666.flv").write_bytes(recording.read_bytes())
    async with demo.Origin(root) as made:
        yield made


@pytest.mark.asyncio
async def test_a_lie_of_ten_gigabytes_is_told(connection: ssh.Connection, job: Job, liar: demo.Origin) -> None:
    """Where the disk has so much; where it has not, see the next claim."""
    liar.faults.add(demo.Fault("6666.flv", length_lie=10**10))
    room = (await connection.run(["df", "--output=avail", "-B1", "/tmp"], timeout_s=10)).output.split()[-1]
    with pytest.raises((TryAgain, FallBack), match=r"100\d{8} bytes were promised|are needed") as raised:
        await transcode(connection, replace(job, source_url=liar.url_for("6666.flv")))
    assert raised.value.code is (DOWNLOAD_FAILED if int(room) > 21 * 10**9 else NO_ECS_ROOM)


@pytest.mark.asyncio
async def test_a_source_that_is_larger_than_the_disk_is_not_begun(
    connection: ssh.Connection, job: Job, liar: demo.Origin
) -> None:
    liar.faults.add(demo.Fault("6666.flv", length_lie=10**15))
    with pytest.raises(FallBack, match="has no room") as raised:
        await transcode(connection, replace(job, source_url=liar.url_for("6666.flv")))
    assert raised.value.code is NO_ECS_ROOM
    assert [one.method for one in liar.requests] == ["HEAD"]


@pytest.mark.asyncio
async def test_a_source_that_is_longer_than_it_promised_is_cut_off_there(
    connection: ssh.Connection, job: Job, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No origin fills the disk by sending on and on."""
    monkeypatch.setattr(ecs, "_UNKNOWN_BYTES", 100_000)

    async def no_promise(_job: Job) -> RemoteFile:
        return RemoteFile(job.source_url, None, None, None)

    monkeypatch.setattr(ecs, "_promised", no_promise)
    with pytest.raises(Refuse, match="larger than the 100000 bytes") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


@pytest.mark.asyncio
async def test_a_source_that_changes_while_it_is_read_is_read_again(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """What is made is made of the one file, whole, that was there in the end."""
    origin.slow_s = 0.3
    task = asyncio.create_task(transcode(connection, job))
    await until(lambda: origin.took("GET", SOURCE), "it is read")
    origin.files[SOURCE] = make_recording(tmp_path / "new.flv", seconds=6).read_bytes()
    origin.slow_s = 0.0
    (made,) = await task
    assert made.duration_s == pytest.approx(6, abs=0.1)


@pytest.mark.asyncio
async def test_a_source_that_goes_on_changing_is_given_up(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    class Changing(dict[str, dict[str, str]]):
        def get(self, key: object, default: object = None) -> dict[str, str]:
            origin.files[SOURCE] = origin.files[SOURCE][:-1]  # each time it is asked for
            return {}

    origin.headers = Changing()
    with pytest.raises(TryAgain, match="has changed while it was read") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


# -- a host that can not -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("programs", [Programs(wget="no-wget"), Programs(ffmpeg="no-ffmpeg", ffprobe="no-ffprobe")])
async def test_a_missing_program_calls_a_person(connection: ssh.Connection, job: Job, programs: Programs) -> None:
    with pytest.raises(CallAPerson, match=r"ssh://.*no-.*apt-get install"):
        await transcode(connection, replace(job, programs=programs))


@pytest.mark.asyncio
@pytest.mark.parametrize(("program", "exit_code"), [("wget", 3), ("ffmpeg", 1)])
async def test_a_disk_that_fills_is_fallen_back_from(
    connection: ssh.Connection, job: Job, tmp_path: Path, program: str, exit_code: int
) -> None:
    """A stand-in says what the program says then; where mounts are ours to make, the next claim fills a real one."""
    says = f"echo 'source: No space left on device' >&2; exit {exit_code}"
    full = stand_in(tmp_path / program, f'case "$*" in *-force_key*|*--input-file*) {says};; esac\nexec {program} "$@"')
    with pytest.raises(FallBack, match="No space left") as raised:
        await transcode(connection, replace(job, programs=Programs(**{program: full})))
    assert raised.value.code is NO_ECS_ROOM


@pytest.fixture
def small_disk(recording: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk with room for half of the source, or for the source and not much more."""
    size = recording.stat().st_size
    room = size // 2 if request.param == "source" else size + 150_000
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("small_disk", ["source", "rendition"], indirect=True)
async def test_a_real_disk_that_fills_is_fallen_back_from(
    connection: ssh.Connection, job: Job, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing can be noted there any more, not even how the program ended."""
    monkeypatch.setattr(ecs, "_RESERVE_BYTES", -(10**9))  # as if others had filled it since it was looked at
    with pytest.raises(FallBack, match="its disk is full") as raised:
        await transcode(connection, replace(job, wanted=(Resolution.P1080,), work_root=str(small_disk / "work")))
    assert raised.value.code is NO_ECS_ROOM


@pytest.mark.asyncio
async def test_an_encoder_that_stands_still_is_noticed(connection: ssh.Connection, job: Job, tmp_path: Path) -> None:
    """Although it goes on reporting."""
    says = "while :; do printf 'out_time_us=1000000\\nprogress=continue\\n'; sleep 0.2; done"
    stuck = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {says};; esac\nexec ffmpeg "$@"')
    with pytest.raises(TryAgain, match="no progress"):
        await transcode(connection, replace(job, stall_s=0.8, programs=Programs(ffmpeg=stuck)))


@pytest.mark.asyncio
@pytest.mark.parametrize("whom", ["ffmpeg", "all of it"])
async def test_a_killed_encoder_is_noticed(connection: ssh.Connection, slow_job: Job, whom: str) -> None:
    job = slow_job
    task = asyncio.create_task(transcode(connection, job))
    await until(lambda: encoders(job), "ffmpeg is at work there")
    if whom == "ffmpeg":
        os.kill(encoders(job)[0], signal.SIGKILL)
    else:
        os.killpg(int((Path(job.work_root) / job.name / "encode.pid").read_text()), signal.SIGKILL)
    with pytest.raises(TryAgain, match=r"137|ended from outside"):
        await task


@pytest.mark.asyncio
async def test_a_job_that_takes_too_long_is_timed_out(connection: ssh.Connection, slow_job: Job) -> None:
    """By the clock since it was begun, also where it is taken up again."""
    job = replace(slow_job, begun_at=time.time(), limit_s=lambda _: 8.0)
    with pytest.raises(Refuse, match="not done after 8 s in all") as raised:
        await transcode(connection, job)
    assert raised.value.code is TRANSCODE_TIMED_OUT
    with pytest.raises(Refuse, match="not done after 8 s in all"):
        await transcode(connection, job)


# -- a bad output ------------------------------------------------------------------------------------------------------


AGAIN = 'ffmpeg "$@"; ffmpeg -v error -nostdin -y -i "$in" -c:a copy'
BAD = {
    "sound": (f'{AGAIN} -an -s 320x180 -c:v libx264 -f flv "$out"', r"has h264 and no sound, not h264 and aac"),
    "size": (f'{AGAIN} -c copy -f flv "$out"', r"is 640x360, not 320x180"),
    "length": (f'{AGAIN} -t 2 -s 320x180 -c:v libx264 -f flv "$out"', r"is 2\.\d s long, but the source says 4\.0 s"),
    "codec": (f'{AGAIN} -s 320x180 -c:v flv1 -f flv "$out"', r"has flv1 and aac"),
    "end": (
        'ffmpeg "$@"; s=$(stat -c %s "$out"); dd if=/dev/zero of="$out" bs=1 seek=$((s/2)) count=$((s/3)) conv=notrunc',
        r"does not decode at its end",
    ),
    "all": ('ffmpeg "$@"; : >"$out"', r"is not playable|has only 0 bytes"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", BAD)
async def test_a_bad_output_is_a_failed_attempt_with_the_reason(
    connection: ssh.Connection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    instead, said = BAD[what]
    folder = f"{job.work_root}/{job.name}"
    script = f'in="{folder}/source" out="{folder}/6666_240P.flv"\ncase "$*" in *-force_key*) {instead}; exit;; esac'
    broken = stand_in(tmp_path / "ffmpeg", f'{script}\nexec ffmpeg "$@"')
    with pytest.raises((TryAgain, Refuse), match=said) as raised:
        await transcode(connection, replace(job, programs=Programs(ffmpeg=broken)))
    assert raised.value.code is TRANSCODE_FAILED
    assert origin.took("PUT", UP) == 0


# -- the upload --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_an_upload_that_is_not_allowed_calls_a_person(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses[UP] = [403]
    for programs in (Programs(), Programs(curl="no-curl")):
        with pytest.raises(CallAPerson, match="403") as raised:
            await transcode(connection, replace(job, programs=programs))
        assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == 2


@pytest.mark.asyncio
async def test_an_upload_to_a_busy_server_is_tried_again(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    """The encoding is not."""
    origin.statuses[UP] = [503, 500, 0]
    assert len(await transcode(connection, job)) == 1
    assert origin.took("PUT", UP) == 3


@pytest.mark.asyncio
async def test_a_server_that_stays_busy_is_at_fault_itself(
    connection: ssh.Connection, job: Job, origin: Origin
) -> None:
    origin.statuses[UP] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == ecs.UPLOADS


@pytest.mark.asyncio
async def test_an_upload_that_nobody_can_see_is_not_made(connection: ssh.Connection, job: Job, origin: Origin) -> None:
    elsewhere = Target(f"{origin.url}/up", f"{origin.url}/elsewhere")
    with pytest.raises(TryAgain, match="was uploaded, but"):
        await transcode(connection, replace(job, target=elsewhere))


@pytest.mark.asyncio
async def test_what_is_no_job_is_misuse(job: Job) -> None:
    for wrong in ({"wanted": ()}, {"record_id": -1}, {"wanted": (Resolution.P240, Resolution.P240)}):
        with pytest.raises(Misuse):
            replace(job, **wrong)


def test_the_time_that_is_left_is_told_by_how_far_it_came() -> None:
    report = Report()
    assert [report.left_s] == [None]
    report.encoded(50)
    assert [report.left_s] == [None]  # a list: mypy does not see that a call changes what it has once seen
    began = time.monotonic()
    time.sleep(0.05)
    report.encoded(75)
    left_s = report.left_s
    assert left_s is not None
    assert 0.04 <= left_s <= time.monotonic() - began + 0.05
    report.encoded(60)
    assert report.percent == 75


@pytest.mark.parametrize("text", ["", "{}", '{"streams": []}', '{"streams": [{"codec_type": "video"}]}'])
def test_what_ffprobe_does_not_know_is_no_recording(text: str) -> None:
    assert ecs_media._media_of_json(text) is None
    assert ecs_media._media_of_words(text) is None
