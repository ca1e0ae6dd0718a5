"""How long a streamer may push on its own, and when it is lost; the table of what it does meanwhile, row for row."""

import itertools
import math
from typing import Any

import pytest

from lectern.decide import leases
from lectern.decide.leases import PARTITION_TABLE, Answer, Lease, Peer, Peers, PrefectAnswer


def test_nobody_takes_a_class_before_its_lease_has_run_out() -> None:
    """However soon a silent streamer is to be lost, and whatever Prefect has said to it."""
    for lost_after_s in (1.0, 20.0, 60.0):
        for lease_s in (6.0, 12.0, 45.0):
            assert leases.lost_after(lost_after_s, lease_s) >= leases.until(0.0, lease_s) + leases.MARGIN_S
    assert leases.NOTICE_S > leases.WITNESS_S


def test_a_lease_without_end_is_never_taken() -> None:
    assert leases.lost_after(60, 0) == math.inf
    assert leases.until(0.0, 0) == math.inf


def test_the_notice_is_over_when_the_streamer_is_lost() -> None:
    """With a moment to spare, in which the run begins that gives it."""
    assert leases.suspect_after(60, 5) + leases.NOTICE_S + leases.HASTE_S == 60


def test_a_beat_or_two_that_are_missing_are_no_suspicion() -> None:
    assert leases.suspect_after(12, 5) == 15


def test_who_fell_silent_in_the_same_moment_takes_no_class() -> None:
    """Whoever still beats may, also if its last beat is as old as it can be."""
    for lost_after_s, beat_s in ((6.0, 5.0), (20.0, 1.0), (50.0, 5.0), (60.0, 5.0), (600.0, 30.0)):
        for more_s in (0.01, 5.0, 100.0):
            silent_s = leases.suspect_after(lost_after_s, beat_s) + more_s
            assert beat_s < leases.heard_within(silent_s) < silent_s - beat_s


def test_what_was_not_said_while_nobody_listened_is_no_silence() -> None:
    assert leases.silence(100.0, 0.0, ears_open_s=3.0) == 3.0
    assert leases.silence(None, 7.0, ears_open_s=30.0) == 7.0


HELD, OVER = 20.0, 5.0
"""Ends of a lease, as seen at second 10."""


@pytest.mark.parametrize(
    ("answer", "until", "goes_on", "end"),
    [
        (Answer.OURS, HELD, None, 9.0 + 45.0),
        (Answer.OURS, OVER, None, 9.0 + 45.0),
        (Answer.TAKEN, HELD, None, 0.0),
        (Answer.TAKEN, HELD, True, 0.0),
        (Answer.TAKEN, OVER, True, 0.0),
        (Answer.FORGOTTEN, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.GRANTED, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.NONE, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.NONE, HELD, True, HELD),
        (Answer.NONE, HELD, False, HELD),
        (Answer.FORGOTTEN, HELD, None, HELD),
        (Answer.NONE, OVER, True, OVER),
        (Answer.FORGOTTEN, OVER, True, OVER),
        (Answer.GRANTED, OVER, True, OVER),
    ],
)
def test_each_case_of_the_table(answer: Answer, until: float, goes_on: bool | None, end: float) -> None:
    """What Redis takes is given up whatever the witnesses say; they lengthen a lease that runs, and revive none."""
    found = Lease(until).answered(answer, 9.0, 10.0, 45.0)
    if goes_on is not None:
        found = found.witnessed(9.0, 10.0, goes_on=goes_on)
    assert found == Lease(end, answer)


def test_no_witness_counts_once_redis_has_renewed_the_lease() -> None:
    """Its answer is of the time before."""
    renewed = Lease(HELD).answered(Answer.OURS, 10.0, 10.0, 45.0)
    assert renewed.witnessed(60.0, 10.0, goes_on=True) == renewed


def test_a_lease_that_another_session_has_was_taken_unless_that_session_is_ours() -> None:
    assert leases.answer(None, "mine") is Answer.FORGOTTEN
    assert leases.answer("", "mine") is Answer.TAKEN
    assert leases.answer("another", "mine") is Answer.TAKEN
    assert leases.answer("mine", "mine") is Answer.GRANTED


