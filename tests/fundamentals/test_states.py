"""States and the moves between them: a move that no table has is the error."""

import ast
import itertools
import re
from collections.abc import Mapping, Set
from enum import StrEnum
from pathlib import Path

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

ROOT = Path(__file__).resolve().parents[2]
Table = Mapping[StrEnum, Set[StrEnum]]
TABLES: list[tuple[Table, type[StrEnum]]] = [
    (RENDITION_MOVES, RenditionState),  # type: ignore[list-item]  # a mapping's key type is invariant
    (BOOKING_MOVES, BookingState),  # type: ignore[list-item]
    (AIRING_MOVES, AiringState),  # type: ignore[list-item]
    (FILE_MOVES, FileState),  # type: ignore[list-item]
]
CLASSES = TABLES[1:3]
"""A rendition is never over: it can be asked for again."""


def ends(table: Table) -> set[StrEnum]:
    """The states that nothing leaves."""
    return {state for state, moves in table.items() if not moves}


def before(table: Table, state: StrEnum) -> set[StrEnum]:
    """The states from which *state* is one move away."""
    return {old for old, moves in table.items() if state in moves}


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_every_state_has_a_row_and_none_stays_as_it_is(table: Table, states: type[StrEnum]) -> None:
    assert set(table) == set(states)
    assert [state for state, moves in table.items() if state in moves] == []


@pytest.mark.parametrize(("table", "states"), TABLES)
def test_a_move_is_allowed_where_the_table_has_it_and_a_sentence_elsewhere(table: Table, states: type[StrEnum]) -> None:
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
    for path in (ROOT / "lib/lectern/db").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                text = ast.unparse(function)
                if SETS.search(text) and "update(" in text and "check_move(" not in text:
                    unchecked.append(f"{path.name}: {function.name}")
    assert unchecked == []


def test_a_class_is_over_when_it_was_aired_refused_or_cancelled_and_keeps_its_promise() -> None:
    """A class that broke is not over: a person may retry it. One with gaps is: only its story may be completed."""
    over = {"aired", "refused", "cancelled"}
    assert ends(BOOKING_MOVES) == over  # type: ignore[arg-type]
    assert BOOKING_MOVES[BookingState.AIRED_WITH_GAPS] == {BookingState.AIRED}
    assert ends(AIRING_MOVES) == over | {"aired with gaps"}  # type: ignore[arg-type]
    promised = {BookingState.READY, BookingState.BROKEN, BookingState.AIRED_WITH_GAPS}
    assert before(BOOKING_MOVES, BookingState.REFUSED) == set(BookingState) - ends(BOOKING_MOVES) - promised  # type: ignore[arg-type]
    assert before(AIRING_MOVES, AiringState.ON_AIR) == {AiringState.READY, AiringState.BROKEN}  # type: ignore[arg-type]
    assert before(RENDITION_MOVES, RenditionState.SUCCESS) >= {RenditionState.TIMED_OUT}  # type: ignore[arg-type]
    assert RENDITION_MOVES[RenditionState.FAILED] == {RenditionState.TRANSCODING}
    over = {AiringState.AIRED, AiringState.AIRED_WITH_GAPS, AiringState.REFUSED, AiringState.CANCELLED}
    assert set(AiringState) - LIVE_AIRINGS == over, "a class cites its rendition until it is over"


@pytest.mark.parametrize(("table", "states"), CLASSES)
def test_a_class_can_be_cancelled_until_it_is_over(table: Table, states: type[StrEnum]) -> None:
    assert before(table, states("cancelled")) == set(states) - ends(table) - {"aired with gaps"}


@pytest.mark.parametrize(
    ("stored", "state"),
    [(one.value, one) for one in RenditionState]
    + [(odd, RenditionState.FAILED) for odd in ("", None, "done", "转码中", "TRANSCODING")],
)
def test_a_stored_status_is_read_and_one_that_nobody_knows_is_failed(stored: str | None, state: RenditionState) -> None:
    assert RenditionState.read(stored) is state


def test_the_boxes_are_the_documented_ones() -> None:
    sizes = {"240P": (320, 240), "480P": (640, 480), "720P": (1280, 720), "1080P": (1920, 1080)}
    assert {str(resolution): resolution.box for resolution in Resolution} == sizes
    assert list(Resolution) == sorted(Resolution, key=lambda one: one.box), "the choice of a source relies on it"
