"""What the teacher takes of a streamer's report about a class that is over."""

from dataclasses import replace

from lectern.changes import Changes
from lectern.decide import reports as decide
from lectern.facts import AsRun, Order
from lectern.messages import Report
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


def test_a_part_that_cannot_be_read_is_noted_and_the_class_is_closed() -> None:
    changes = taken(READY, as_run=[{"url": "first"}, vars(PART)])
    assert changes.sent == [("s1", "c-1", [PART])]
    assert "as-run not readable" in {one.what for one in changes.notes}
    assert changes.orders["c-1"].state is BookingState.AIRED