POLICIES = ("ask peers", "stop", "push")
GOES_ON = {
    ("ask peers", PrefectAnswer.AWAY, Peers.NONE),
    ("ask peers", PrefectAnswer.AWAY, Peers.BLIND),
    *(("push", PrefectAnswer.AWAY, peers) for peers in Peers),
    *itertools.product(POLICIES, (PrefectAnswer.FREE,), Peers),
}
CASES = list(itertools.product(POLICIES, PrefectAnswer, Peers))


@pytest.mark.parametrize(("policy", "word", "peers"), CASES)
def test_each_case_has_its_row(policy: str, word: PrefectAnswer, peers: Peers) -> None:
    """Classes go on if nobody takes them, if nobody could, and if the operator says so; else they stop."""
    found = leases.partition_verdict(policy, word, peers)
    assert found.goes_on is ((policy, word, peers) in GOES_ON)
    assert found.why


def test_each_row_decides_some_case() -> None:
    """A row that another one hides would say what is not done."""
    decided = set()
    for given in CASES:
        fits = [all(w is None or w == g for w, g in zip(row, given, strict=False)) for row in PARTITION_TABLE]
        decided.add(fits.index(True))
    assert decided == set(range(len(PARTITION_TABLE)))


@pytest.mark.parametrize(
    ("looks", "together"),
    [
        ([], Peers.NONE),
        ([Peer.BLIND, Peer.BLIND], Peers.BLIND),
        ([Peer.BLIND, Peer.SILENT], Peers.SILENT),
        ([Peer.BLIND, Peer.SILENT, Peer.HEARS], Peers.HEARS),
    ],
)
def test_who_hears_or_might_hear_outweighs_who_does_not(looks: list[Peer], together: Peers) -> None:
    assert leases.together(looks) is together


@pytest.mark.parametrize(
    ("health", "peer"),
    [
        (None, Peer.SILENT),
        ({"name": "s2", "hears": False}, Peer.BLIND),
        ({"name": "s2", "hears": True, "ready": False}, Peer.HEARS),
        ({"name": "s1", "hears": False}, Peer.SILENT),
        ({"name": "s2", "ready": True}, Peer.SILENT),
        ({"name": "s2", "hears": "no"}, Peer.SILENT),
    ],
    ids=["no answer", "blind", "hears", "another host", "an older release", "not readable"],
)
def test_only_a_clear_answer_of_that_very_streamer_counts(health: dict[str, object] | None, peer: Peer) -> None:
    """At a loopback address this streamer would find itself, as blind as it is."""
    assert leases.look(health, "s2") is peer


def test_a_streamer_knows_those_that_were_heard_lately() -> None:
    """One that was taken out of use weeks ago must not silence the others; one that restarts is still asked.

    One whose machine is rebooted is not: if the control host is rebooted meanwhile, all classes would end.
    """
    beats: dict[str, dict[str, Any]] = {
        "s1": {"at": 1000.0},
        "s2": {"at": 990.0, "address": "10.0.0.2:8801"},
        "s3": {"at": 990.0, "gone": True, "address": 7},
        "s4": {"at": 1000.0 - leases.PEER_S - 1, "address": "10.0.0.4:8801"},
        "s5": {"at": 1000.0 - leases.GONE_S - 1, "gone": True, "address": "10.0.0.5:8801"},
    }
    assert leases.others(beats, "s1") == {"s2": "10.0.0.2:8801", "s3": ""}


@pytest.mark.parametrize(
    ("beat", "may"),
    [
        (None, ["s2", "s3"]),
        ({"at": 1.0}, ["s2", "s3"]),
        ({"at": 1.0, "peers": ["s2", "s9"]}, ["s2"]),
        ({"at": 1.0, "peers": []}, []),
    ],
    ids=["no beat", "one that stops by itself", "one that asks s2", "one that goes on alone"],
)
def test_classes_go_only_to_those_that_the_silent_streamer_asks(beat: dict[str, object] | None, may: list[str]) -> None:
    """It goes on while those it asks are blind: a streamer that it never heard of would push beside it."""
    assert leases.may_take(beat, {"s3", "s2"}) == may


def test_what_a_beat_says_of_the_others_follows_the_setting() -> None:
    assert leases.listed_peers("ask peers", {"s3", "s2"}) == ["s2", "s3"]
    assert leases.listed_peers("push", {"s2"}) == []
    assert leases.listed_peers("stop", {"s2"}) is None
