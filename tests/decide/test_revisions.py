"""A booked class is changed: admitted as a booking is, in force once its streamer has it, or left as it was."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lectern import errors
from lectern.decide import booking as bookings
from lectern.decide import change as decide_change
from lectern.decide import reports, transcoding
from lectern.decide.booking import BookingFacts
from lectern.decide.change import IN_FORCE
from lectern.decide.placement import Choice, cancel, proceed, reassign
from lectern.decide.transcoding import Waiters
from lectern.i18n import translated
from lectern.model.facts import Order, Rendition, Slot
from lectern.model.plan import Changes, Decided
from lectern.model.tables.teacher import orders
from lectern.states import BookingState, RenditionState, Resolution
from lectern.wire.messages import Amend, Cancel, Change, Prepare, Release, Report
from lectern.wire.outgoing import Alarm, CancelResult, ChangeResult, OrderResult
from tests import strategies
from tests.decide.test_booking import BOTH

LIES: str = "http://origin.example/6666_720P.flv"
OTHER: dict[str, Any] = {"record_id": 7777, "video_url_list": {"720P": "http://origin.example/7777_720P.flv"}}
TO_MAKE: dict[str, Any] = {"record_id": 7777, "video_url": "http://origin.example/7777.flv"}
FIRST = "c-1^1"
BACKUP_URL = "rtmp://backup.example/live/c-1"


@pytest.fixture
def changes() -> Iterator[Changes]:
    """What is decided; no message of it goes to nobody."""
    found = Changes(BOTH, strategies.NOW)
    yield found
    assert "streamer:" not in {one.target for one in found.sends}


def facts(**more: Any) -> BookingFacts:
    return BookingFacts(**{"renditions": {}, "taken": {}, "loads": {"s1": 0, "s2": 0}, **more})


def ready(changes: Changes, **fields: Any) -> Order:
    """A class that a streamer has prepared; what was said so far is forgotten."""
    order = changes.book(strategies.booking("c-1", **fields))
    proceed(changes, [(order, LIES)], {"s1": 0, "s2": 0})
    for class_id in list(changes.orders):
        prepared(changes, class_id)
    changes.sends.clear()
    return changes.orders["c-1"]


def prepared(changes: Changes, class_id: str, code: int = 0, message: str = "") -> None:
    """The streamer of a class, or of a revision, reports that it has it, or why not."""
    take(changes, changes.orders[class_id], "prepared", code, message)


def applied(changes: Changes, class_id: str, code: int = 0, message: str = "", of_placement: int | None = None) -> None:
    """The streamer of a class confirms that it airs it as its revision says, or says why not."""
    revision = changes.orders[class_id]
    its = changes.orders[revision.revises or ""]
    take(changes, revision, "amended", code, message, of_placement or its.placement)


def in_force(changes: Changes, class_id: str) -> None:
    """The streamer prepares a revision, is told to apply it, and confirms that it airs its class so."""
    prepared(changes, class_id)
    applied(changes, class_id)


def take(
    changes: Changes, order: Order, cmd: Any, code: int = 0, message: str = "", of_placement: int | None = None
) -> None:
    its = {"cmd": cmd, "class_id": order.class_id, "streamer": order.streamer or "", "placement": order.placement}
    said = {"result": "fail" if code else "success", "code": code, "message": message, "of_placement": of_placement}
    reports.take(changes, Report.model_validate(its | said), reports.ReportFacts(Choice({"s1": 0, "s2": 0}, {}), {}))


def change(changes: Changes, known: BookingFacts | None = None, **fields: Any) -> None:
    decide_change.decide(changes, Change(class_id="c-1", **fields), known or facts())


def told(changes: Decided[Any], kind: type[Any]) -> list[Any]:
    return [one.message for one in changes.sends if isinstance(one.message, kind)]


def answers(changes: Changes) -> list[tuple[str, int]]:
    return [(one.class_id, one.code) for one in told(changes, ChangeResult)]


CHANGES: dict[str, dict[str, Any]] = {
    "earlier": {"start_time": strategies.NOW + 400},
    "later": {"start_time": strategies.NOW + 1200},
    "longer": {"end_time": strategies.NOW + 9000},
    "shorter": {"end_time": strategies.NOW + 900},
    "another push URL": {"push_url": "rtmp://other.example/live/c-1"},
    "another recording": OTHER,
}


@pytest.mark.parametrize("fields", CHANGES.values(), ids=CHANGES)
def test_a_change_is_in_force_once_its_streamer_confirms_it(changes: Changes, fields: dict[str, Any]) -> None:
    before = ready(changes)
    change(changes, **fields)
    (asked,) = told(changes, Prepare)
    assert (asked.class_id, changes.orders[FIRST].streamer) == (FIRST, before.streamer)
    assert changes.table[-1]["where"] == before.streamer
    assert changes.orders["c-1"] == before
    assert answers(changes) == []
    prepared(changes, FIRST)
    amend = Amend(class_id="c-1", revision=FIRST, placement=before.placement, revision_placement=1)
    assert told(changes, Amend) == [amend]
    assert (answers(changes), changes.orders["c-1"]) == ([], before), "nobody knows yet whether it will be aired so"
    applied(changes, FIRST)
    after = changes.orders["c-1"]
    wanted = strategies.booking("c-1", **({"video_url": None} if "record_id" in fields else {}) | fields)
    assert (after.payload, after.booked) == (wanted.payload, before.payload)
    assert (after.start_time, after.end_time, after.stem) == (wanted.start_time, wanted.end_time, wanted.stem)
    assert (after.state, after.streamer, after.placement) == (before.state, before.streamer, before.placement)
    assert [(one.code, one.message) for one in told(changes, ChangeResult)] == [(0, IN_FORCE)]
    assert told(changes, OrderResult) == []


def test_what_stays_is_not_named_and_the_recording_is_where_it_was(changes: Changes) -> None:
    """Its rendition was transcoded, so that no URL of the booking leads to it."""
    ready(changes)
    rendition = Rendition(RenditionState.SUCCESS)
    change(changes, facts(renditions={(6666, Resolution.P720): rendition}, loads={}), end_time=strategies.NOW + 9000)
    (asked,) = told(changes, Prepare)
    assert (asked.video_url, asked.end_time) == (LIES, strategies.NOW + 9000)


@pytest.mark.parametrize(
    ("state", "fields", "code"),
    [
        (None, {"end_time": strategies.NOW + 9000}, errors.NOT_BOOKED),
        (BookingState.CANCELLED, {"end_time": strategies.NOW + 9000}, errors.CANCELLED),
        (BookingState.AIRED, {"end_time": strategies.NOW + 9000}, errors.ENDED),
        (BookingState.READY, {"end_time": strategies.NOW + 100}, errors.MALFORMED),
        (BookingState.READY, {"start_time": strategies.NOW - 9, "end_time": strategies.NOW - 1}, errors.ENDED),
        (BookingState.READY, {"push_url": "rtmp://push.example/live/c-2"}, errors.CONFLICT),
        (BookingState.READY, {"record_id": 7777}, errors.NO_TRANSCODER),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_the_reason_and_nothing_else_is_done(
    changes: Changes, state: BookingState | None, fields: dict[str, Any], code: errors.ErrorCode
) -> None:
    if state is not None:
        order = ready(changes)
        changes.orders["c-1"] = replace(order, state=state)
    before = dict(changes.orders)
    taken = {"rtmp://push.example:1935/live/c-2": [Slot("c-2", strategies.NOW, strategies.NOW + 5000)]}
    change(changes, facts(taken=taken), **fields)
    (said,) = told(changes, ChangeResult)
    assert (said.result, said.code) == ("fail", code.number)
    assert said.message
    assert changes.orders == before
    assert len(changes.sends) == 1


def test_a_class_on_air_cannot_begin_later(changes: Changes) -> None:
    ready(changes, start_time=strategies.NOW - 10)
    change(changes, start_time=strategies.NOW + 60)
    assert answers(changes) == [("c-1", errors.MALFORMED.number)]


def test_a_streamer_that_cannot_have_it_leaves_the_class_as_it_was(changes: Changes) -> None:
    before = ready(changes)
    change(changes, **OTHER)
    prepared(changes, FIRST, errors.DISK_FULL.number, "no room")
    assert changes.orders["c-1"] == before
    assert changes.orders[FIRST].state is BookingState.REFUSED
    (said,) = told(changes, ChangeResult)
    assert (said.code, said.message) == (316, "no room")
    assert [(one.class_id, one.detail) for one in changes.notes if one.what == "change refused"] == [
        ("c-1", "316: no room")
    ]


def test_a_second_delivery_changes_nothing_and_is_answered_as_the_first(changes: Changes) -> None:
    ready(changes)
    for _ in range(2):
        change(changes, **OTHER)
    assert len(told(changes, Prepare)) == 1
    prepared(changes, FIRST)
    assert answers(changes) == []
    applied(changes, FIRST)
    assert answers(changes) == [("c-1", 0)] * 2
    after = changes.orders["c-1"]
    change(changes, **OTHER)
    assert answers(changes) == [("c-1", 0)] * 3
    assert (changes.orders["c-1"], len(told(changes, Amend))) == (after, 1)
    made = bookings.plan([strategies.booking("c-1")], BookingFacts(changes.orders), BOTH, strategies.NOW)
    assert made == [""], "what was booked first contradicts nothing"


def test_changes_add_up_also_while_one_waits(changes: Changes) -> None:
    ready(changes)
    change(changes, **OTHER)
    change(changes, end_time=strategies.NOW + 9000)
    change(changes, push_url="rtmp://other.example/live/c-1")
    in_force(changes, "c-1^3")
    after = changes.orders["c-1"]
    assert (after.stem, after.end_time) == ("7777_720P", strategies.NOW + 9000)
    assert answers(changes) == [("c-1", 0)] * 3
    assert sorted(one.message == IN_FORCE for one in told(changes, ChangeResult)) == [False, False, True]
    assert [one.class_id for one in told(changes, Release)] == [FIRST, "c-1^2"]
    prepared(changes, FIRST)  # it comes late, and is a part of what is in force
    assert (changes.orders["c-1"], len(answers(changes))) == (after, 3)


@pytest.mark.parametrize("left_s", [4.9, 0.0, -1.0])
@pytest.mark.parametrize("of", ["booked", "changed"])
def test_a_class_is_not_changed_in_the_last_seconds_before_its_end(changes: Changes, left_s: float, of: str) -> None:
    """Its streamer may not do it in time, and nobody could say afterwards which end was aired."""
    end = strategies.NOW + 99
    before = ready(changes, start_time=strategies.NOW - 99, end_time=end if of == "booked" else end + 600)
    changes.now = end - left_s
    change(changes, end_time=end if of == "changed" else end + 600)
    assert (answers(changes), changes.orders["c-1"], told(changes, Prepare)) == ([("c-1", 410)], before, [])


@pytest.mark.parametrize("is_over", [False, True], ids=["in the last seconds", "over"])
def test_a_change_that_is_prepared_too_late_is_refused_and_released(changes: Changes, is_over: bool) -> None:
    before = ready(changes, start_time=strategies.NOW - 99, end_time=strategies.NOW + 60)
    change(changes, **OTHER)
    if is_over:
        before = changes.move(before, BookingState.AIRED)
    else:
        changes.now += 56
    prepared(changes, FIRST)
    assert (answers(changes), changes.orders["c-1"], told(changes, Amend)) == ([("c-1", 410)], before, [])
    assert [one.class_id for one in told(changes, Release)] == [FIRST]


@pytest.mark.parametrize("first", [1, 2], ids=["told both", "told the later one alone"])
@pytest.mark.parametrize("end_is_known", [False, True])
def test_changes_before_one_that_came_too_late_are_answered_as_their_streamer_says(
    changes: Changes, first: int, end_is_known: bool
) -> None:
    """The later one includes them, so nobody has said anything of them yet."""
    order = ready(changes)
    for end in (9000, 9500):
        change(changes, end_time=strategies.NOW + end)
    for number in (first, 3 - first):
        prepared(changes, f"c-1^{number}")
    if end_is_known:
        changes.move(order, BookingState.AIRED)
    for one in ("c-1^2", FIRST):
        assert told(changes, Amend)[-1].revision == one
        applied(changes, one, errors.ENDED.number, "the class was over before its change was in force")
    assert answers(changes) == [("c-1", 410)] * 2
    assert changes.orders["c-1"].end_time == order.end_time


def test_a_change_is_applied_by_itself_if_a_later_one_that_includes_it_is_lost(changes: Changes) -> None:
    ready(changes)
    change(changes, end_time=strategies.NOW + 9000)
    change(changes, **OTHER)
    for one in ("c-1^2", FIRST):
        prepared(changes, one)
    prepared(changes, "c-1^2", errors.BAD_RECORDING.number, "its file is lost")
    assert told(changes, Amend)[-1].revision == FIRST
    applied(changes, FIRST, errors.NOT_BOOKED.number, "its streamer has the class without this change")
    in_force(changes, FIRST)
    assert answers(changes) == [("c-1", errors.BAD_RECORDING.number), ("c-1", 0)]
    assert (changes.orders["c-1"].end_time, changes.orders["c-1"].record_id) == (strategies.NOW + 9000, 6666)


def test_a_change_is_in_force_also_if_the_end_of_its_class_was_reported_first(changes: Changes) -> None:
    """Reports are handled by several runs at once; what was aired is what the change said."""
    ready(changes)
    change(changes, end_time=strategies.NOW + 9000)
    prepared(changes, FIRST)
    changes.move(changes.orders["c-1"], BookingState.AIRED)
    applied(changes, FIRST)
    assert (answers(changes), changes.orders["c-1"].end_time) == ([("c-1", 0)], strategies.NOW + 9000)


def test_a_change_is_prepared_anew_if_its_streamer_has_the_class_without_it(changes: Changes) -> None:
    """The class was moved away and back, or the streamer lost the rows of the change: it is not said to be in force."""
    ready(changes)
    change(changes, **OTHER)
    prepared(changes, FIRST)
    applied(changes, FIRST, errors.NOT_BOOKED.number, "its streamer has the class without this change")
    assert (answers(changes), changes.orders[FIRST].state, len(told(changes, Prepare))) == ([], BookingState.PLACED, 2)
    in_force(changes, FIRST)
    assert answers(changes) == [("c-1", 0)]


def test_a_change_of_which_nothing_was_confirmed_is_told_again_the_newest_alone(changes: Changes) -> None:
    ready(changes)
    for end in (9000, 9500):
        change(changes, end_time=strategies.NOW + end)
    for one in (FIRST, "c-1^2"):
        prepared(changes, one)
    told_before = len(told(changes, Amend))
    decide_change.apply_again(changes, [changes.orders[FIRST], changes.orders["c-1^2"]])
    assert [one.revision for one in told(changes, Amend)[told_before:]] == ["c-1^2"]
    assert list(changes.rows) == [(orders, FIRST), (orders, "c-1^2")]


@pytest.mark.parametrize(
    ("others", "said"),
    [((), "1 change refused"), (("c-2",), "1 class refused; 1 change refused")],
    ids=["nobody else waits", "a class waits, too"],
)
def test_another_recording_is_transcoded_first_and_its_failure_refuses_the_change_alone(
    changes: Changes, others: tuple[str, ...], said: str
) -> None:
    """The alarm does not call a class refused that goes on as it was."""
    before = ready(changes)
    change(changes, **TO_MAKE)
    (attempt,) = changes.begun
    revision = changes.orders[FIRST]
    assert (attempt.stem, revision.state) == ("7777_720P", BookingState.WAITING)
    assert dict(changes.joins) == {"7777_720P": [FIRST]}
    waiting = [changes.move(changes.book(strategies.booking(one)), BookingState.WAITING) for one in others]
    key = (7777, Resolution.P720)
    transcoding.give_up(changes, key, errors.TRANSCODE_FAILED, "ffmpeg", Waiters([*waiting, revision]))
    (alarm,) = told(changes, Alarm)
    assert alarm.message == f"7777_720P: ffmpeg; {said}"
    assert (alarm.model_extra or {}).get("classes", []) == list(others)
    assert (answers(changes), changes.orders["c-1"]) == ([("c-1", 208)], before)


def test_the_alarm_of_a_change_names_the_class_that_people_know(changes: Changes) -> None:
    """They type the id after `lectern explain`; that of the revision is ours alone."""
    ready(changes)
    change(changes, **TO_MAKE)
    reports.warn(changes, [changes.orders[FIRST]])
    assert list(changes.rows) == [(orders, FIRST)]
    its = Changes(BOTH, strategies.NOW)
    ready(its)
    change(its, **OTHER)
    reassign(its, [its.orders["c-1"], its.orders[FIRST]], Choice({}, {}), "s1 is lost", refused=False)
    waits, lost, refused = (*told(changes, Alarm), *told(its, Alarm))
    assert (waits.class_id, lost.class_id, refused.class_id) == ("c-1", "c-1", "c-1")
    assert waits.message == "c-1: its change has waited for 7777_720P for more than 24 h"
    assert refused.message == "c-1: its change is refused: s1 is lost"
    assert answers(its) == [("c-1", errors.NO_STREAMER.number)]


def test_a_rendition_that_is_made_goes_to_the_streamer_of_the_class(changes: Changes) -> None:
    before = ready(changes)
    change(changes, **TO_MAKE)
    url = "http://origin.example/7777_720P.flv"
    loads = {"s1": 0, "s2": 0, "s3": 0}
    transcoding.succeed(changes, (7777, Resolution.P720), url, Waiters([changes.orders[FIRST]]), loads)
    assert (changes.orders[FIRST].streamer, changes.orders[FIRST].url) == (before.streamer, url)
    assert changes.table[-1]["where"] == before.streamer
    in_force(changes, FIRST)
    assert (changes.orders["c-1"].url, changes.orders["c-1"].stem) == (url, "7777_720P")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_rendition_for_a_class_that_is_over_meanwhile_is_sent_to_nobody(changes: Changes, is_there: bool) -> None:
    """Its change is refused, and the story of the class says in every language why."""
    before = ready(changes)
    change(changes, **TO_MAKE)
    if is_there:
        changes.move(before, BookingState.AIRED)
    else:
        del changes.orders["c-1"]
    revision = changes.orders[FIRST]
    transcoding.succeed(changes, (7777, Resolution.P720), "http://o.example/7777.flv", Waiters([revision]), {"s1": 0})
    assert (told(changes, Prepare), answers(changes)) == ([], [("c-1", errors.ENDED.number)])
    assert ("已下课" if is_there else "没人") in translated(changes.notes[-1].detail, "zh")


def test_a_change_that_holds_takes_the_one_before_it_off_its_waiting_list(changes: Changes) -> None:
    ready(changes)
    for fields in (TO_MAKE, OTHER):
        change(changes, **fields)
    in_force(changes, "c-1^2")
    assert (changes.leaves, answers(changes)) == ([("7777_720P", FIRST)], [("c-1", 0)] * 2)


LEFT = [("6666_720P", "c-1")]
WAITING: dict[str, tuple[dict[str, Any], dict[str, int], BookingState, list[Any], dict[str, list[str]], int]] = {
    "what it needs is there": (OTHER, {"s1": 0}, BookingState.PLACED, LEFT, {}, 0),
    "and no streamer is": (OTHER, {}, BookingState.WAITING, [], {}, errors.NO_STREAMER.number),
    "another end": ({"end_time": strategies.NOW + 9000}, {"s1": 0}, BookingState.WAITING, [], {}, 0),
    "it waits for another recording": (TO_MAKE, {"s1": 0}, BookingState.WAITING, LEFT, {"7777_720P": ["c-1"]}, 0),
}
"""What is changed, the streamers, the state then, the waiting lists that the class leaves and joins, the answer."""


@pytest.mark.parametrize("case", WAITING)
def test_a_class_that_waits_for_its_rendition_is_changed_at_once_or_stays_as_it_was(
    changes: Changes, case: str
) -> None:
    """It is not refused because of a change that no streamer can have."""
    fields, loads, state, left, joined, code = WAITING[case]
    before = changes.move(changes.book(strategies.booking("c-1")), BookingState.WAITING)
    renditions = {(6666, Resolution.P720): Rendition(RenditionState.TRANSCODING)}
    change(changes, facts(renditions=renditions, loads=loads), **fields)
    after = changes.orders["c-1"]
    assert (after.state, after == before) == (state, code > 0)
    assert (changes.leaves, changes.joins, answers(changes)) == (left, joined, [("c-1", code)])
    assert told(changes, OrderResult) == []
    placed = [(one.class_id, one.video_url) for one in told(changes, Prepare)]
    assert placed == [("c-1", OTHER["video_url_list"]["720P"])] * (state is BookingState.PLACED)


def test_the_second_airing_is_changed_too_and_nobody_is_answered_for_it(changes: Changes) -> None:
    ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    change(changes, end_time=strategies.NOW + 9000, push_url_backup="rtmp://backup.example/live/new")
    assert {one.class_id for one in told(changes, Prepare)} == {FIRST, "c-1~backup^1"}
    in_force(changes, "c-1~backup^1")
    assert answers(changes) == []
    in_force(changes, FIRST)
    assert answers(changes) == [("c-1", 0)]
    assert '"rtmp://backup.example/live/new"' in changes.orders["c-1~backup"].payload
    assert changes.orders["c-1~backup"].end_time == strategies.NOW + 9000


@pytest.mark.parametrize("is_applied", [True, False], ids=["in force there", "on its way"])
def test_the_second_airing_stays_as_its_class_whose_change_is_refused(changes: Changes, is_applied: bool) -> None:
    """The platform is told that the class is aired as it was; the other streamer had room for the change."""
    ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    before = changes.orders["c-1~backup"]
    change(changes, start_time=strategies.NOW + 7000, end_time=strategies.NOW + 9000)
    if is_applied:
        in_force(changes, "c-1~backup^1")
        assert changes.orders["c-1~backup"].start_time == strategies.NOW + 7000
    prepared(changes, FIRST, errors.DISK_FULL.number, "no room")
    assert answers(changes) == [("c-1", errors.DISK_FULL.number)]
    in_force(changes, "c-1~backup^2")
    after = changes.orders["c-1~backup"]
    assert (after.start_time, after.end_time, after.url) == (before.start_time, before.end_time, before.url)
    assert answers(changes) == [("c-1", errors.DISK_FULL.number)]


def test_the_second_airing_stays_as_its_class_whose_change_is_prepared_too_late(changes: Changes) -> None:
    """It would go on for minutes after its class, whose platform was told that it ends as it was booked."""
    ready(changes, start_time=strategies.NOW - 99, end_time=strategies.NOW + 60, push_url_backup=BACKUP_URL)
    change(changes, end_time=strategies.NOW + 600)
    in_force(changes, "c-1~backup^1")
    changes.now += 56
    prepared(changes, FIRST)
    in_force(changes, "c-1~backup^2")
    assert [changes.orders[one].end_time for one in ("c-1", "c-1~backup")] == [strategies.NOW + 60] * 2
    assert (answers(changes), told(changes, Alarm)) == ([("c-1", 410)], [])


def test_people_hear_that_the_change_of_a_second_airing_is_prepared_too_late(changes: Changes) -> None:
    """Nobody is answered for it; and it is not changed back, for which it is too late as well."""
    ready(changes, start_time=strategies.NOW - 99, end_time=strategies.NOW + 60, push_url_backup=BACKUP_URL)
    change(changes, end_time=strategies.NOW + 600)
    changes.now += 56
    for one in (FIRST, "c-1~backup^1"):
        prepared(changes, one)
    assert (answers(changes), [one.code for one in told(changes, Alarm)]) == ([("c-1", 410)], [410])
    assert "c-1~backup^2" not in changes.orders


@pytest.mark.parametrize("fields", [OTHER, {"end_time": strategies.NOW + 9000}], ids=["recording", "end"])
@pytest.mark.parametrize("number", [1, 2], ids=["one after the other", "together"])
def test_a_second_airing_that_is_new_has_the_changes_that_were_asked_for_before_it_was_placed(
    changes: Changes, fields: dict[str, Any], number: int
) -> None:
    """There was none yet that could be changed with its class: it would air another recording, or at another time."""
    ready(changes)
    change(changes, push_url_backup="rtmp://backup.example/live/c-1")
    change(changes, **fields)
    for applies in range(number, 3):
        in_force(changes, f"c-1^{applies}")
    prepared(changes, "c-1~backup")
    if number == 1:
        in_force(changes, "c-1~backup^1")
    one, second = changes.orders["c-1"], changes.orders["c-1~backup"]
    assert (second.stem, second.end_time, second.url) == (one.stem, one.end_time, one.url)
    assert [code for _, code in answers(changes)] == [0, 0]


def test_the_stream_that_a_waiting_class_leaves_is_free_for_a_change_that_came_with_it(changes: Changes) -> None:
    """One after the other both would hold, so they do together."""
    for class_id in ("c-1", "c-2"):
        changes.move(changes.book(strategies.booking(class_id)), BookingState.WAITING)
    its = changes.orders["c-1"]
    slot = Slot("c-1", its.start_time, its.end_time)
    renditions = {(6666, Resolution.P720): Rendition(RenditionState.TRANSCODING)}
    known = facts(renditions=renditions, taken={"rtmp://push.example:1935/live/c-1": [slot]})
    change(changes, known, push_url="rtmp://other.example/live/c-1")
    decide_change.decide(changes, Change(class_id="c-2", push_url="rtmp://push.example/live/c-1"), known)
    assert answers(changes) == [("c-1", 0), ("c-2", 0)]


def test_a_second_airing_follows_its_class_to_a_later_start_also_if_it_has_begun(changes: Changes) -> None:
    """Else it would be aired at a time at which its class is not, and end before it."""
    before = ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    change(changes, start_time=before.start_time - 100)
    in_force(changes, "c-1~backup^1")
    changes.now = before.start_time - 50
    prepared(changes, FIRST, errors.DISK_FULL.number, "no room")
    assert changes.orders["c-1~backup^2"].start_time == before.start_time


def test_a_second_airing_that_is_as_its_class_is_not_changed_when_a_change_is_refused(changes: Changes) -> None:
    """Its own change was refused, too, or another change of both still waits."""
    ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    change(changes, end_time=strategies.NOW + 8000)
    prepared(changes, "c-1~backup^1", errors.DISK_FULL.number, "no room")
    prepared(changes, FIRST, errors.DISK_FULL.number, "no room")
    assert "c-1~backup^2" not in changes.orders
    assert answers(changes) == [("c-1", errors.DISK_FULL.number)]
    assert [one.code for one in told(changes, Alarm)] == [errors.DISK_FULL.number], "of what nobody is answered for"
    change(changes, end_time=strategies.NOW + 9000)
    change(changes, end_time=strategies.NOW + 9500)
    prepared(changes, "c-1^2", errors.DISK_FULL.number, "no room")
    assert "c-1~backup^4" not in changes.orders


def test_an_empty_backup_url_takes_the_second_airing_away_once_the_change_is_in_force(changes: Changes) -> None:
    """Until then it is aired as booked, and nobody is answered for it; it is not brought back by a later change."""
    url = "rtmp://backup.example/live/c-1"
    ready(changes, push_url_backup=url)
    change(changes, push_url_backup="")
    states = [changes.orders["c-1~backup"].state]
    in_force(changes, FIRST)
    states.append(changes.orders["c-1~backup"].state)
    assert states == [BookingState.READY, BookingState.CANCELLED]
    assert {one.class_id for one in told(changes, Release)} == {"c-1~backup"}
    assert "push_url_backup" not in changes.orders["c-1"].payload
    change(changes, push_url_backup="")
    change(changes, push_url_backup=url)
    assert answers(changes) == [("c-1", 0), ("c-1", 0), ("c-1", errors.ENDED.number)]


def test_a_second_airing_that_is_over_is_not_said_to_be_changed(changes: Changes) -> None:
    """No streamer could take it: its new URL would be nobody's. A change of the class alone is not refused."""
    ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    changes.move(changes.orders["c-1~backup"], BookingState.BROKEN, errors.NOT_MOVED.number, "the disk is full")
    change(changes, push_url_backup="rtmp://backup.example/live/new")
    (refused,) = told(changes, ChangeResult)
    assert (refused.code, told(changes, Prepare)) == (errors.ENDED.number, [])
    assert all(word in refused.message for word in ("second airing is broken", "the disk is full"))
    changes.sends.clear()
    change(changes, end_time=strategies.NOW + 9000, push_url_backup="rtmp://backup.example/live/c-1")
    in_force(changes, FIRST)
    assert answers(changes) == [("c-1", 0)]


