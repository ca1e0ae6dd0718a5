"""Messages that cannot be handled stand apart, and hold up none of those that came with them."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, OperationalError

from flows.handling import BOUND, BatchResult, apart


def handled(items: Sequence[int], bad: set[int]) -> tuple[BatchResult[int, list[int]], int]:
    """What becomes of *items*, and how many transactions that took."""
    tries = 0

    async def work(some: Sequence[int]) -> list[int]:
        nonlocal tries
        tries += 1
        if bad & set(some):
            raise IntegrityError("INSERT …", {"push_url": "rtmp://secret"}, Exception("not this one"))
        return list(some)

    return asyncio.run(apart(items, work)), tries


@given(st.integers(0, 600), st.sets(st.integers(0, 599), max_size=BOUND))
def test_those_at_fault_fail_alone_and_all_others_are_handled_in_their_order(number: int, bad: set[int]) -> None:
    found, tries = handled(range(number), bad)
    assert [one for one, _ in found.failed] == sorted(one for one in bad if one < number)
    assert [one for some in found.done for one in some] == [one for one in range(number) if one not in bad]
    assert tries <= 1 + 2 * 10 * len(bad)


def test_where_all_fail_the_search_ends_soon() -> None:
    found, tries = handled(range(5000), set(range(5000)))
    assert len(found.failed) == 5000
    assert tries < 100


def test_the_reason_names_the_place_and_no_payload() -> None:
    ((_, why),) = handled([7], {7})[0].failed
    assert why.startswith("IntegrityError in work, line ")
    assert why.endswith(": not this one")
    assert "secret" not in why


def test_a_database_that_is_away_is_no_message_s_fault() -> None:
    async def work(some: Sequence[int]) -> None:
        raise OperationalError("BEGIN", {}, Exception(f"locked for {len(some)}"))

    with pytest.raises(OperationalError, match="locked for 3"):
        asyncio.run(apart([1, 2, 3], work))
