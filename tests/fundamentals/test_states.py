"""States and the moves between them: a move that no table has is the error."""

from collections.abc import Mapping
from enum import StrEnum

import pytest

from lectern.errors import CallAPerson, ForbiddenMove
from lectern.states import (
    AIRING_MOVES,
    BOOKING_MOVES,
    BOXES,
    LIVE_AIRINGS,
    RENDITION_MOVES,
    AiringState,
    BookingState,
    RenditionState,
    Resolution,
    check_move,
)

RENDITION = {
    "transcoding": {"success", "failed", "timed out"},
    "failed": {"transcoding"},
    "timed out": {"success", "transcoding"},
    "success": {"transcoding"},
}
BOOKING = {
    "received": {"waiting", "placed", "refused", "cancelled"},
    "waiting": {"placed", "refused", "cancelled"},
    "placed": {"ready", "refused", "cancelled", "broken"},
    "ready": {"aired", "cancelled", "broken", "placed"},
    "refused": set(),
    "cancelled": set(),
    "aired": set(),
    "broken": {"aired", "cancelled"},
}
AIRING = {
    "waiting": {"ready", "refused", "cancelled"},
    "ready": {"on air", "cancelled", "broken"},
    "on air": {"aired", "cancelled", "broken"},
    "aired": set(),
    "refused": set(),
    "cancelled": set(),
    "broken": {"on air", "cancelled"},
}
TABLES: list[tuple[Mapping[StrEnum, frozenset[StrEnum]], dict[str, set[str]]]] = [
    (RENDITION_MOVES, RENDITION),  # type: ignore[list-item]  # a mapping's key type is invariant
    (BOOKING_MOVES, BOOKING),  # type: ignore[list-item]
    (AIRING_MOVES, AIRING),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("table", "words"), TABLES)
def test_the_moves_are_these_and_no_others(
    table: Mapping[StrEnum, frozenset[StrEnum]], words: dict[str, set[str]]
) -> None:
    assert {str(old): {str(new) for new in news} for old, news in table.items()} == words


@pytest.mark.parametrize(
    ("table", "states"), [(RENDITION_MOVES, RenditionState), (BOOKING_MOVES, BookingState), (AIRING_MOVES, AiringState)]
)
def test_every_state_has_a_row(table: Mapping[StrEnum, frozenset[StrEnum]], states: type[StrEnum]) -> None:
    assert set(table) == set(states)


@pytest.mark.parametrize("old", list(RenditionState))
@pytest.mark.parametrize("new", list(RenditionState))
def test_a_move_is_allowed_where_the_table_has_it_and_a_sentence_elsewhere(
    old: RenditionState, new: RenditionState
) -> None:
    if old == new or new.value in RENDITION[old.value]:
        check_move(RENDITION_MOVES, "6666_720P", old, new)
        return
    with pytest.raises(ForbiddenMove, match="6666_720P: may not go from") as caught:
        check_move(RENDITION_MOVES, "6666_720P", old, new)
    assert isinstance(caught.value, CallAPerson)


def test_every_booking_can_come_to_an_end_and_an_answered_one_is_never_taken_back() -> None:
    ends = {state for state, moves in BOOKING.items() if not moves}
    assert ends == {"refused", "cancelled", "aired"}
    assert "refused" not in BOOKING["ready"]


@pytest.mark.parametrize("stored", ["", None, "done", "转码中", "TRANSCODING"])
def test_a_status_of_the_old_program_that_nobody_knows_is_read_as_failed(stored: str | None) -> None:
    assert RenditionState.read(stored) is RenditionState.FAILED


@pytest.mark.parametrize("state", list(RenditionState))
def test_a_stored_status_is_read_as_it_was_written(state: RenditionState) -> None:
    assert RenditionState.read(state.value) is state


def test_the_boxes_are_the_documented_ones() -> None:
    assert {str(resolution): box for resolution, box in BOXES.items()} == {
        "240P": (320, 240),
        "480P": (640, 480),
        "720P": (1280, 720),
        "1080P": (1920, 1080),
    }
    assert list(BOXES) == list(Resolution), "smallest first: the choice of a source relies on it"


def test_a_class_cites_its_rendition_until_it_is_over() -> None:
    assert {str(state) for state in set(AiringState) - LIVE_AIRINGS} == {"aired", "refused", "cancelled"}
