"""``python -m tests.fuzz --messages 100000 --seed 7``: odd messages, and what came of them."""

import sys
from argparse import Namespace
from pathlib import Path

from tests.faults.again import played, say
from tests.fuzz.session import living
from tests.stage import Town


def _play(given: Namespace, folder: Path) -> list[str]:
    with Town(folder / "town") as town, living(town, folder / "hosts", given.seed) as session:
        wrong = session.play(given.messages, lambda number: say(f"{number:,} odd messages"))
        say(f"{sum(map(len, session.answers.values())):,} answers, {session.letters:,} dead letters")
    return wrong[:10]


if __name__ == "__main__":
    sys.exit(played("tests.fuzz", _play, messages=(5_000, "how many odd messages are sent")))
