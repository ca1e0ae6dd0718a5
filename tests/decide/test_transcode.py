"""What becomes of a transcoding result, and of a deadline that has passed."""

import pytest

from lectern.decide import transcoding as decide
from lectern.decide.transcoding import Outcome, Waiters, outcome
from lectern.model.facts import Order, Rendition
from lectern.model.plan import Changes
from lectern.model.tables.teacher import RenditionRow, videos
from lectern.states import RENDITION_MOVES, Backend, BookingState, RenditionState, Resolution
from lectern.wire.messages import TranscodingResult
from lectern.wire.outgoing import Alarm, OrderResult
from tests import strategies
from tests.decide.test_revisions import told
from tests.strategies import booking, result, transcoders

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


AFTER = {
    Outcome.SUCCEED: RenditionState.SUCCESS,
    Outcome.CORRECT: RenditionState.SUCCESS,
    Outcome.FAIL: RenditionState.FAILED,
    Outcome.TIME_OUT: RenditionState.TIMED_OUT,
}
"""The state of the row of a rendition after an outcome."""


@pytest.mark.parametrize("success", ["success", "failed"])
@pytest.mark.parametrize("type_", Backend)
@pytest.mark.parametrize("state", ["none", *RenditionState])
def test_the_table_is_the_documented_one_row_for_row(success: str, type_: Backend, state: str) -> None:
    """The first row that fits, from the top, decides."""
    row = None if state == "none" else Rendition(RenditionState(state), 1, backend=type_)
    given = success, type_, state
    fits = [line for line in WORDS if all(word in {"any", one} for word, one in zip(line, given, strict=False))]
    what = outcome(result(success=success == "success", type=type_), row, ecs=True)
    assert what == fits[0][-1]
    assert row is None or what not in AFTER or AFTER[what] in RENDITION_MOVES[row.state], "the move is forbidden"


OSS = Rendition(RenditionState.TRANSCODING, 1, backend=Backend.OSS)
ECS = Rendition(RenditionState.TRANSCODING, 1, backend=Backend.ECS)


BESIDE: list[tuple[TranscodingResult, Rendition, Outcome]] = [
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
]


def test_a_code_another_attempt_or_another_backend_decides_beside_the_table() -> None:
    assert [(came, row, outcome(came, row, ecs=True)) for came, row, _ in BESIDE] == BESIDE


LATE = Rendition(RenditionState.TIMED_OUT, 1, backend=Backend.OSS)
CLOUD_FAILED, OURS_FAILED = result(success=False), result(success=False, type=Backend.ECS)
BATCHES: dict[str, tuple[list[TranscodingResult], Rendition, bool, list[Outcome]]] = {
    "a doubled success is taken once": ([result(), result()], OSS, True, [Outcome.SUCCEED, Outcome.IGNORE]),
    "the cloud fails twice": ([CLOUD_FAILED, CLOUD_FAILED], OSS, True, [Outcome.FALL_BACK, Outcome.IGNORE]),
    "both rungs fail": ([CLOUD_FAILED, OURS_FAILED], OSS, True, [Outcome.FALL_BACK, Outcome.FAIL]),
    "there is no server of our own": ([CLOUD_FAILED, CLOUD_FAILED], OSS, False, [Outcome.FAIL, Outcome.IGNORE]),
    "a late success corrects once": ([result(), result()], LATE, True, [Outcome.CORRECT, Outcome.IGNORE]),
}


def test_of_a_batch_each_result_finds_what_the_one_before_has_left() -> None:
    for case, (came, row, ecs, outcomes) in BATCHES.items():
        changes, rows = Changes(transcoders(ecs=ecs), strategies.NOW), {KEY: row}
        assert [decide.settle(changes, one, rows, Waiters(), {}) for one in came] == outcomes, case


def test_our_own_attempts_have_their_time_and_make_a_record_together() -> None:
    assert decide.total_limit_s(600) == 1_920
    keys = [(1, Resolution.P720), (2, Resolution.P240), (1, Resolution.P480)]
    assert decide.by_record(keys) == {1: [Resolution.P720, Resolution.P480], 2: [Resolution.P240]}


def waiting(changes: Changes) -> Order:
    return changes.move(changes.book(booking()), BookingState.WAITING)


def done(changes: Changes) -> tuple[str | None, list[tuple[str, int]], list[int]]:
    """What became of the rendition, what was answered to which class, and the alarms."""
    row = changes.rows.get((videos, *KEY))
    status = None if row is None or row.after is None else str(row.after["status"])
    answered = [(one.class_id, one.code) for one in told(changes, OrderResult)]
    return status, answered, [one.code for one in told(changes, Alarm)]


