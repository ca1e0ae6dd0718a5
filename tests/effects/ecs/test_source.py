"""What a job does with a bad recording, and what it makes is looked at before it counts."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from lectern.allowlist import Allowlist
from lectern.decide import transcoding as decide
from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs_transcode
from lectern.ecs.probe import Programs
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import (
    BAD_RECORDING,
    DOWNLOAD_FAILED,
    FORBIDDEN_ORIGIN,
    HALF_A_RECORDING,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    UPLOAD_FAILED,
    CallAPerson,
    FallBack,
    Refuse,
    TryAgain,
)
from lectern.states import Resolution
from lectern.storage.origin import RemoteFile
from lectern.storage.oss import UploadTarget
from tests.effects.conftest import Origin, make_recording
from tests.effects.ecs.at_work import SOURCE, UP, stand_in, transcode
from tests.waiting import async_wait_until
from town import origin as demo
from town.faults import Fault

pytestmark = pytest.mark.live


async def test_a_source_that_is_not_there_is_refused(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.files.clear()
    with pytest.raises(Refuse, match="404") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


async def test_a_source_at_forbidden_place_is_refused(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    with pytest.raises(Refuse, match="ALLOWED_ORIGINS") as raised:
        await transcode(connection, replace(job, allowed=Allowlist()))
    assert raised.value.code is FORBIDDEN_ORIGIN
    assert origin.asked == []


async def test_a_busy_origin_is_tried_again(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.statuses[SOURCE] = [503, 503, 503, 503, 0]
    assert len(await transcode(connection, job)) == 1


async def test_an_origin_that_stays_busy_is_at_fault(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.statuses[SOURCE] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


async def test_source_that_is_no_recording_is_refused(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.files[SOURCE] = b"<html>no</html>" * 1000
    with pytest.raises(Refuse, match="not playable") as raised:
        await transcode(connection, job)
    assert raised.value.code is BAD_RECORDING


async def test_a_playlist_reads_no_file_of_the_host(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.files[SOURCE] = b"#EXTM3U\n#EXTINF:4,\nfile:/etc/passwd\n#EXT-X-ENDLIST\n"
    with pytest.raises(Refuse, match="not playable"):
        await transcode(connection, job)


def half_a_recording(path: Path, what: str) -> bytes:
    """A recording of *what* there is in it."""
    if what != "sound and a cover":
        return make_recording(path, video=what == "a picture alone", audio=what == "sound alone").read_bytes()
    cover = (
        "-f",
        "lavfi",
        "-i",
        "color=size=64x64:rate=1:duration=1",
        "-c:v",
        "mjpeg",
        "-disposition:v",
        "attached_pic",
    )
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "sine=duration=4", *cover, "-c:a", "aac"]
    subprocess.run([*argv, "-f", "mp4", str(path)], check=True, timeout=60)
    return path.read_bytes()


@pytest.mark.parametrize("what", ["sound alone", "sound and a cover", "a picture alone"])
async def test_half_a_recording_is_refused_with_its_own_code(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    """No host has what is missing, so it is not tried again; nothing is encoded."""
    origin.files[SOURCE] = half_a_recording(tmp_path / "half", what)
    report = JobReport()
    said = (
        r"has a picture \(h264, 640x360\), but no sound"
        if what == "a picture alone"
        else r"has sound \(aac\), but no pic"
    )
    with pytest.raises(Refuse, match=said) as raised:
        await transcode(connection, job, report)
    assert raised.value.code is HALF_A_RECORDING
    assert report.step == "look"
    assert not decide.again(raised.value, 1)


@pytest.mark.parametrize("path", ["/it's%20a%20%22lesson%22/1.flv", '/it\'s a "lesson"/$(touch x); -O /1.flv'])
async def test_a_name_with_quotes_and_spaces_is_only_a_name(
    connection: ssh.SshConnection, job: Job, origin: Origin, path: str
) -> None:
    """Written as a URL wants it, or as a person would."""
    written = {quote(path, safe="/%"), path, path.replace(" ", "%20").replace('"', "%22")}
    for name in written:  # each program has its own opinion on what must be escaped
        origin.files[name] = origin.files[SOURCE]
    (made,) = await transcode(connection, replace(job, source_url=f"{origin.url}{path}"))
    assert made.duration_s == pytest.approx(4, abs=0.1)


async def test_a_truncated_source_is_refused_and_told(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.files[SOURCE] = origin.files[SOURCE][:400_000]
    with pytest.raises(Refuse, match=r"only \d\.\d s can be read, but the source says 4\.0 s") as raised:
        await transcode(connection, job)
    assert raised.value.code is BAD_RECORDING
    assert origin.took("PUT", UP) == 0


@pytest.fixture
async def liar(recording: Path, tmp_path: Path) -> AsyncIterator[demo.Origin]:
    """An origin whose promises can be made as long as wanted."""
    root = tmp_path / "origin"
    root.mkdir()
    (root / "6666.flv").write_bytes(recording.read_bytes())
    async with demo.Origin(root) as made:
        yield made


async def test_a_lie_of_ten_gigabytes_is_told(connection: ssh.SshConnection, job: Job, liar: demo.Origin) -> None:
    """Where the disk has so much; where it has not, see the next claim."""
    liar.faults.add(Fault("6666.flv", length_lie=10**10))
    room = (await connection.run(["df", "--output=avail", "-B1", "/tmp"], timeout_s=10)).output.split()[-1]
    with pytest.raises((TryAgain, FallBack), match=r"100\d{8} bytes were promised|are needed") as raised:
        await transcode(connection, replace(job, source_url=liar.url_for("6666.flv")))
    assert raised.value.code is (DOWNLOAD_FAILED if int(room) > 21 * 10**9 else NO_ECS_ROOM)


async def test_a_source_that_is_larger_than_the_disk_is_not_begun(
    connection: ssh.SshConnection, job: Job, liar: demo.Origin
) -> None:
    liar.faults.add(Fault("6666.flv", length_lie=10**15))
    with pytest.raises(FallBack, match="has no room") as raised:
        await transcode(connection, replace(job, source_url=liar.url_for("6666.flv")))
    assert raised.value.code is NO_ECS_ROOM
    assert [one.method for one in liar.requests] == ["HEAD"]


async def test_a_source_that_is_longer_than_it_promised_is_cut_off_there(
    connection: ssh.SshConnection, job: Job, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No origin fills the disk by sending on and on."""
    monkeypatch.setattr(ecs_transcode, "_UNKNOWN_BYTES", 100_000)

    async def no_promise(_job: Job) -> RemoteFile:
        return RemoteFile(job.source_url, None, None, None)

    monkeypatch.setattr(ecs_transcode, "promised", no_promise)
    with pytest.raises(Refuse, match="larger than the 100000 bytes") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


