"""What a job does with a recording that is bad, away, or another one a moment later."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from lectern.demo import origin as demo
from lectern.effects import ecs, ssh
from lectern.effects.ecs_job import Job, Programs
from lectern.effects.origin import Allowed, RemoteFile
from lectern.errors import BAD_RECORDING, DOWNLOAD_FAILED, FORBIDDEN_ORIGIN, NO_ECS_ROOM, FallBack, Refuse, TryAgain
from tests.effects.conftest import Origin, make_recording
from tests.effects.ecs.at_work import SOURCE, UP, transcode, until


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
