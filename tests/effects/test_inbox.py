"""How a run names the messages that it handles, and how they are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from flows.host import TeacherHost
from lectern.db import inbox, outbox
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.outbox import Refusal, Rest
from lectern.errors import Misuse
from lectern.wire import outgoing
from tests.rows import commit


@given(st.lists(st.integers(1, 10**9), unique=True, max_size=200).map(sorted))
def test_what_is_spelled_is_read_again(ids: list[int]) -> None:
    assert inbox.parse_id_ranges(inbox.format_id_ranges(ids)) == ids


def test_ids_are_read_as_a_person_writes_them_and_a_whole_batch_is_a_few_characters() -> None:
    assert [inbox.parse_id_ranges(one) for one in ("", " 3 , 5-6 ", "3-5,4")] == [[], [3, 5, 6], [3, 4, 5]]
    assert inbox.format_id_ranges(range(17, 5017)) == "17-5016"


ODD = ["x", "3-", "-3", "3--4", "3,,4", "3.5", "[3, 4]", "²", "9-3"]
REFUSED = dict.fromkeys(ODD, "Write for example 3-7,9")
REFUSED |= dict.fromkeys(["1-100000000000", "1-60000,1-60000"], "more than 100000 ids")


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_id_or_more_than_any_batch_has_is_misuse(text: str) -> None:
    with pytest.raises(Misuse, match=REFUSED[text]):
        inbox.parse_id_ranges(text)


DAY_S = 86_400.0
NOW = 1_764_010_000.0


def test_claimed_messages_are_numbered_on_and_nobody_else_claims_them(teacher: TeacherHost) -> None:
    """What came may have been kept by the round before: no messages are kept as none."""

    def arrived(*bodies: str) -> list[ReceivedMessage]:
        return [ReceivedMessage("channel:order", "order", body) for body in bodies]

    with transaction(teacher.engine) as connection:
        inbox.keep(connection, arrived("a", "b"), NOW)
        found = inbox.keep_claimed(connection, arrived("c", "d"), NOW, 60)
        assert inbox.keep_claimed(connection, [], NOW, 60) == []
        inbox.keep(connection, arrived("e"), NOW)
        assert [(one.id, one.body, one.tries) for one in found] == [(3, "c", 0), (4, "d", 0)]
        assert inbox.read(connection, [3, 4]) == found
        due = inbox.claim(connection, ["order"], limit=9, lease_s=60, now=NOW)
        assert [(one.id, one.body) for one in due] == [(1, "a"), (2, "b"), (5, "e")]


def test_a_clock_that_is_set_back_by_a_day_keeps_no_message_waiting_for_a_day(either_engine: Engine) -> None:
    """It was put off for seconds by the clock of before: a host may begin with a wrong one."""
    late = 10 * DAY_S
    with transaction(either_engine) as connection:
        inbox.keep(connection, [ReceivedMessage("test", "order", "{}")], late)
        inbox.put_off(connection, [1], late + 5)

    def claimed(now: float) -> list[int]:
        return [one.id for one in commit(either_engine, inbox.claim, ["order"], limit=9, lease_s=60, now=now)]

    assert claimed(late + 4) == []
    assert claimed(late + 5 - 60 - inbox.FAR_S) == [], "by so much the clocks of teachers may differ"
    assert claimed(late - DAY_S) == [1]
    assert claimed(late - DAY_S + 59) == [], "it is leased"
    assert claimed(late - DAY_S + 60) == [1]


def unsent(engine: Engine, now: float) -> list[int]:
    return [one.id for one in commit(engine, outbox.unsent, limit=9, now=now)]


def test_a_clock_that_is_set_back_by_a_day_keeps_nothing_unsent_for_a_day(either_engine: Engine) -> None:
    """Not what Redis refused a moment before, nor what waits behind it in its stream."""
    late = 10 * DAY_S
    letters = [outgoing.dead_letter("dead_letter", "order", body, "odd") for body in ("1", "2")]
    with transaction(either_engine) as connection:
        outbox.put(connection, letters, late)
        first, _ = outbox.unsent(connection, limit=9, now=late)
        outbox.refused(connection, [Refusal(first, Rest.ADD, "no")], late)
    assert unsent(either_engine, late) == []
    assert unsent(either_engine, late - DAY_S) == [1, 2]


@pytest.mark.parametrize(("refusals", "pause_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60)])
def test_each_refusal_doubles_the_pause_up_to_a_minute(either_engine: Engine, refusals: int, pause_s: float) -> None:
    """And what waits behind it in its stream waits as long; a message of another stream does not."""
    letters = [outgoing.dead_letter(stream, "order", "odd", "odd") for stream in ("mine", "mine", "other")]
    with transaction(either_engine) as connection:
        outbox.put(connection, letters, NOW)
        later = NOW
        for number in range(refusals):
            later = NOW + 100.0 * number
            first = outbox.unsent(connection, limit=9, now=later)[0]
            assert (first.id, first.tries) == (1, number)
            outbox.refused(connection, [Refusal(first, Rest.ADD, "no")], later)
    assert unsent(either_engine, later + pause_s - 0.1) == [3]
    assert unsent(either_engine, later + pause_s) == [1, 2, 3]
