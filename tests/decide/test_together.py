"""What is said of a class that several messages are about: each asks for one answer, and each answer is so."""

from pathlib import Path
from typing import Any

import pytest

from lectern.decide import airing, reports
from lectern.decide.booking import decide_orders
from lectern.decide.placement import Choice, cancel, reassign
from lectern.model.facts import Airing, Slot
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.settings import StreamerSettings
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Cancel, Release, Report
from lectern.wire.outgoing import CancelResult
from tests import strategies
from tests.decide import test_class_events as told_of
from tests.decide import test_revisions as revised
from tests.decide.test_class_events import READY, START
from tests.decide.test_revisions import changes as changes  # noqa: PLC0414 (asked for here, too)


def cancel_results(changes: Changes) -> list[tuple[str, int]]:
    return [(one.class_id, one.code) for one in revised.told(changes, CancelResult)]


def test_a_change_that_is_cancelled_with_its_class_has_no_cancel_result(changes: Changes) -> None:
    """Its streamer confirms the release of the class and of the revision; the platform asked for one cancel."""
    revised.ready(changes)
    revised.change(changes, **revised.OTHER)
    cancel(changes, Cancel(class_id="c-1"))
    waits = {(one.class_id, one.streamer or ""): 1 for one in changes.orders.values()}
    changes.rows.clear()  # that is committed
    for class_id, streamer in waits:
        said = Report(cmd="ended", class_id=class_id, streamer=streamer, result="fail", code=411)
        reports.take(changes, said, reports.ReportFacts(Choice({}, {}), waits))
    assert cancel_results(changes) == [("c-1", 0)]


def test_a_class_that_no_streamer_could_take_is_not_said_to_be_cancelled_once_its_streamer_is_back(
    tmp_path: Path,
) -> None:
    """It is told to release the class, and reports what it had sent."""
    changes = told_of.changed(READY, 300)
    reassign(changes, [READY], Choice({"s2": 0}, {"c-1": {"s2"}}), "s1 is lost", refused=False)
    (release,) = [one.message for one in changes.sends if isinstance(one.message, Release)]
    here = StreamerChanges(StreamerSettings.load(_env_file=None, streamer_name="s1", video_root=tmp_path), START + 400)
    one = Airing("c-1", "6666", AiringState.ON_AIR, "rtmp://p/c", START, START + 600, 6666, None, placement=2)
    after = airing.release(here, one, release, {})
    part: dict[str, Any] = {"url": 0, "session": 1, "source": "recording", "position_s": 0.0, "sent_s": 290.0}
    ending = {"as_run": [{**part, "from": START, "to": START + 290}], "why": airing.CANCELLED}
    airing.ended(here, "c-1", after, (), ending)
    (said,) = [one.message for one in here.sends if isinstance(one.message, Report)]
    reports.take(changes, said, reports.NO_FACTS)
    assert changes.orders["c-1"].state is BookingState.BROKEN
    assert "cancelled" not in [end.get("outcome") for end in told_of.stated(changes)]
    assert [sum(part.sent_s for part in parts) for *_, parts in changes.sent] == [290]


def test_a_stream_is_free_for_the_booking_that_comes_with_the_cancel_of_its_class(changes: Changes) -> None:
    first = revised.ready(changes)
    second = strategies.booking("c-2", push_url="rtmp://push.example/live/c-1")
    taken = {stream: [Slot("c-1", first.start_time, first.end_time)] for stream in second.streams}
    decide_orders(changes, [second], [Cancel(class_id="c-1")], revised.facts(taken=taken))
    assert changes.orders["c-1"].state is BookingState.CANCELLED
    assert changes.orders["c-2"].state is not BookingState.REFUSED, changes.orders["c-2"].message


def test_a_cancel_that_comes_again_beside_its_late_booking_is_answered(changes: Changes) -> None:
    """The first came before the booking, and was answered with 404."""
    known = revised.facts(early={"c-1"}, ends={"c-1": (404, "it is not booked here", 0.0)})
    decide_orders(changes, [strategies.booking("c-1")], [Cancel(class_id="c-1")], known)
    assert cancel_results(changes) == [("c-1", 0)]


def test_a_second_airing_that_the_change_before_takes_away_is_not_said_to_be_changed(changes: Changes) -> None:
    revised.ready(changes, push_url_backup="rtmp://other.example/live/b")
    revised.change(changes, push_url_backup="")
    revised.change(changes, push_url_backup="rtmp://other.example/live/b2")
    for class_id in [one for one in ("c-1^1", "c-1^2") if one in changes.orders]:
        revised.in_force(changes, class_id)
    assert changes.orders["c-1~backup"].state is BookingState.CANCELLED
    assert sorted(revised.answers(changes)) == [("c-1", 0), ("c-1", 410)]


@pytest.mark.parametrize("sent_s", [0.0, 20.0])
def test_a_cancel_after_one_in_the_ui_is_not_answered_that_nothing_was_sent(sent_s: float) -> None:
    """How much was sent is not known yet, so that the event `ended` is put off, too."""
    changes = told_of.changed(READY, 30)
    said = told_of.report(result="fail", code=411, message="cancelled in the UI")
    reports.take(changes, said, reports.NO_FACTS)
    assert told_of.stated(changes) == []
    later = Changes(changes.settings, START + 31, orders=changes.orders)
    cancel(later, Cancel(class_id="c-1"))
    assert cancel_results(later) == []
    later.rows.clear()
    said = told_of.report(sent_s or None, result="fail", code=411)
    reports.take(later, said, reports.ReportFacts(Choice({}, {}), {("c-1", "s1"): 1}))
    assert [one.sent_s for one in revised.told(later, CancelResult)] == [sent_s]
