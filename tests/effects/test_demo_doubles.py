"""The demo's wget, curl and ffprobe beside the real ones: lectern sees no difference."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lectern.effects.ecs import check
from lectern.effects.files import upload
from lectern.effects.files import wget as effects_wget
from lectern.effects.files.origin import RemoteFile
from lectern.effects.files.upload import Put
from lectern.errors import UPLOAD_FAILED, CallAPerson, Refuse, TryAgain
from tests.effects.conftest import make_recording
from town import doubles
from town.faults import Fault
from town.origin import Origin
from town.ports import HOST, free_port

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    async with Origin(tmp_path / "origin") as server:
        (server.root / "6666").mkdir()
        (server.root / "6666" / "6666.flv").write_bytes(CONTENT)
        yield server


@pytest.fixture(params=["double", pytest.param("system", marks=pytest.mark.live)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the programs are."""
    there = tmp_path / "bin"
    there.mkdir()
    for name in doubles.PROGRAMS:
        found = shutil.which(name)
        if request.param == "double":
            doubles.write(name, there)
        elif found:
            (there / name).symlink_to(found)
        else:
            pytest.skip(f"there is no {name} on this machine: only the doubles are checked")
    return there


async def run(*argv: str | Path, given: bytes = b"") -> tuple[int, str, str]:
    """The exit code of a program, what it prints and what it complains of."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    words, pipe = [str(word) for word in argv], subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(given), 200)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.asyncio
async def test_wget_resumes_and_exits_like_wget(origin: Origin, tmp_path: Path, folder: Path) -> None:
    """Resume by Range, leave complete files alone, keep what came of a download that breaks off, exit 0, 4 or 8."""
    file, url = tmp_path / "6666.flv.part", origin.url_for("6666/6666.flv")

    async def wget(url: str) -> int:
        options, line = effects_wget.asked(url, None)
        argv = effects_wget.argv(str(folder / "wget"), str(file), "100m", options)
        return (await run(*argv, given=line))[0]

    assert await wget(url) == 0
    assert file.read_bytes() == CONTENT
    assert await wget(url) == 0
    file.write_bytes(CONTENT[:1000])
    assert await wget(url) == 0
    assert file.read_bytes() == CONTENT
    assert origin.requests[-1].range == "bytes=1000-"
    file.unlink()
    origin.faults.add(Fault("*", times=1, truncate_bytes=5000))
    assert await wget(url) == 4
    assert file.read_bytes() == CONTENT[:5000]
    assert await wget(f"http://{HOST}:{free_port()}/") == 4
    assert await wget(origin.url_for("none.flv")) == 8
    name = 'it\'s a "lesson"/$(touch x); -O /1.flv'
    (origin.root / name).parent.mkdir(parents=True)
    (origin.root / name).write_bytes(CONTENT)
    file.unlink()
    assert await wget(f"{origin.url}/{name}") == 0
    assert file.read_bytes() == CONTENT


@pytest.mark.asyncio
async def test_wget_takes_a_url_that_no_command_line_shows_looks_and_is_ended_by_a_file_that_is_too_large(
    origin: Origin, tmp_path: Path, folder: Path
) -> None:
    wget, url = folder / "wget", origin.url_for("6666/6666.flv")
    usual = (wget, "--no-verbose", "-O", tmp_path / "1.flv", "--input-file=-")
    assert (await run(*usual, given=f"{url}\n".encode()))[0] == 0
    assert (tmp_path / "1.flv").read_bytes() == CONTENT
    limited = await run("sh", "-c", 'ulimit -f 16; "$@"', "sh", wget, "-O", tmp_path / "2.flv", url)
    assert limited[0] == 128 + signal.SIGXFSZ
    assert (await run(wget, "--spider", "-S", url))[0] == 0
    assert origin.requests[-1].method == "HEAD"
    assert (await run(wget, "--spider", "-S", origin.url_for("none.flv")))[0] == 8


@pytest.mark.asyncio
async def test_lectern_downloads_at_its_rate_and_reads_the_errors(origin: Origin, tmp_path: Path, folder: Path) -> None:
    """A megabyte at one megabyte a second takes a second; what is not there is refused, not tried again."""
    part = tmp_path / "6666.flv.part"

    async def download(name: str) -> None:
        remote = RemoteFile(origin.url_for(name), None, None, None)
        limits = effects_wget.Limits("1m", 200, len(CONTENT))
        await effects_wget.download(str(folder / "wget"), remote, part, limits, lambda _: None)

    began = time.monotonic()
    await download("6666/6666.flv")
    assert time.monotonic() - began > 0.8
    assert part.read_bytes() == CONTENT
    part.unlink()
    with pytest.raises(Refuse, match="404"):
        await download("none.flv")


@pytest.mark.asyncio
async def test_curl_uploads_and_its_answers_are_read(origin: Origin, tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "6666.flv"
    file.write_bytes(CONTENT)

    async def put(url: str) -> None:
        put = Put("6666.flv", url, "1B2M2Y8AsgTpgAmY7PhCfg==")
        argv, given = upload.curl(str(folder / "curl"), put, str(file))
        upload.judge(put, "here", *await run(*argv, given=given))

    await put(origin.url_for("put/new.flv"))
    assert (origin.root / "put" / "new.flv").read_bytes() == CONTENT
    with pytest.raises(CallAPerson, match="are UPLOAD_URL and its key right") as raised:
        await put(origin.url_for("forbidden/new.flv"))
    assert raised.value.code is UPLOAD_FAILED
    with pytest.raises(TryAgain, match=r"could not be uploaded from here .* 000 curl: \(7\)"):
        await put(f"http://{HOST}:{free_port()}/put/x")


@pytest.mark.asyncio
async def test_ffprobe_tells_what_a_recording_is(tmp_path: Path, folder: Path) -> None:
    def argv(path: Path) -> list[str]:
        return check._probe_argv(str(folder / "ffprobe"), str(path))

    _, output, _ = await run(*argv(make_recording(tmp_path / "1.flv")))
    media = check._media_of_json(output)
    assert media is not None
    assert (media.width, media.height, media.video, media.audio) == (640, 360, "h264", "aac")
    assert media.duration_s == pytest.approx(4, abs=0.2)
    _, output, _ = await run(*argv(make_recording(tmp_path / "2.flv", video=False)))
    assert [one["codec_type"] for one in json.loads(output)["streams"]] == ["audio"]
    (tmp_path / "3.flv").write_text("<html>no</html>")
    code, output, errors = await run(*argv(tmp_path / "3.flv"))
    assert (code, check._media_of_json(output)) == (1, None)
    assert "Invalid data found" in errors
