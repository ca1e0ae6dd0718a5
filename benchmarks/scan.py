"""What the look at the disk costs when a streamer starts, beside du."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import streamer
from benchmarks.figures import Figure, growth, in_turns
from benchmarks.stand import Stand
from flows.streamer.maintenance import reconciled
from lectern.states import Resolution
from lectern.storage import cache_dir

WHAT = (
    "files of renditions lie in a folder, five a record. *disk*: they are found, told from what is unknown, and"
    " measured. *all*: they are compared with as many rows of the database, too, and all sums and citations are counted"
    " anew, as at each start. The peer is `du -sb` of the folder. The first look at it is not counted"
)


def measure(stand: Stand) -> Iterator[Figure]:
    """The three, in turns, at each size."""
    figures: list[Figure] = []
    for number in (1000, 10_000) if stand.quick else (1000, 10_000, 100_000):
        found = _measured(stand, number)
        peers = {"du": found["du"]}
        for what in ("disk", "all"):
            row = f"scan, {number:,}: {what}"
            goal = "<= 5 x du" if what == "all" else ""
            figures.append(Figure(row, "s", found[what], peers, more_is_better=False, goal=goal, size=number))
            yield figures[-1]
    yield growth("scan: growth of all", figures[1::2])


def _measured(stand: Stand, number: int) -> dict[str, float]:
    """The best seconds of each."""
    folder = stand.folder()
    with streamer.host(folder, number) as host:
        root = host.settings.video_root
        stems = _files(root, number)
        streamer.fill(host, stems)

        def everything() -> None:
            assert asyncio.run(reconciled(host)) == [], "disk and database should agree"

        ways: dict[str, Callable[[], object]] = {
            "du": lambda: subprocess.run(["du", "-sb", str(root)], check=True, capture_output=True, timeout=600),
            "disk": lambda: cache_dir.scan(root),
            "all": everything,
        }
        in_turns(ways, 1)
        found = in_turns(ways, stand.rounds)
    stand.say(f"scan of {number:,}: " + ", ".join(f"{name} {value:.3f} s" for name, value in found.items()))
    return found


def _files(root: Path, number: int) -> list[str]:
    """So many files of SIZE_BYTES; returns their stems."""
    names = ["", *(f"_{one}" for one in Resolution)]
    stems: list[str] = []
    for record in range(1, number // len(names) + 1):
        folder = root / str(record)
        folder.mkdir()
        for name in names:
            (folder / f"{record}{name}.flv").write_bytes(bytes(streamer.SIZE_BYTES))
            stems.append(f"{record}{name}")
    return stems
