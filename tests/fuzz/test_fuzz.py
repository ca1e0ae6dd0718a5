"""Odd messages and odd answers of servers hurt nobody but themselves."""

from collections.abc import Iterator

import pytest

from tests.fuzz import kinds, play, verdict
from tests.fuzz.session import Harm, Session, living
from tests.stage import Town

pytestmark = pytest.mark.night
SEED = 1
MESSAGES, ANSWERS = 300, 60


@pytest.fixture(scope="module")
def session(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A teacher and a streamer that both tests speak to."""
    with living(town, tmp_path_factory.mktemp("fuzz"), SEED) as found:
        yield found


def test_every_good_booking_among_odd_messages_is_answered_its_one_way(session: Session) -> None:
    """No process ends, and no host says that it is ready while it takes nothing."""
    try:
        play.messages(session, range(MESSAGES), lambda _: None)
    except Harm as harm:
        again = f"make fuzz N={MESSAGES} SEED={SEED} names the message; it is among {session.suspects()}"
        raise AssertionError(f"{harm}\n{again}") from harm
    session.rest()
    assert verdict.complaints(session) == []
    assert sum(session.ledger.letters.values()) > MESSAGES / 3


def test_every_good_booking_among_odd_answers_of_servers_is_answered_its_one_way(session: Session) -> None:
    """Classes at odd places are answered, too; odd rows beside the streamers' own are no streamers."""
    play.places(session, ANSWERS, lambda _: None)
    session.rest()
    assert verdict.complaints(session) == []
    assert session.odd_server.answered.total() >= ANSWERS


def test_the_same_seed_draws_the_same(session: Session) -> None:
    """Whatever was drawn before; but for the times, which are counted from now."""
    kind_of = {index: kinds.drawn(session.here, index).kind for index in (7, 3, 5)}
    assert kind_of == {index: kinds.drawn(session.here, index).kind for index in (3, 5, 7)}
    alone = [kinds.drawn(session.here, index) for index in range(100)]
    assert {one.index: one.sendings for one in alone if one.kind == "noise"}.items() <= {
        index: kinds.drawn(session.here, index).sendings for index in range(200)
    }.items()
