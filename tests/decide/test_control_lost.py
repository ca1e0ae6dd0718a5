"""Whether a streamer goes on airing while it does not hear the control host: the table, row for row."""

import itertools
from typing import Any

import pytest

from lectern.decide import leases
from lectern.decide.leases import PARTITION_TABLE, Peer, Peers, PrefectAnswer

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
