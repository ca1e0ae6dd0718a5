"""``python -m tests.fuzz --messages 100000 --seed 7``: odd messages, and what came of them."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.session import Harm, living
from tests.stage import Town

SHOWN = 10


def say(words: str) -> None:
    """Say it at once: it takes long."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def main() -> int:
    """Play one seed; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="make fuzz [N=messages] [SEED=seed]")
    parser.add_argument("--messages", type=int, default=5_000, help="how many odd messages are sent")
    parser.add_argument("--seed", type=int, default=None, help="the seed to play again; a random one by default")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="lectern-fuzz-"))
    say(f"seed {seed}, {given.messages:,} odd messages, in {folder}")
    began = time.monotonic()
    with Town(folder / "town") as town, living(town, folder / "hosts", seed) as session:
        try:
            session.odd(range(given.messages), lambda number: say(f"{number:,} odd messages"))
            session.rest()
            wrong = session.complaints()
        except Harm as harm:
            suspects = session.suspects()
            wrong = [f"{harm}", f"It is among the messages {suspects[0]} to {suspects[-1]}." if suspects else ""]
        answers = sum(map(len, session.ledger.answers.values()))
        say(f"{answers:,} answers, {session.ledger.letters:,} dead letters, {time.monotonic() - began:.0f} s")
        for line in wrong[:SHOWN]:
            say(line)
    if not wrong:
        shutil.rmtree(folder)
        return 0
    say(f"Play it again: make fuzz N={given.messages} SEED={seed}. Logs and databases: {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
