"""``python -m tests.fuzz --messages 100000 --seed 7``: odd messages and odd answers, and a table of what came of it."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.fuzz import kinds, verdict
from tests.fuzz import play as playing
from tests.fuzz.session import Harm, Session, living
from tests.fuzz.smaller import smaller
from tests.stage import Town

ANSWERS_A_MESSAGE = 0.1
SHOWN = 10
"""Of so many messages it is said what they are; where more hurt together, their numbers are told above."""


def play(session: Session, indices: Sequence[int], answers: int, without: frozenset[str], console: Console) -> str:
    """Send and serve it all; returns what was hurt, in words, empty if nothing was."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=1) as progress:
        messages = progress.add_task("odd messages", total=len(indices))
        served = progress.add_task("odd answers", total=answers)
        try:
            playing.messages(session, indices, lambda number: progress.advance(messages, number), without)
            playing.places(session, answers, lambda number: progress.advance(served, number))
            session.rest()
        except AssertionError as harm:
            done = int(progress.tasks[0].completed)
            return f"after {done} messages and {session.odd_server.answered.total()} answers: {harm}"
    return ""


def isolate(town: Town, folder: Path, seed: int, indices: Sequence[int], console: Console) -> list[int]:
    """The fewest messages of *indices* that hurt hosts that are new."""
    turns = count()

    def hurts(some: Sequence[int]) -> bool:
        try:
            with living(town, folder / f"again{next(turns)}", seed) as session:
                playing.messages(session, some, lambda _: None)
        except Harm as harm:
            console.print(f"{some[0]}-{some[-1]} ({len(some)}) hurts: {str(harm).splitlines()[0]}", markup=False)
            return True
        console.print(f"{some[0]}-{some[-1]} ({len(some)}) does not hurt", markup=False)
        return False

    return smaller(indices, hurts)


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
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"seed {seed}, {len(indices):,} odd messages, {answers:,} odd answers, in {folder}", markup=False)
    began = time.monotonic()
    town = Town(folder / "town")
    try:
        town.start()
        with living(town, folder / "hosts", seed) as session:
            harm = play(session, indices, answers, frozenset(given.without.split(",")), console)
            wrong = [harm] if harm else verdict.complaints(session)
            console.print(verdict.table(session))
            for line in [*verdict.lines(session, time.monotonic() - began), *verdict.summary(wrong)]:
                console.print(line, markup=False, highlight=False)
            portion = [one for one in session.suspects() if one in indices] if harm else []
        if portion:
            for index in isolate(town, folder, seed, portion, console)[:SHOWN]:
                console.print(kinds.shown(kinds.drawn(session.here, index)), markup=False, highlight=False)
    finally:
        town.stop()
    if not wrong:
        shutil.rmtree(folder)
        return 0
    again = f"make fuzz N={given.messages} ANSWERS={answers} SEED={seed}"
    console.print(f"Play it again: {again}. Logs and databases: {folder}", markup=False)
    return 1


if __name__ == "__main__":
    sys.exit(main())