@pytest.mark.parametrize("is_prepared", [False, True], ids=["before it is prepared", "after it"])
def test_a_change_follows_its_class_to_another_streamer(changes: Changes, is_prepared: bool) -> None:
    """What the one before still says of it puts nothing in force: the new one has the class as it was."""
    before = ready(changes)
    change(changes, **OTHER)
    if is_prepared:
        prepared(changes, FIRST)
    reassign(changes, [changes.orders["c-1"]], Choice({"s1": 0, "s2": 0}, {}), "it is lost", refused=False)
    if is_prepared:
        applied(changes, FIRST, of_placement=before.placement)
    else:
        prepared(changes, FIRST)
    moved, revision = changes.orders["c-1"], changes.orders[FIRST]
    assert (moved.stem, moved.streamer != before.streamer) == (before.stem, True)
    assert (revision.streamer, revision.state, answers(changes)) == (moved.streamer, BookingState.PLACED, [])
    in_force(changes, FIRST)
    assert (answers(changes), changes.orders["c-1"].stem) == ([("c-1", 0)], "7777_720P")
    asked = told(changes, Amend)[-1]
    assert (asked.placement, asked.revision_placement) == (moved.placement, revision.placement) == (2, 2)


def test_a_change_that_is_so_already_is_no_success_after_the_end(changes: Changes) -> None:
    """Until then, it is answered as the first delivery was."""
    one = ready(changes)
    for now in (one.end_time - 1, one.end_time):
        changes.now = now
        change(changes, end_time=one.end_time)
    assert answers(changes) == [("c-1", 0), ("c-1", errors.ENDED.number)]


