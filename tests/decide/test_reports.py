"""What the teacher takes of a streamer's report about a class that is over."""

from dataclasses import replace

from lectern.changes import Changes
from lectern.decide import reports as decide
from lectern.facts import AsRun, Order
from lectern.messages import Release, Report
from lectern.outgoing import OrderResult
from lectern.settings import TeacherSettings
from lectern.states import BookingState

SETTINGS = TeacherSettings.load(_env_file=None, transcode_sign_key="made-up")
PART = AsRun(0, 1, "recording", 1_000.0, 1_600.0, 0.0, 600.0, 1_234_567)
READY = Order("c-1", BookingState.READY, "{}", 6666, None, 1_000, 1_600, streamer="s1", placement=1, promised_at=900)


def taken(order: Order, **fields: object) -> Changes:
    changes = Changes(SETTINGS, 1_700.0, orders={order.class_id: order})
    said = {"cmd": "ended", "class_id": "c-1", "streamer": "s1", "result": "success", "as_run": [vars(PART)]}
    decide.take(changes, Report.model_validate({**said, **fields}), decide.NO_FACTS)
    return changes


def test_what_was_really_sent_is_kept_with_the_end_of_a_class() -> None:
    changes = taken(READY)
    assert changes.sent == [("s1", "c-1", [PART])]
    assert changes.orders["c-1"].state is BookingState.AIRED


def test_what_a_streamer_sent_before_the_class_went_to_another_is_kept_and_closes_nothing() -> None:
    changes = taken(replace(READY, streamer="s2", placement=2))
    assert changes.sent == [("s1", "c-1", [PART])]
    assert changes.orders["c-1"].state is BookingState.READY


def test_what_was_sent_before_a_cancel_is_kept_and_the_class_stays_cancelled() -> None:
    changes = taken(replace(READY, state=BookingState.CANCELLED), result="fail", code=323)
    assert changes.sent == [("s1", "c-1", [PART])]
    assert changes.orders["c-1"].state is BookingState.CANCELLED


PREPARED = {"cmd": "prepared", "as_run": None}
ASKED = replace(READY, state=BookingState.PLACED, promised_at=None)


def answers(changes: Changes) -> list[tuple[str, int]]:
    return [(one.message.result, one.message.code) for one in changes.sends if isinstance(one.message, OrderResult)]


def test_no_success_is_answered_after_the_end_of_a_class() -> None:
    """Its streamer has it, and can air nothing of it any more."""
    changes = taken(ASKED, **PREPARED)
    assert (answers(changes), changes.orders["c-1"].state) == ([("fail", 410)], BookingState.REFUSED)
    assert [one.message.class_id for one in changes.sends if isinstance(one.message, Release)] == ["c-1"]
    assert answers(taken(replace(ASKED, end_time=1_701), **PREPARED)) == [("success", 0)]


def test_a_class_whose_end_is_reported_first_is_closed_as_aired_and_answered_without_a_success() -> None:
    changes = taken(ASKED)
    assert (answers(changes), changes.orders["c-1"].state) == ([("fail", 410)], BookingState.AIRED)


def test_a_promised_class_whose_file_comes_after_its_end_is_broken_and_goes_to_no_other_streamer() -> None:
    changes = taken(replace(ASKED, promised_at=900), **PREPARED, result="fail", code=410, message="it ended before")
    assert (answers(changes), changes.orders["c-1"].state) == ([], BookingState.BROKEN)


def test_a_part_that_cannot_be_read_is_noted_and_the_class_is_closed() -> None:
    changes = taken(READY, as_run=[{"url": "first"}, vars(PART)])
    assert changes.sent == [("s1", "c-1", [PART])]
    assert "as-run not readable" in {one.what for one in changes.notes}
    assert changes.orders["c-1"].state is BookingState.AIRED
