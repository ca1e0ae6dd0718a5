"""``python -m tests.fuzz --messages 100000 --seed 7``: odd messages and odd answers, and what came of it."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tests.fuzz import kinds, verdict
from tests.fuzz import play as playing
from tests.fuzz.session import Harm, Session, living
from tests.stage import Town

ANSWERS_A_MESSAGE = 0.1
TRIES, SHOWN = 14, 10
"""Of so many messages it is said what they are; where more hurt together, their numbers are told above."""


def play(session: Session, indices: Sequence[int], answers: int, without: frozenset[str]) -> str:
    """Send and serve it all; returns what was hurt, in words, empty if nothing was."""
    done: Counter[str] = Counter()

    def tell(what: str, number: int) -> None:
        done[what] += number
        say(", ".join(f"{number:,} {what}" for what, number in done.items()))

    try:
        playing.messages(session, indices, lambda number: tell("odd messages", number), without)
        playing.places(session, answers, lambda number: tell("odd answers", number))
        session.rest()
    except AssertionError as harm:
        return f"after {done['odd messages']} messages and {session.odd_server.answered.total()} answers: {harm}"
    return ""


def say(words: str) -> None:
    """Say it at once: it takes long."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def isolate(town: Town, folder: Path, seed: int, indices: Sequence[int]) -> list[int]:
    """The fewest messages of *indices* that hurt hosts that are new."""
    turns = count()

    def hurts(some: Sequence[int]) -> bool:
        try:
            with living(town, folder / f"again{next(turns)}", seed) as session:
                playing.messages(session, some, lambda _: None)
        except Harm as harm:
            say(f"{some[0]}-{some[-1]} ({len(some)}) hurts: {str(harm).splitlines()[0]}")
            return True
        say(f"{some[0]}-{some[-1]} ({len(some)}) does not hurt")
        return False

    return smaller(indices, hurts)


def smaller(indices: Sequence[int], hurts: Callable[[Sequence[int]], bool]) -> list[int]:
    """The fewest of *indices* that still hurt, as far as halves of them and some tries tell."""
    found, tries = list(indices), TRIES
    while len(found) > 1 and tries > 0:
        middle = len(found) // 2
        for half in (found[:middle], found[middle:]):
            tries -= 1
            if hurts(half):
                found = half
                break
        else:
            break  # it takes more than one of them
    return found


def main() -> int:
    """Play one seed; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        prog="make fuzz", description="make fuzz [N=messages] [ANSWERS=answers] [SEED=seed]"
    )
    parser.add_argument("--messages", type=int, default=5_000, help="how many odd messages are sent")
    parser.add_argument(
        "--answers", type=int, default=None, help="how many odd answers servers give; a tenth by default"
    )
    parser.add_argument("--seed", type=int, default=None, help="the seed to play again; a random one by default")
    parser.add_argument("--first", type=int, default=0, help="the number of the first message")
    parser.add_argument("--without", default="", help="kinds that are left out, to look behind a known fault: a,b")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    answers = int(given.messages * ANSWERS_A_MESSAGE) if given.answers is None else given.answers
    indices = range(given.first, given.first + given.messages)
    folder = Path(tempfile.mkdtemp(prefix="lectern-fuzz-"))
    say(f"seed {seed}, {len(indices):,} odd messages, {answers:,} odd answers, in {folder}")
    began = time.monotonic()
    town = Town(folder / "town")
    try:
        town.start()
        with living(town, folder / "hosts", seed) as session:
            harm = play(session, indices, answers, frozenset(given.without.split(",")))
            wrong = [harm] if harm else verdict.complaints(session)
            took_s = time.monotonic() - began
            for line in (*verdict.kinds(session), *verdict.lines(session, took_s), *verdict.summary(wrong)):
                say(line)
            portion = [one for one in session.suspects() if one in indices] if harm else []
        if portion:
            for index in isolate(town, folder, seed, portion)[:SHOWN]:
                say(kinds.shown(kinds.drawn(session.here, index)))
    finally:
        town.stop()
    if not wrong:
        shutil.rmtree(folder)
        return 0
    again = f"make fuzz N={given.messages} ANSWERS={answers} SEED={seed}"
    say(f"Play it again: {again}. Logs and databases: {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
