"""What `make faults-teachers` says: how long the last answer of a case took, and how much of that is the machine's."""

from collections import Counter

from tests.faults.teachers.cases import Case, cases
from tests.faults.teachers.outcome import Outcome, table

KILLED = Outcome(
    Case("claimed, not handled", "kill", "channel", ("teacher",)), 2000, Counter({1: 2000}), taken_s=9.5, booked_s=3.7
)
STOPPED = Outcome(
    Case("sent, not noted", "stop", "stream", ("teacher", "teacher2")), 2000, Counter({1: 1990, 2: 10}), booked_s=4.0
)


def test_a_strike_falls_at_each_point_in_each_way_on_each_of_them() -> None:
    assert len(cases()) == len(set(cases())) == 84


def test_of_the_time_until_the_last_answer_what_waited_for_the_machine_is_told_apart() -> None:
    """A slow machine makes the second part longer, a timer that is too long the first one."""
    KILLED.last_s, STOPPED.last_s = 11.0, 3.0
    assert (KILLED.work_s, STOPPED.work_s) == (1.5, 0.0)


def test_the_table_has_a_row_for_each_case_and_a_sentence_for_what_was_done() -> None:
    KILLED.last_s, KILLED.before_s, KILLED.load = 11.0, 0.4, 13.0
    STOPPED.faults = ["10 answered 2 times"]
    heads, killed, stopped, *sums = table([KILLED, STOPPED]).splitlines()
    assert [heads.index(one) for one in ("last", "work", "load")] == [
        killed.index(one) for one in ("11.0", "1.5", "13")
    ]
    assert killed.endswith("as it must be")
    assert stopped.endswith("10 answered 2 times")
    assert sums[0].endswith("11.0 s at worst: 9.5 s by design and 1.5 s of work at load 13")
    assert sums[-1] == "2 cases, 1 not as they must be"
