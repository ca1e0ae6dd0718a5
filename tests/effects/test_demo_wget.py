"""The demo's wget beside the real one: the same arguments, files and exit codes."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lectern.demo import wget
from lectern.demo.faults import Fault
from lectern.demo.origin import Origin
from lectern.demo.ports import HOST, free_port
from lectern.effects import wget as effects_wget
from lectern.errors import Refuse

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest_asyncio.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Origin]:
    async with Origin(tmp_path / "origin") as server:
        (server.root / "6666").mkdir()
        (server.root / "6666" / "6666.flv").write_bytes(CONTENT)
        yield server


async def run_wget(command: Path | str, *arguments: str, given: str = "") -> int:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        str(command), *arguments, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    await asyncio.wait_for(process.communicate(given.encode()), 15)
    assert process.returncode is not None
    return process.returncode


@pytest.fixture(params=["shim", "system"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "shim":
        return wget.write_shim(tmp_path / "bin" / "wget")
    if not Path("/usr/bin/wget").exists():
        pytest.skip("there is no wget on this machine: only the shim is checked")
    return Path("/usr/bin/wget")


@pytest.mark.asyncio
async def test_wget_resumes_and_exits_like_wget(origin: Origin, tmp_path: Path, command: Path) -> None:
    """The shim and the real wget do the same: resume by Range, leave complete files alone, exit 0, 4 or 8."""
    file, url = tmp_path / "6666.flv.part", origin.url_for("6666/6666.flv")
    usual = ("-c", "-nv", "--tries=2", "--timeout=5", "--max-redirect=3", "--header=X-A: b", "-O", str(file))
    assert await run_wget(command, *usual, url) == 0
    assert file.read_bytes() == CONTENT
    assert await run_wget(command, *usual, url) == 0
    file.write_bytes(CONTENT[:1000])
    assert await run_wget(command, *usual, "--limit-rate=100m", url) == 0
    assert file.read_bytes() == CONTENT
    assert origin.requests[-1].range == "bytes=1000-"
    file.unlink()
    origin.faults.add(Fault("*", times=1, truncate_bytes=5000))
    assert await run_wget(command, *usual, url) == 0
    assert file.read_bytes() == CONTENT
    assert origin.requests[-1].range == "bytes=5000-"
    assert await run_wget(command, *usual, origin.url_for("none.flv")) == 8
    assert await run_wget(command, *usual, f"http://{HOST}:{free_port()}/") == 4
    file.unlink()
    origin.faults.add(Fault("*", times=1, truncate_bytes=5000))
    assert await run_wget(command, *usual, "--tries=1", url) == 4
    assert file.read_bytes() == CONTENT[:5000]


@pytest.mark.asyncio
async def test_wget_looks_whether_a_file_is_there(origin: Origin, tmp_path: Path, command: Path) -> None:
    """By its head; nothing is kept."""
    assert await run_wget(command, "--spider", "-S", origin.url_for("6666/6666.flv")) == 0
    assert origin.requests[-1].method == "HEAD"
    assert await run_wget(command, "--spider", "-S", origin.url_for("none.flv")) == 8
    assert not Path("6666.flv").exists()


@pytest.mark.asyncio
async def test_wget_escapes_what_has_no_place_in_a_url(origin: Origin, tmp_path: Path, command: Path) -> None:
    name = 'it\'s a "lesson"/$(touch x); -O /1.flv'
    (origin.root / name).parent.mkdir(parents=True)
    (origin.root / name).write_bytes(CONTENT)
    assert await run_wget(command, "-O", str(tmp_path / "1.flv"), f"{origin.url}/{name}") == 0
    assert (tmp_path / "1.flv").read_bytes() == CONTENT


@pytest.mark.asyncio
async def test_wget_is_ended_by_a_file_that_grows_too_large(origin: Origin, tmp_path: Path, command: Path) -> None:
    script = ["-c", 'ulimit -f 16; "$@"', "sh", str(command), "-O", str(tmp_path / "1.flv")]
    assert await run_wget("sh", *script, origin.url_for("6666/6666.flv")) == 128 + signal.SIGXFSZ


@pytest.mark.asyncio
async def test_wget_takes_a_url_that_no_command_line_shows_and_sends_files(
    origin: Origin, tmp_path: Path, command: Path
) -> None:
    """As the uploads from an ECS host without curl ask for it."""
    file = tmp_path / "6666.flv"
    url = f"{origin.url_for('6666/6666.flv')}\n"
    assert await run_wget(command, "-nv", "-O", str(file), "--input-file=-", given=url) == 0
    assert file.read_bytes() == CONTENT
    put = ("-nv", "-S", "--tries=1", "--method=PUT", f"--body-file={file}", "-O", "-", "--input-file=-")
    assert await run_wget(command, *put, given=f"{origin.url_for('put/new.flv')}\n") == 0
    assert (origin.root / "put" / "new.flv").read_bytes() == CONTENT
    assert await run_wget(command, *put, given=f"{origin.url_for('forbidden/new.flv')}\n") == 8
    assert await run_wget(command, *put, given=f"http://{HOST}:{free_port()}/put/x\n") == 4


@pytest.mark.asyncio
async def test_wget_keeps_to_its_rate(origin: Origin, tmp_path: Path, command: Path) -> None:
    """A megabyte at one megabyte a second takes a second."""
    began = time.monotonic()
    assert (
        await run_wget(command, "-q", "--limit-rate=1m", "-O", str(tmp_path / "x"), origin.url_for("6666/6666.flv"))
        == 0
    )
    assert time.monotonic() - began > 0.8


@pytest.mark.asyncio
async def test_lectern_downloads_with_the_shim_as_with_wget(origin: Origin, tmp_path: Path, command: Path) -> None:
    """Its arguments are known, its errors are read: what is not there is refused, not tried again."""
    part = tmp_path / "6666.flv.part"

    async def download(name: str) -> None:
        await effects_wget.download(
            str(command),
            origin.url_for(name),
            part,
            rate="100m",
            timeout_s=15,
            limit_bytes=len(CONTENT),
            on_progress=lambda _: None,
        )

    await download("6666/6666.flv")
    assert part.read_bytes() == CONTENT
    part.unlink()
    with pytest.raises(Refuse, match="404"):
        await download("none.flv")
