"""``python -m tests.faults --classes 200 --seed 7``: a day with faults, and what came of it in one line."""

import sys
from argparse import Namespace
from pathlib import Path

from tests.faults.again import played, say
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
    drawn = day(seed, classes, max(LOSSES, classes // CLASSES_A_LOSS) if losses is None else losses)
    world = World(town, folder, drawn.cached)
    try:
        play = Play(world, drawn, say)
        world.open(play.day)
        play.run()
        return judge(play)
    finally:
        world.close()


def _play(given: Namespace, folder: Path) -> list[str]:
    (folder / "day").mkdir()
    with Town(folder / "town", durable=True) as town:
        verdict = suffer(town, folder / "day", given.seed, given.classes, losses=given.losses)
    sys.stdout.write(f"{verdict.line()}\n")
    return verdict.complaints()


if __name__ == "__main__":
    losses = None, "how many classes on air lose their streamer"
    sys.exit(played("tests.faults", _play, classes=(60, "how many classes are booked"), losses=losses))
