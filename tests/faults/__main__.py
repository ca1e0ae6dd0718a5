"""``python -m tests.faults --classes 200 --seed 7``: a day with faults, and what came of it in one line."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.day import day
from tests.faults.judge import Verdict, judge
from tests.faults.play import Play
from tests.faults.world import World
from tests.stage import Town


def suffer(town: Town, folder: Path, seed: int, classes: int) -> Verdict:
    """Play the day of *seed* in *town*, and judge it."""
    world = World(town, folder)
    try:
        play = Play(world, day(seed, classes), _say)
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
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="lectern-faults-"))
    began = time.monotonic()
    _say(f"seed {seed}, {given.classes} classes, in {folder}")
    town = Town(folder / "town", durable=True)
    try:
        (folder / "day").mkdir()
        town.start()
        verdict = suffer(town, folder / "day", seed, given.classes)
    finally:
        town.stop()
    for complaint in verdict.complaints():
        _say(complaint)
    sys.stdout.write(f"{verdict.line()} ({time.monotonic() - began:.0f} s)\n")
    if not verdict.faultless:
        _say(f"Play it again: make faults N={given.classes} SEED={seed}. Logs and databases: {folder}")
    return 0 if verdict.faultless else 1


if __name__ == "__main__":
    sys.exit(main())
