"""Where a push may lead, and how soon it is tried again: rules that need no connection."""

import ipaddress
import random

import pytest

from lectern.places import Places
from lectern.playout.backoff import FIRST_S, LAST_S, Backoff
from lectern.playout.reach import may_reach

INSIDE = ["10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "fec0::1", "::1", "fe80::1%lo"]
OUTSIDE = ["1.1.1.1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2606:4700::1111"]


@pytest.mark.parametrize(
    ("address", "is_public"), [*((one, False) for one in INSIDE), *((one, True) for one in OUTSIDE)]
)
def test_an_address_that_contains_another_is_as_public_as_that_one(address: str, is_public: bool) -> None:
    """Where the network translates, it leads there."""
    assert may_reach(address, ["public"]) is is_public
    found = ipaddress.ip_address(address.partition("%")[0])
    assert (Places.listed("public", "ALLOWED_PUSH_HOSTS").forbidden("h", 1935, [found]) is None) is is_public


def test_a_listed_network_is_reached_and_any_where_none_is_listed() -> None:
    assert may_reach("10.0.0.1", ["public", "10.0.0.0/8"])
    assert not may_reach("11.0.0.1", ["10.0.0.0/8"])
    assert may_reach("10.0.0.1", None)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_a_broken_session_is_replaced_at_once_then_after_pauses_that_double_to_five_seconds(draw: float) -> None:
    """With up to half of a pause more, so that fifty classes that were cut at once do not come back at once."""

    class Chance(random.Random):
        def random(self) -> float:
            return draw

    backoff, pauses = Backoff(Chance()), []
    for _ in range(9):
        pauses.append(backoff.failed(100.0))
        assert backoff.is_due(100.0 + pauses[-1])
        assert not pauses[-1] or not backoff.is_due(100.0 + pauses[-1] - 0.001)
    doubled = [0.0, FIRST_S, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_S, LAST_S]
    assert pauses == pytest.approx([one * (1 + draw / 2) for one in doubled])
    backoff.reset()
    assert (backoff.failures, backoff.is_due(0.0), backoff.failed(100.0)) == (0, True, 0.0)