UNTYPED = result().model_copy(update={"type": None})
OURS_LATE = result(success=False, type=Backend.ECS, code=207)
SAID = result(success=False, type=Backend.ECS, message="it has no sound")
APPLIED: dict[str, tuple[TranscodingResult, Outcome, Rendition | None, str | None, list[int], str]] = {
    "made": (UNTYPED, Outcome.SUCCEED, ECS, "success", [211], "ecs"),
    "made late": (result(), Outcome.CORRECT, LATE, "success", [], "oss"),
    "failed": (SAID, Outcome.FAIL, ECS, "failed", [211, 208], "ecs"),
    "timed out": (OURS_LATE, Outcome.TIME_OUT, ECS, "timed out", [211, 207], "ecs"),
    "to our own server": (CLOUD_FAILED, Outcome.FALL_BACK, OSS, None, [], "oss"),
    "nobody asked": (UNTYPED, Outcome.ALARM, None, None, [502], "unknown"),
    "ignored": (result(), Outcome.IGNORE, Rendition(RenditionState.SUCCESS), None, [], "oss"),
}


@pytest.mark.parametrize("case", APPLIED)
def test_what_a_result_leads_to_is_done_for_all_who_wait(case: str) -> None:
    """Who waits by the old program's list alone is refused with 211, once."""
    came, what, row, status, alarmed, backend = APPLIED[case]
    changes = Changes(transcoders(), strategies.NOW)
    waiters = Waiters([waiting(changes)], ["c-9", "c-9"])
    assert decide.settle(changes, came, {} if row is None else {KEY: row}, waiters, {"s1": 0}) is what
    refused = [("c-1", code) for code in alarmed if code in {207, 208}]
    orphaned = [("c-9", 211)] * (211 in alarmed)
    assert done(changes) == (status, refused + orphaned, alarmed)
    assert (changes.notes[-1].stem, changes.notes[-1].detail.split(":")[0]) == ("6666_720P", came.type or "?")
    assert changes.transcoded == [(backend, "success" if came.success else "failed")]
    assert changes.fell_back_to_ecs == ([KEY] if what is Outcome.FALL_BACK else [])
    assert changes.orders["c-1"].url == (came.transcode_video_url if what is Outcome.SUCCEED else None)
    if refused:
        assert (changes.orders["c-1"].message == came.message) is (came is SAID)


@pytest.mark.parametrize("listed", [[], ["c-9"]])
def test_who_waits_for_a_result_that_nobody_asked_for_is_named_by_its_list(listed: list[str]) -> None:
    changes = Changes(transcoders(), strategies.NOW)
    decide.settle(changes, result(), {}, Waiters((), listed), {})
    (said,) = told(changes, Alarm)
    assert ("LRANGE 6666_720P" in said.message) is bool(listed)


OVERDUE: dict[str, tuple[bool, Backend | None, str, bool, Outcome]] = {
    "its output is there, only its result is not": (True, Backend.OSS, "ecs", True, Outcome.SUCCEED),
    "that of an old program": (True, None, "refuse", False, Outcome.SUCCEED),
    "as documented": (False, Backend.OSS, "refuse", True, Outcome.TIME_OUT),
    "our own server tries it first": (False, Backend.OSS, "ecs", True, Outcome.FALL_BACK),
    "also what an old program asked for": (False, None, "ecs", True, Outcome.FALL_BACK),
    "there is none": (False, None, "ecs", False, Outcome.TIME_OUT),
    "it was the one that is late": (False, Backend.ECS, "ecs", True, Outcome.TIME_OUT),
}
"""Whether the output is there, who makes it, the setting, whether there is a server of our own; the outcome."""


@pytest.mark.parametrize("case", OVERDUE)
def test_a_passed_deadline_settles_the_rendition(case: str) -> None:
    is_there, backend, on_timeout, ecs, what = OVERDUE[case]
    changes = Changes(transcoders(ecs=ecs, on_transcode_timeout=on_timeout), strategies.NOW)
    late = RenditionRow(record_id=6666, resolution=Resolution.P720, status="transcoding", backend=backend)
    url = "http://o/6666" if is_there else None
    decide.expire(changes, late, url, Waiters([waiting(changes)]), {"s1": 0})
    alarmed = [207] if what is Outcome.TIME_OUT else []
    assert done(changes) == (AFTER.get(what), [("c-1", code) for code in alarmed], alarmed)
    assert changes.orders["c-1"].url == url
    assert changes.fell_back_to_ecs == ([KEY] if what is Outcome.FALL_BACK else [])
    assert changes.transcoded == [(str(backend), what.name.lower())]
