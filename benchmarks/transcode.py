"""What our own transcoding costs: the whole job beside the bare commands, two renditions at once beside two runs.

    .venv/bin/python benchmarks/ecs.py [--json FILE] [--rounds N] [--seconds N]

The host is this machine, by an sshd of its own on loopback; source and uploads are on an origin on loopback. The bare
commands are those that a person would type there: wget, ffprobe, ffmpeg, ffprobe, curl. The whole job has on top of
them the login, the look at the origin before and after, a program that survives us, the check of the output's last
second, its MD5, the look at what was uploaded, and the cleaning up. All take turns; the table shows the best of each,
and the ratios of the bests. Run it on an idle machine.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lectern.demo import sshd
from lectern.demo.origin import Origin
from lectern.effects import ecs, ffmpeg, ssh
from lectern.effects.ecs_job import Job, Report
from lectern.effects.origin import Allowed
from lectern.effects.upload import Target
from lectern.states import Resolution

P480, P240 = Resolution.P480, Resolution.P240
GOALS = {"whole job / bare commands": 1.03, "two at once / two runs": 0.75}


def record(path: Path, seconds: int) -> None:
    """A recording of 1280x720, 25 frames a second, 1.5 Mbit/s, with sound."""
    sources = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-f", "lavfi", "-i", "sine=frequency=440")
    codecs = ("-c:v", "libx264", "-preset", "veryfast", "-b:v", "1500k", "-g", "50", "-c:a", "aac", "-b:a", "64k")
    run("ffmpeg", "-v", "error", "-nostdin", "-y", *sources, "-t", str(seconds), *codecs, "-f", "flv", str(path))


def run(*argv: str) -> None:
    """One bare command."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Bench:
    """The host and the origin that all rounds share."""

    def __init__(self, folder: Path, origin: Origin, server: sshd.SshServer) -> None:
        self.folder, self.origin, self.server = folder, origin, server
        self._attempts = 0

    async def bare(self, wanted: Sequence[Resolution]) -> None:
        """The commands that a person would type."""
        source = self.folder / "source.flv"
        sizes = [(one, *ffmpeg.fitted_size(1280, 720, one)) for one in wanted]
        outputs = [ffmpeg.Output(str(self.folder / f"{one}.flv"), one, width, height) for one, width, height in sizes]
        probe = ("ffprobe", "-v", "error", "-show_entries", "stream:format=duration", "-of", "json")

        def typed() -> None:
            run("wget", "-q", "-O", str(source), self.origin.url_for("6666/6666.flv"))
            run(*probe, str(source))
            run(*ffmpeg.encode_argv("ffmpeg", str(source), outputs))
            for output in outputs:
                run(*probe, output.path)
                run("curl", "-sf", "-T", output.path, self.origin.url_for(f"put/{Path(output.path).name}"))

        await asyncio.to_thread(typed)

    async def whole(self, wanted: Sequence[Resolution]) -> None:
        """The job as a teacher does it."""
        self._attempts += 1
        job = Job(
            record_id=6666,
            attempts=(self._attempts,),
            source_url=self.origin.url_for("6666/6666.flv"),
            wanted=tuple(wanted),
            target=Target(self.origin.url_for("put"), self.origin.url_for("put")),
            begun_at=time.time(),
            limit_s=lambda _: 3600.0,
            allowed=Allowed.parse("127.0.0.1"),
            work_root=str(self.folder / "work"),
        )
        host = ssh.Host.parse(self.server.url)
        async with ssh.connect(host, self.server.client_key, self.server.known_hosts, timeout_s=15) as connection:
            outcome = await ecs.transcode(connection, job, Report())
            assert not outcome.missed, outcome.missed
            await ecs.leave(connection, job.work_root, job.name)


async def timed(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Seconds that *work* takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def measure(folder: Path, seconds: int, rounds: int) -> dict[str, list[float]]:
    """Each way, *rounds* times, in turns."""
    found: dict[str, list[float]] = {}
    # What this user's shell does first is not of interest: on some machines it takes longer than all the rest.
    sshd._CONFIG += f"SetEnv HOME={folder}\n"
    async with Origin(folder / "origin") as origin, sshd.SshServer(folder / "ssh") as server:
        source = origin.root / "6666" / "6666.flv"
        source.parent.mkdir()
        record(source, seconds)
        bench = Bench(folder, origin, server)

        async def two_runs() -> None:
            await bench.whole([P480])
            await bench.whole([P240])

        ways: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "bare commands, 480P": lambda: bench.bare([P480]),
            "whole job, 480P": lambda: bench.whole([P480]),
            "whole job, 480P and 240P at once": lambda: bench.whole([P480, P240]),
            "whole jobs, 480P, then 240P": two_runs,
        }
        await bench.whole([P240])  # what is loaded the first time
        for _ in range(rounds):
            for name, way in ways.items():
                found.setdefault(name, []).append(await timed(way))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    missing = [name for name in ("ffmpeg", "ffprobe", "wget", "curl") if shutil.which(name) is None]
    if missing:
        sys.exit(f"apt-get install ffmpeg wget curl: there is no {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), given.seconds, given.rounds))
    best = {name: min(times) for name, times in found.items()}
    bare, whole, both, two = best.values()
    ratios = {"whole job / bare commands": whole / bare, "two at once / two runs": both / two}
    table = Table("what", "best s", "all s", title=f"ECS transcoding of {given.seconds} s at 720P")
    for name, times in found.items():
        table.add_row(name, f"{best[name]:.2f}", " ".join(f"{one:.2f}" for one in times))
    for name, ratio in ratios.items():
        table.add_row(name, f"{ratio:.3f}", f"goal {GOALS[name]}")
    Console().print(table)
    if given.json:
        given.json.write_text(json.dumps({"seconds": found, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
