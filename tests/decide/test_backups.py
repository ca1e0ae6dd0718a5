"""A class with a push_url_backup is aired twice: from another streamer if there is one."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from lectern import errors
from lectern.decide import reports
from lectern.decide.placement import Choice, proceed, reassign, secondary_id
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import cancels
from lectern.states import BookingState
from lectern.wire.fields import MAX_NAME
from lectern.wire.messages import Prepare, Release, Report
from tests import strategies
from tests.decide.test_revisions import changes as changes  # noqa: PLC0414 (asked for here, too)
from tests.decide.test_revisions import told

BACKUP_URL = "rtmp://backup.example/live/c-1"
URL = "http://origin.example/6666.flv"
SECOND = "c-1~backup"


def placed(changes: Changes, *streamers: str, **fields: object) -> Order:
    """The class, after it was placed while *streamers* were alive."""
    order = changes.book(strategies.booking("c-1", push_url_backup=BACKUP_URL, **fields))
    proceed(changes, [(order, URL)], dict.fromkeys(streamers, 0))
    return changes.orders["c-1"]


def awaited(changes: Changes) -> list[tuple[object, object]]:
    """The classes whose cancel is to be confirmed, each with its streamer."""
    its = [one.after for one in changes.rows.values() if one.after and one.table is cancels]
    return [(one["class_id"], one["streamer"]) for one in its]


def test_the_second_airing_is_on_another_streamer(changes: Changes) -> None:
    """With a citation, a place in the cache and a push of its own; nobody is answered for it."""
    first = placed(changes, "s1", "s2")
    second = changes.orders[SECOND]
    assert (secondary_id("c-1"), secondary_id(SECOND)) == (SECOND, "c-1")
    assert {first.streamer, second.streamer} == {"s1", "s2"}
    prepares = told(changes, Prepare)
    assert [one.push_url for one in prepares] == ["rtmp://push.example/live/c-1", BACKUP_URL]
    assert [one.class_id for one in prepares] == ["c-1", SECOND]
    assert all("push_url_backup" not in (one.model_extra or {}) for one in prepares)
    assert second.promised_at == changes.now
    assert Report(cmd="prepared", class_id=SECOND, streamer="s2", result="success").class_id == SECOND
    changes.orders["c-1"] = replace(first, state=BookingState.RECEIVED)
    proceed(changes, [(changes.orders["c-1"], URL)], {"s1": 0, "s2": 0})
    assert [one.class_id for one in told(changes, Prepare)] == ["c-1", SECOND, "c-1"], "it is not placed twice"


def test_a_class_that_is_moved_keeps_away_from_its_other_airing(changes: Changes) -> None:
    """As long as there is a third streamer; else one sends both. If nobody can, it is alarmed, and nobody answered."""
    placed(changes, "s1", "s2")
    second = changes.orders[SECOND]
    first = changes.orders["c-1"]
    others = {name: 0 for name in ("s1", "s2", "s3") if name != second.streamer}
    reassign(changes, [second], Choice(others, {}), "it is lost", refused=False)
    assert changes.orders[SECOND].streamer == "s3"
    alone = {str(first.streamer): 0}
    reassign(changes, [changes.orders[SECOND]], Choice(alone, {}), "it is lost", refused=False)
    assert changes.orders[SECOND].streamer == first.streamer
    reassign(changes, [changes.orders[SECOND]], Choice({}, {}), "316 disk full", refused=True)
    assert [changes.orders[one].state for one in ("c-1", SECOND)] == [BookingState.PLACED, BookingState.BROKEN]
    said = [one.message for one in changes.sends if one.target in {"alarm", "order_result"}]
    assert [getattr(one, "code", None) for one in said] == [errors.NOT_MOVED.number]


def test_a_class_that_its_streamer_refuses_is_not_aired_by_the_other_one(changes: Changes) -> None:
    """The platform is told that it will not be aired, and moves it: its second airing would hold its backup stream."""
    first = placed(changes, "s1", "s2")
    second = changes.orders[SECOND]
    said = Report(cmd="prepared", class_id="c-1", streamer=str(first.streamer), result="fail", code=316)
    reports.take(changes, said, reports.ReportFacts(Choice({}, {}), {}))
    assert [changes.orders[one].state for one in ("c-1", SECOND)] == [BookingState.REFUSED, BookingState.CANCELLED]
    released = [(one.target, one.class_id) for one in changes.sends if isinstance(one.message, Release)]
    assert released == [(f"streamer:{second.streamer}", SECOND)]
    assert awaited(changes) == [(SECOND, second.streamer)]
    assert [one.target for one in changes.sends].count("order_result") == 1


@pytest.mark.parametrize(("its", "waits"), [(("c-1", SECOND), [SECOND]), ((SECOND, "c-1"), [])])
def test_a_class_that_no_streamer_can_take_is_refused_at_second_airing(
    changes: Changes, its: tuple[str, str], waits: list[str]
) -> None:
    """Whichever of them is looked at first; one that has lost its streamer by then has nobody to confirm its cancel."""
    placed(changes, "s1")
    reassign(changes, [changes.orders[one] for one in its], Choice({}, {}), "s1 is lost", refused=False)
    assert [changes.orders[one].state for one in ("c-1", SECOND)] == [BookingState.REFUSED, BookingState.CANCELLED]
    assert [class_id for class_id, _ in awaited(changes)] == waits


def test_a_backup_url_is_checked_as_the_push_url_is() -> None:
    """Its scheme, host and port; it is another stream than the push URL; the longer id still fits."""
    for wrong in ("http://push.example/live/c-1", "rtmp:///live/c-1", "rtmp://push.example:99999/live/c-1"):
        with pytest.raises(ValidationError):
            strategies.booking("c-1", push_url_backup=wrong)
    with pytest.raises(ValidationError, match="another stream"):
        strategies.booking("c-1", push_url_backup="RTMP://push.example:1935/live/c-1")
    with pytest.raises(ValidationError, match="characters shorter"):
        strategies.booking("c" * MAX_NAME, push_url_backup=BACKUP_URL)
    with pytest.raises(ValidationError):
        strategies.booking(SECOND)
