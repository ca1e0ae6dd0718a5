"""Two teachers on one PostgreSQL, one of them killed or stopped at a few of the points: another few for each commit."""

import sys

import pytest

from tests.faults.teachers.cases import SETTINGS, Case, chosen
from tests.faults.teachers.play import Play
from tests.stage import Town, staged
from tests.stage.postgres import Databases

pytestmark = pytest.mark.live
NUMBER, BOOKINGS = 2, 400
ALWAYS = Case("claimed, not handled", "kill", "channel", ("teacher2",))


def test_whoever_is_struck_every_class_is_answered_once(
    town: Town,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: Databases,
    capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    seed = int(pytestconfig.getoption("--seed"))
    settings = {**SETTINGS, "TEACHER_DATABASE_URL": postgresql.fresh()}
    with staged(town, tmp_path_factory.mktemp("stage"), **settings) as stage:
        play = Play(stage, seed)
        for case in [ALWAYS, *(one for one in chosen(NUMBER, seed) if one != ALWAYS)]:
            outcome = play.play(case, BOOKINGS)
            with capsys.disabled():
                sys.stdout.write(f" [{outcome.line()}] ")
            again = f"play it again: make faults-teachers CASES={NUMBER} N={BOOKINGS} SEED={seed}"
            assert outcome.faults == [], f"{outcome.line()}; {again}"
