"""``python -m tests.faults.teachers --cases 84 --bookings 2000``: the whole matrix, a line a case."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.teachers.cases import SETTINGS, cases, chosen
from tests.faults.teachers.outcome import Outcome
from tests.faults.teachers.play import Play
from tests.stage import Town, staged
from tests.stage.postgres import Databases, postgres_server


def main() -> int:
    """Play them; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="make faults-teachers", description="make faults-teachers [CASES=] [N=]")
    parser.add_argument("--cases", type=int, default=len(cases()), help="how many of the cases are played")
    parser.add_argument("--bookings", type=int, default=2000, help="how many classes are booked in each")
    parser.add_argument("--seed", type=int, default=None, help="the order to play again; a random one by default")
    parser.add_argument("--only", default="", help="play those cases alone whose line has this text")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="lectern-teachers-"))
    sys.stderr.write(f"seed {seed}, {given.bookings} bookings a case, in {folder}\n")
    wanted = [one for one in chosen(len(cases()), seed) if given.only in str(one)][: given.cases]
    found: list[Outcome] = []
    (folder / "stage").mkdir()
    with Town(folder / "town") as town, postgres_server() as url:
        settings = {**SETTINGS, "TEACHER_DATABASE_URL": Databases(url).fresh()}
        with staged(town, folder / "stage", **settings) as stage:
            play = Play(stage, seed)
            for number, case in enumerate(wanted, 1):
                began = time.monotonic()
                found.append(play.play(case, given.bookings))
                took = time.monotonic() - began
                sys.stdout.write(f"{number}/{len(wanted)} ({took:.0f} s) {found[-1].line()}\n")
                sys.stdout.flush()
    wrong = sum(bool(one.faults) for one in found)
    sys.stdout.write(f"{len(found)} cases, {wrong} not as they must be\n")
    if not wrong:
        shutil.rmtree(folder)
        return 0
    again = f"make faults-teachers CASES={given.cases} N={given.bookings} SEED={seed}"
    sys.stderr.write(f"Play it again: {again}. Logs: {folder}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
