"""What becomes of a transcoding result, and of a deadline that has passed."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.decide import transcoding as decide
from lectern.decide.transcoding import Outcome, Overdue, outcome, overdue, settle, stale
from lectern.model.facts import Rendition, RenditionKey
from lectern.states import RENDITION_MOVES, Backend, RenditionState, Resolution
from lectern.wire.messages import TranscodingResult
from tests import strategies
from tests.strategies import result

KEY = (6666, Resolution.P720)

# The treatment of results as the rollout note and the design word it.
WORDS = [
    ("any", "any", "none", "alarm, change nothing"),
    ("success", "any", "transcoding", "status success; waiting classes proceed; list deleted"),
    ("failed", "oss", "transcoding", "request ECS transcoding"),
    ("failed", "ecs", "transcoding", "status failed; waiting classes refused with 208; list deleted; alarm"),
    ("success", "any", "timed out", "correct the status of a timed-out rendition"),
    ("any", "any", "any", "counted, logged, changes nothing"),
]


@pytest.mark.parametrize("success", ["success", "failed"])
@pytest.mark.parametrize("type_", Backend)
@pytest.mark.parametrize("state", ["none", *RenditionState])
def test_the_table_is_the_documented_one_row_for_row(success: str, type_: Backend, state: str) -> None:
    """The first row that fits, from the top, decides."""
    row = None if state == "none" else Rendition(RenditionState(state), 1, backend=type_)
    given = success, type_, state
    fits = [line for line in WORDS if all(word in {"any", one} for word, one in zip(line, given, strict=False))]
    assert outcome(result(success=success == "success", type=type_), row) == fits[0][-1]


OSS = Rendition(RenditionState.TRANSCODING, 1, backend=Backend.OSS)
ECS = Rendition(RenditionState.TRANSCODING, 1, backend=Backend.ECS)


@pytest.mark.parametrize(
    ("came", "row", "what"),
    [
        (result(success=False, type=Backend.ECS, code=207), ECS, Outcome.TIME_OUT),
        (result(success=False, type=Backend.ECS, code=319), ECS, Outcome.FAIL),
        (result(success=False, code=207), OSS, Outcome.FALL_BACK),
        # A row of the old program knows no backend, and takes any failure.
        (result(success=False), Rendition(RenditionState.TRANSCODING, 0), Outcome.FALL_BACK),
        (result(success=False, type=Backend.ECS), Rendition(RenditionState.TRANSCODING, 0), Outcome.FAIL),
        # A result with another attempt than the row's.
        (result(type=Backend.ECS, attempt=1), Rendition(ECS.state, 2, backend=Backend.ECS), Outcome.IGNORE),
        (result(type=Backend.ECS, attempt=3), Rendition(ECS.state, 2, backend=Backend.ECS), Outcome.IGNORE),
        # The cloud was given up: its failure does not fail our own attempt, its late success is welcome.
        (result(success=False), ECS, Outcome.IGNORE),
        (result(), ECS, Outcome.SUCCEED),
    ],
)
def test_a_code_another_attempt_or_another_backend_decides_beside_the_table(
    came: TranscodingResult, row: Rendition | None, what: Outcome
) -> None:
    assert outcome(came, row) is what


LATE = Rendition(RenditionState.TIMED_OUT, 1, backend=Backend.OSS)
CLOUD_FAILED, OURS_FAILED = result(success=False), result(success=False, type=Backend.ECS)
BATCHES: dict[str, tuple[list[TranscodingResult], Rendition, bool, list[Outcome]]] = {
    "a doubled success is taken once": ([result(), result()], OSS, True, [Outcome.SUCCEED, Outcome.IGNORE]),
    "the cloud fails twice": ([CLOUD_FAILED, CLOUD_FAILED], OSS, True, [Outcome.FALL_BACK, Outcome.IGNORE]),
    "both rungs fail": ([CLOUD_FAILED, OURS_FAILED], OSS, True, [Outcome.FALL_BACK, Outcome.FAIL]),
    "there is no server of our own": ([CLOUD_FAILED, CLOUD_FAILED], OSS, False, [Outcome.FAIL, Outcome.IGNORE]),
    "a late success corrects once": ([result(), result()], LATE, True, [Outcome.CORRECT, Outcome.IGNORE]),
}


@pytest.mark.parametrize("case", BATCHES)
def test_of_a_batch_each_result_finds_what_the_one_before_has_left(case: str) -> None:
    came, row, ecs, outcomes = BATCHES[case]
    assert [what for _, what in settle(came, {KEY: row}, ecs=ecs)] == outcomes


batches = st.lists(strategies.results(), max_size=12)
AFTER = {
    Outcome.SUCCEED: RenditionState.SUCCESS,
    Outcome.CORRECT: RenditionState.SUCCESS,
    Outcome.FAIL: RenditionState.FAILED,
    Outcome.TIME_OUT: RenditionState.TIMED_OUT,
}
"""The state of the row of a rendition after an outcome."""


@given(batches, strategies.underway, st.booleans())
def test_each_result_of_a_batch_has_its_outcome_and_closes_a_rendition_once(
    batch: list[TranscodingResult], rows: dict[RenditionKey, Rendition], ecs: bool
) -> None:
    decided = settle(batch, rows, ecs=ecs)
    assert [one for one, _ in decided] == batch
    for key in {one.key for one in batch}:
        outcomes = [what for one, what in decided if one.key == key]
        assert outcomes.count(Outcome.FALL_BACK) <= (1 if ecs else 0)
        assert sum(one in {Outcome.SUCCEED, Outcome.FAIL, Outcome.TIME_OUT} for one in outcomes) <= 1
        assert outcomes.count(Outcome.CORRECT) <= 1


@given(batches, strategies.underway, st.booleans())
def test_a_batch_decided_at_once_equals_the_same_results_decided_one_at_a_time(
    batch: list[TranscodingResult], rows: dict[RenditionKey, Rendition], ecs: bool
) -> None:
    now = dict(rows)
    singly = []
    for came in batch:
        ((_, what),) = settle([came], now, ecs=ecs)
        singly.append((came, what))
        if came.key in now:  # what the commit of the step leaves in the database
            row = now[came.key]
            backend = Backend.ECS if what is Outcome.FALL_BACK else row.backend
            now[came.key] = Rendition(AFTER.get(what, row.state), row.attempt, backend=backend)
    assert settle(batch, rows, ecs=ecs) == singly


@given(
    strategies.results(),
    st.none()
    | st.builds(
        Rendition,
        st.sampled_from(RenditionState),
        st.integers(0, 3),
        backend=st.none() | st.sampled_from(Backend),
    ),
)
def test_no_outcome_asks_for_a_forbidden_move(came: TranscodingResult, row: Rendition | None) -> None:
    what = outcome(came, row)
    if row is None:
        assert what is Outcome.ALARM
    elif what in AFTER:
        assert AFTER[what] in RENDITION_MOVES[row.state]
        assert not stale(came, row)
    elif what is Outcome.FALL_BACK:
        assert row.state is RenditionState.TRANSCODING


@pytest.mark.parametrize(
    ("output_there", "backend", "on_timeout", "ecs", "what"),
    [
        # The output is there, only its result is not: whoever made it, and whatever else could be done.
        (True, Backend.OSS, "ecs", True, Overdue.SUCCEED),
        (True, Backend.ECS, "refuse", True, Overdue.SUCCEED),
        (True, None, "refuse", False, Overdue.SUCCEED),
        # As documented: the classes are refused.
        (False, Backend.OSS, "refuse", True, Overdue.TIME_OUT),
        (False, None, "refuse", True, Overdue.TIME_OUT),
        # Our own server gets a try first, if there is one and it was not the one that is late.
        (False, Backend.OSS, "ecs", True, Overdue.FALL_BACK),
        (False, None, "ecs", True, Overdue.FALL_BACK),
        (False, Backend.OSS, "ecs", False, Overdue.TIME_OUT),
        (False, None, "ecs", False, Overdue.TIME_OUT),
        (False, Backend.ECS, "ecs", True, Overdue.TIME_OUT),
        (False, Backend.ECS, "refuse", True, Overdue.TIME_OUT),
    ],
)
def test_every_passed_deadline_has_one_outcome(
    output_there: bool, backend: Backend | None, on_timeout: Literal["refuse", "ecs"], ecs: bool, what: Overdue
) -> None:
    assert overdue(output_there=output_there, backend=backend, on_timeout=on_timeout, ecs=ecs) is what


def test_our_own_attempts_have_their_time_and_make_a_record_together() -> None:
    assert decide.total_limit_s(600) == 1_920
    keys = [(1, Resolution.P720), (2, Resolution.P240), (1, Resolution.P480)]
    assert decide.by_record(keys) == {1: [Resolution.P720, Resolution.P480], 2: [Resolution.P240]}
