"""``python -m tests.faults --classes 200 --seed 7``: a day with faults, and what came of it in one line."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.day import day
from tests.faults.judge import Verdict, judge
from tests.faults.play import Play
from tests.faults.world import World
from tests.stage import Town

CLASSES_A_LOSS = 20
"""Of so many classes one is on air on a streamer that is lost."""

LOSSES = 2
"""At least so many times, for at least one of them is no kill: then its push goes on until its lease has run out."""


def suffer(town: Town, folder: Path, seed: int, classes: int, *, losses: int | None = None) -> Verdict:
    """Play the day of *seed* in *town*, and judge it all."""
    played = day(seed, classes, max(LOSSES, classes // CLASSES_A_LOSS) if losses is None else losses)
    world = World(town, folder, played.cached)
    try:
        play = Play(world, played, _say)
        world.open(play.day)
        play.run()
        return judge(play)
    finally:
        world.close()


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def main() -> int:
    """Play one day; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="make faults", description="make faults [N=classes] [SEED=seed]")
    parser.add_argument("--classes", type=int, default=60, help="how many classes are booked")
    parser.add_argument("--seed", type=int, default=None, help="the day to play again; a random one by default")
    parser.add_argument("--losses", type=int, default=None, help="how many classes on air lose their streamer")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="lectern-faults-"))
    began = time.monotonic()
    _say(f"seed {seed}, {given.classes} classes, in {folder}")
    (folder / "day").mkdir()
    with Town(folder / "town", durable=True) as town:
        verdict = suffer(town, folder / "day", seed, given.classes, losses=given.losses)
    load = os.getloadavg()[2] / (os.cpu_count() or 1)
    for complaint in verdict.complaints():
        _say(complaint)
    sys.stdout.write(f"{verdict.line()} ({time.monotonic() - began:.0f} s, load {load:.1f})\n")
    if not verdict.complaints():
        shutil.rmtree(folder)
        return 0
    _say(f"Play it again: make faults N={given.classes} SEED={seed}. Logs and databases: {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
