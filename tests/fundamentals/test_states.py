"""States and the moves between them: a move that no table has is the error."""

import ast
import itertools
import re
from collections.abc import Mapping, Set
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import pytest

from lectern.errors import CallAPerson, ForbiddenMove
from lectern.states import (
    AIRING_MOVES,
    BOOKING_MOVES,
    FILE_MOVES,
    LIVE_AIRINGS,
    RENDITION_MOVES,
    AiringState,
    BookingState,
    FileState,
    RenditionState,
    Resolution,
    check_move,
)

Table = Mapping[StrEnum, Set[StrEnum]]
TABLES: list[tuple[Table, type[StrEnum]]] = [
    (RENDITION_MOVES, RenditionState),  # type: ignore[list-item]  # a mapping's key type is invariant
    (BOOKING_MOVES, BookingState),  # type: ignore[list-item]
    (AIRING_MOVES, AiringState),  # type: ignore[list-item]
    (FILE_MOVES, FileState),  # type: ignore[list-item]
]


def before(table: Table, state: str) -> set[StrEnum]:
    """The states from which *state* is one move away."""
    return {old for old, moves in table.items() if state in moves}


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_each_state_has_a_row_and_a_move_that_the_table_lacks_calls_a_person(
    table: Table, states: type[StrEnum]
) -> None:
    assert set(table) == set(states)
    assert [state for state, moves in table.items() if state in moves] == []
    for old, new in itertools.product(states, states):
        if old == new or new in table[old]:
            check_move(table, "6666_720P", old, new)
            continue
        with pytest.raises(ForbiddenMove, match=f"6666_720P: may not go from .*{old}.* to .*{new}") as caught:
            check_move(table, "6666_720P", old, new)
        assert isinstance(caught.value, CallAPerson)


SETS = re.compile(r"(state|status)['\"]?\s*[:=]\s*(bindparam|(Airing|Booking|Rendition|File)State)")


def test_no_row_is_moved_past_the_tables() -> None:
    """Whatever sets a state in an UPDATE checks the move in the same function."""
    unchecked: list[str] = []
    for path in (Path(__file__).resolve().parents[2] / "lib/lectern/db").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(function) if isinstance(function, ast.FunctionDef) else ""
            if SETS.search(text) and "update(" in text and "check_move(" not in text:
                unchecked.append(f"{path.name}: {text.partition('(')[0]}")
    assert unchecked == []


def test_a_class_is_over_when_it_was_aired_refused_or_cancelled_and_keeps_its_promise() -> None:
    """Until then it can be cancelled; one that broke can be retried, and of one with gaps only the story be completed.

    A rendition is never over: it can be asked for again.
    """
    over = {"aired", "refused", "cancelled"}
    for (table, states), promised in zip(TABLES[1:3], (set(), {"aired with gaps"}), strict=True):
        assert {state for state, moves in table.items() if not moves} == over | promised
        assert before(table, "cancelled") == set(states) - over - {"aired with gaps"}
    assert BOOKING_MOVES[BookingState.AIRED_WITH_GAPS] == {BookingState.AIRED}
    assert before(TABLES[1][0], "refused") == set(BookingState) - over - {"ready", "broken", "aired with gaps"}
    assert before(TABLES[2][0], "on air") == {"ready", "broken"}
    assert set(AiringState) - LIVE_AIRINGS == over | {"aired with gaps"}, "it cites its rendition until it is over"
    assert RenditionState.SUCCESS in RENDITION_MOVES[RenditionState.TIMED_OUT]
    assert RENDITION_MOVES[RenditionState.FAILED] == {RenditionState.TRANSCODING}


def test_a_stored_status_is_read_and_one_that_nobody_knows_is_failed() -> None:
    assert [RenditionState(one.value) for one in RenditionState] == list(RenditionState)
    assert {RenditionState(odd) for odd in ("", cast("Any", None), "转码中", "TRANSCODING")} == {RenditionState.FAILED}


def test_the_boxes_are_the_documented_ones_from_the_smallest_to_the_largest() -> None:
    """The choice of a source relies on their order."""
    sizes = {"240P": (320, 240), "480P": (640, 480), "720P": (1280, 720), "1080P": (1920, 1080)}
    assert {str(resolution): resolution.box for resolution in Resolution} == sizes
    assert list(Resolution) == sorted(Resolution, key=lambda one: one.box)