# What is said of a class that several messages are about: each asks for one answer, and each answer is so.


def test_a_change_that_is_cancelled_with_its_class_is_answered_and_has_no_cancel_result(changes: Changes) -> None:
    """Its streamers confirm each release, also those of the second airing; the platform asked for one cancel."""
    ready(changes, push_url_backup="rtmp://backup.example/live/c-1")
    change(changes, **OTHER)
    cancel(changes, Cancel(class_id="c-1"), {}, ())
    assert {one.state for one in changes.orders.values()} == {BookingState.CANCELLED}
    assert answers(changes) == [("c-1", 411)]
    assert {one.class_id for one in told(changes, Release)} == {"c-1", "c-1^1", "c-1~backup", "c-1~backup^1"}
    waits = {(one.class_id, one.streamer or ""): 1 for one in changes.orders.values()}
    changes.rows.clear()  # that is committed
    for class_id, streamer in waits:
        said = Report(cmd="ended", class_id=class_id, streamer=streamer, result="fail", code=411)
        reports.take(changes, said, reports.ReportFacts(Choice({}, {}), waits))
    assert [(one.class_id, one.code) for one in told(changes, CancelResult)] == [("c-1", 0)]


def test_a_stream_is_free_for_the_booking_that_comes_with_the_cancel_of_its_class(changes: Changes) -> None:
    first = ready(changes)
    second = strategies.booking("c-2", push_url="rtmp://push.example/live/c-1")
    taken = {stream: [Slot("c-1", first.start_time, first.end_time)] for stream in second.streams}
    bookings.decide_orders(changes, [second], [Cancel(class_id="c-1")], facts(taken=taken))
    assert changes.orders["c-1"].state is BookingState.CANCELLED
    assert changes.orders["c-2"].state is not BookingState.REFUSED, changes.orders["c-2"].message