async def test_a_source_that_changes_while_it_is_read_is_read_again(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path
) -> None:
    """What is made is made of the one file, whole, that was there in the end."""
    origin.slow_s = 0.3
    task = asyncio.create_task(transcode(connection, job))
    await async_wait_until(lambda: origin.took("GET", SOURCE), description="it is read")
    origin.files[SOURCE] = make_recording(tmp_path / "new.flv", seconds=6).read_bytes()
    origin.slow_s = 0.0
    (made,) = await task
    assert made.duration_s == pytest.approx(6, abs=0.1)


async def test_a_source_that_goes_on_changing_is_left(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    class Changing(dict[str, dict[str, str]]):
        def get(self, key: object, default: object = None) -> dict[str, str]:
            origin.files[SOURCE] = origin.files[SOURCE][:-1]  # each time it is asked for
            return {}

    origin.headers = Changing()
    with pytest.raises(TryAgain, match="has changed while it was read") as raised:
        await transcode(connection, job)
    assert raised.value.code is DOWNLOAD_FAILED


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


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_output_is_a_failed_attempt_with_the_reason(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    instead, said = BAD[what]
    folder = f"{job.work_root}/{job.name}"
    script = f'in="{folder}/source" out="{folder}/6666_240P.flv"\ncase "$*" in *-force_key*) {instead}; exit;; esac'
    broken = stand_in(tmp_path / "ffmpeg", f'{script}\nexec ffmpeg "$@"')
    with pytest.raises((TryAgain, Refuse), match=said) as raised:
        await transcode(connection, replace(job, programs=Programs(ffmpeg=broken)))
    assert raised.value.code is TRANSCODE_FAILED
    assert origin.took("PUT", UP) == 0


async def test_an_upload_that_is_not_allowed_calls_a_person(
    connection: ssh.SshConnection, job: Job, origin: Origin
) -> None:
    origin.statuses[UP] = [403]
    with pytest.raises(CallAPerson, match="403") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == 1


@pytest.mark.parametrize("what", ["a bad output", "an upload that is refused"])
async def test_what_befalls_one_rendition_spares_the_other(
    connection: ssh.SshConnection, job: Job, origin: Origin, tmp_path: Path, what: str
) -> None:
    """Both are of one run of ffmpeg."""
    both = replace(job, wanted=(Resolution.P240, Resolution.P480))
    if what == "a bad output":
        instead = f'ffmpeg "$@"; : >"{job.work_root}/{both.name}/6666_240P.flv"'
        broken = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {instead}; exit;; esac\nexec ffmpeg "$@"')
        both = replace(both, programs=Programs(ffmpeg=broken))
    else:
        origin.statuses[UP] = [403]
    outcome = await ecs_transcode.transcode(connection, both, JobReport())
    await detached.leave(connection, both.work_root, both.name)
    assert [one.resolution for one in outcome.made] == [Resolution.P480]
    assert list(outcome.missed) == [Resolution.P240]
    assert outcome.missed[Resolution.P240].code is (TRANSCODE_FAILED if what == "a bad output" else UPLOAD_FAILED)
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP.replace("240P", "480P"))) == (1, 1)


async def test_upload_to_busy_server_is_tried_again(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    """The encoding is not."""
    origin.statuses[UP] = [503, 500, 0]
    assert len(await transcode(connection, job)) == 1
    assert origin.took("PUT", UP) == 3


async def test_a_server_that_stays_busy_is_at_fault(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    origin.statuses[UP] = [503]
    with pytest.raises(TryAgain, match="503") as raised:
        await transcode(connection, job)
    assert raised.value.code is UPLOAD_FAILED
    assert origin.took("PUT", UP) == ecs_transcode.UPLOADS


async def test_upload_that_nobody_can_see_is_not_made(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    elsewhere = UploadTarget(f"{origin.url}/up", f"{origin.url}/elsewhere")
    with pytest.raises(TryAgain, match="was uploaded, but"):
        await transcode(connection, replace(job, target=elsewhere))
