"""Which ECS host takes a job, and what its failure comes to."""

import math

from lectern import errors
from lectern.decide import transcoding as decide
from lectern.errors import CallAPerson, FallBack, LecternError, Refuse, TryAgain
from lectern.model.facts import EcsHost
from lectern.states import Resolution
from lectern.windows import ALWAYS, Windows
from tests.strategies import NOW

NIGHT, MIDNIGHT = Windows.parsed("22:00-02:00", "UTC"), NOW - NOW % 86_400


def test_a_job_waits_for_its_window_if_it_will_be_done_in_time_then() -> None:
    """In an hour at the most, and two hours before its class."""
    cases = {(21, 34), (23, 34), (21, 25.5), (21, 24.5), (3, 22), (3, math.inf)}
    times = {(hour, at): (MIDNIGHT + at * 3600, 7200, MIDNIGHT + hour * 3600) for hour, at in cases}
    assert {one for one, its in times.items() if decide.waits(NIGHT, *its)} == {(21, 34), (21, 25.5), (3, math.inf)}
    assert not any(decide.waits(ALWAYS, *its) for its in times.values())


A, B, C = EcsHost("a", 1), EcsHost("b", 0), EcsHost("c", 2)


FULL_A, FULL_B, BUSY_B = EcsHost("a", 2), EcsHost("b", 2), EcsHost("b", 1)
ASIDE_A, ASIDE_B = EcsHost("a", 0, 3, NOW + 90), EcsHost("b", 0, 3, NOW + 60)
CHOSEN: dict[str, tuple[list[EcsHost], str, str | None]] = {
    "the least loaded": ([A, B, C], "", "b"),
    "the first of equals": ([A, BUSY_B, C], "", "a"),
    "no place is free": ([FULL_A, FULL_B], "", None),
    "no host": ([], "", None),
    "not who failed this job": ([A, B], "b", "a"),
    "nor if the other is full": ([FULL_A, B], "b", None),
    "who failed it, if it is the only one": ([B], "b", "b"),
    "all have failed it": ([A, B], "ab", "b"),
    "nobody who is put aside": ([A, ASIDE_B], "", "a"),
    "whose time aside is over": ([A, EcsHost("b", 0, 3, NOW)], "", "b"),
    "all are aside, so who comes back first": ([ASIDE_A, ASIDE_B], "", "b"),
}


def test_a_job_goes_to_the_host_that_is_best() -> None:
    """Where all are aside a class needs it all the same: to try is better than to refuse."""
    assert [one for one, (known, bad, host) in CHOSEN.items() if decide.host_for(known, 2, bad, NOW) != host] == []


def test_a_host_that_fails_three_times_in_a_row_is_put_aside() -> None:
    host = EcsHost("a")
    for failures in (1, 2):
        host = decide.after_failure(host, NOW, 600)
        assert (host.failures, host.aside_until) == (failures, 0)
    host = decide.after_failure(host, NOW, 600)
    assert (host.failures, host.aside_until) == (3, NOW + 600)
    assert decide.after_failure(host, NOW + 700, 600).aside_until == NOW + 1300


WORDS: list[tuple[LecternError, bool, bool]] = [
    # what happened, whether it is the host's fault, whether it is worth another try
    (Refuse("404", errors.DOWNLOAD_FAILED), False, False),
    (TryAgain("503", errors.DOWNLOAD_FAILED), False, True),
    (Refuse("not playable", errors.BAD_RECORDING), False, False),
    (Refuse("no sound", errors.HALF_A_RECORDING), False, False),
    (Refuse("10.0.0.1", errors.FORBIDDEN_ORIGIN), False, False),
    (Refuse("ffmpeg: Invalid data", errors.TRANSCODE_FAILED), False, False),
    (TryAgain("is 2 s long, not 4", errors.TRANSCODE_FAILED), True, True),
    (TryAgain("the connection was lost"), True, True),
    (TryAgain("no progress for 60 s"), True, True),
    (FallBack("no space left", errors.NO_ECS_ROOM), True, True),
    (CallAPerson("its key is not in known_hosts"), True, True),
    (CallAPerson("ffmpeg cannot be run"), True, True),
    (CallAPerson("403", errors.UPLOAD_FAILED), False, False),
    (TryAgain("503 for a minute", errors.UPLOAD_FAILED), False, False),
    (Refuse("not done after 300 s", errors.TRANSCODE_TIMED_OUT), False, False),
]


def test_each_failure_is_the_hosts_or_not_and_is_worth_another_try_or_not() -> None:
    assert [(error, decide.is_of_host(error), decide.again(error, 1)) for error, *_ in WORDS] == WORDS
    assert not any(decide.again(error, decide.TRIES) for error, *_ in WORDS)


P720, P240 = Resolution.P720, Resolution.P240


def test_the_class_that_begins_first_is_served_first_and_what_no_class_needs_last() -> None:
    waiting, starts = [[(1, P720)], [(2, P720), (2, P240)], [(3, P240)]], {(1, P720): NOW + 600, (2, P240): NOW + 60}
    assert sorted(waiting, key=lambda keys: decide.first_start(keys, starts)) == [waiting[1], waiting[0], waiting[2]]