def test_each_booking_of_a_batch_is_placed_waits_or_is_refused(changes: Changes) -> None:
    over = strategies.booking("c-3", start_time=changes.now - 9, end_time=changes.now)
    batch = [strategies.booking("c-1", video_resolution=None), strategies.booking("c-2"), over]
    bookings.decide_orders(changes, batch, [], facts())
    assert [one.state for one in changes.orders.values()] == ["placed", "waiting", "refused"]
    assert (changes.joins, len(changes.begun)) == ({"6666_720P": ["c-2"]}, 1)
    assert changes.orders["c-1"].url == batch[0].video_url


def test_a_cancel_that_comes_again_beside_its_late_booking_is_answered(changes: Changes) -> None:
    """The first came before the booking, and was answered with 404."""
    known = facts(early={"c-1"}, ends={"c-1": (404, "it is not booked here", 0.0)})
    bookings.decide_orders(changes, [strategies.booking("c-1")], [Cancel(class_id="c-1")], known)
    assert [(one.class_id, one.code) for one in told(changes, CancelResult)] == [("c-1", 0)]


def test_a_second_airing_that_the_change_before_takes_away_is_not_said_to_be_changed(changes: Changes) -> None:
    ready(changes, push_url_backup="rtmp://other.example/live/b")
    change(changes, push_url_backup="")
    change(changes, push_url_backup="rtmp://other.example/live/b2")
    for class_id in [one for one in ("c-1^1", "c-1^2") if one in changes.orders]:
        in_force(changes, class_id)
    assert changes.orders["c-1~backup"].state is BookingState.CANCELLED
    assert sorted(answers(changes)) == [("c-1", 0), ("c-1", 410)]
    assert any("airing is cancelled" in one.message for one in told(changes, ChangeResult))
