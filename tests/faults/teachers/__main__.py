"""``python -m tests.faults.teachers --cases 84 --bookings 2000``: the whole matrix, a line a case."""

import sys
import time
from argparse import Namespace
from pathlib import Path

from tests.faults.again import played
from tests.faults.teachers.cases import SETTINGS, cases, chosen
from tests.faults.teachers.play import Play
from tests.stage import Town, staged
from tests.stage.postgres import Databases, postgres_server


def _play(given: Namespace, folder: Path) -> list[str]:
    wanted = [one for one in chosen(len(cases()), given.seed) if given.only in str(one)][: given.cases]
    (folder / "stage").mkdir()
    wrong: list[str] = []
    with Town(folder / "town") as town, postgres_server() as url:
        settings = {**SETTINGS, "TEACHER_DATABASE_URL": Databases(url).fresh()}
        with staged(town, folder / "stage", **settings) as stage:
            play = Play(stage, given.seed)
            for number, case in enumerate(wanted, 1):
                began, found = time.monotonic(), play.play(case, given.bookings)
                took = time.monotonic() - began
                sys.stdout.write(f"{number}/{len(wanted)} ({took:.0f} s) {found.line()}\n")
                sys.stdout.flush()
                wrong += [found.line()] if found.faults else []
    return wrong


if __name__ == "__main__":
    number = len(cases()), "how many of the cases are played"
    bookings = 2000, "how many classes are booked in each"
    only = "", "play those cases alone whose line has this text"
    sys.exit(played("tests.faults.teachers", _play, cases=number, bookings=bookings, only=only))
