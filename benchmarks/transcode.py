"""What our own transcoding costs: the whole job beside the bare commands, two renditions at once beside two jobs."""

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks import recording
from benchmarks.figures import Figure
from benchmarks.recording import run
from benchmarks.stand import Stand
from lectern.ecs import detached, ssh, transcode
from lectern.ecs.transcode import Job, JobReport
from lectern.media import ffmpeg
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from town import sshd
from town.origin import Origin

WHAT = (
    "a recording at 720P becomes one at 480P on an ECS host: this machine, by an SSH server of its own on loopback. The"
    " bare commands are those that a person would type there: wget, ffprobe, ffmpeg, ffprobe, curl. The whole job has"
    " on top of them the login, the look at the origin before and after, a program that survives us, the output's MD5,"
    " the look at what was uploaded, and the cleaning up. *Two at once*: 480P and 240P in one job, beside a job for"
    " each"
)
P480, P240 = Resolution.P480, Resolution.P240
TURNS = 2
"""In each round: one take differs from the next by more than what is looked for."""

NEEDED = ("ffmpeg", "ffprobe", "wget", "curl")
PROBE = ("ffprobe", "-v", "error", "-show_entries", "stream:format=duration", "-of", "json")

Way = Callable[[], Coroutine[Any, Any, None]]


class Bench:
    """The host and the origin that all rounds share."""

    def __init__(self, folder: Path, origin: Origin, server: sshd.SshServer) -> None:
        self.folder, self.origin, self.server = folder, origin, server
        self._attempts = 0

    async def bare(self, wanted: Sequence[Resolution]) -> None:
        """The commands that a person would type."""
        await asyncio.to_thread(self._typed, wanted)

    def _typed(self, wanted: Sequence[Resolution]) -> None:
        source = self.folder / "source.flv"
        sizes = [(one, *ffmpeg.fitted_size(1280, 720, one)) for one in wanted]
        outputs = [ffmpeg.Output(str(self.folder / f"{one}.flv"), one, width, height) for one, width, height in sizes]
        run("wget", "-q", "-O", str(source), self.origin.url_for("6666/6666.flv"))
        run(*PROBE, str(source))
        run(*ffmpeg.encode_argv("ffmpeg", str(source), outputs))
        for output in outputs:
            run(*PROBE, output.path)
            run("curl", "-sf", "-T", output.path, self.origin.url_for(f"put/{Path(output.path).name}"))

    async def whole(self, wanted: Sequence[Resolution]) -> None:
        """The job as a teacher does it."""
        self._attempts += 1
        job = Job(
            record_id=6666,
            attempts=(self._attempts,),
            source_url=self.origin.url_for("6666/6666.flv"),
            wanted=tuple(wanted),
            begun_at=time.time(),
            limit_s=lambda _: recording.COMMAND_S,
            settings=TeacherSettings.load(
                transcode_sign_key=SecretStr("secret"),
                upload_url=self.origin.url_for("put"),
                public_url=self.origin.url_for("put"),
                allowed_origins="127.0.0.1",
                ecs_work_root=str(self.folder / "work"),
            ),
        )
        host = ssh.SshHost.parse(self.server.url)
        async with ssh.connect(host, self.server.client_key, self.server.known_hosts, timeout_s=60) as connection:
            outcome = await transcode.transcode(connection, job, JobReport())
            assert outcome.error is None, outcome.error
            await detached.leave(connection, job.settings.ecs_work_root, job.name)

    async def two_jobs(self) -> None:
        """One after the other."""
        await self.whole([P480])
        await self.whole([P240])


def measure(stand: Stand) -> Iterator[Figure]:
    """All ways, in turns."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    assert not missing, f"there is no {', '.join(missing)} on the PATH"
    seconds = 10 if stand.quick else 60
    found = asyncio.run(_measured(stand, stand.folder(), seconds))
    note = f"{seconds} s of 720P, the best of {stand.rounds * TURNS}"
    bare, two = {"bare commands": found["bare"]}, {"a job for each": found["two"]}
    yield Figure("transcode", "s", found["whole"], bare, more_is_better=False, goal="<= 1.03 of bare", note=note)
    yield Figure("transcode, two at once", "s", found["both"], two, more_is_better=False, goal="<= 0.75 of two")


async def _measured(stand: Stand, folder: Path, seconds: int) -> dict[str, float]:
    """The best seconds of each way."""
    times: dict[str, list[float]] = {}
    # What this user's shell does first is not of interest: on some machines it takes longer than all the rest.
    at_home = sshd.SshServer(folder / "ssh", environment={"HOME": str(folder)})
    async with Origin(folder / "origin") as origin, at_home as server:
        await asyncio.to_thread(recording.make, origin.root / "6666" / "6666.flv", seconds)
        bench = Bench(folder, origin, server)
        ways: dict[str, Way] = {
            "bare": lambda: bench.bare([P480]),
            "whole": lambda: bench.whole([P480]),
            "both": lambda: bench.whole([P480, P240]),
            "two": bench.two_jobs,
        }
        await bench.whole([P240])  # what is loaded the first time
        for _ in range(stand.rounds * TURNS):
            for name, way in ways.items():
                began = time.perf_counter()
                await way()
                times.setdefault(name, []).append(time.perf_counter() - began)
                stand.say(f"transcode of {seconds} s, {name}: {times[name][-1]:.2f} s")
    return {name: min(all_) for name, all_ in times.items()}
