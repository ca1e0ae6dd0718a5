"""What each look at the rows finds: whom it is for, and from which second on; and what a note changes, and for whom."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, Table, literal_column, select

from lectern import formatting
from lectern.db import account, airings, bookings, cache, events, inbox, leases, outbox, timetable, transcodings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.outbox import Rest, Telling, Unsent
from lectern.db.timetable import Search, Span
from lectern.db.writer import lines, write
from lectern.decide import forecast as decide_forecast
from lectern.errors import DISK_FULL, ForbiddenMove
from lectern.model.facts import Airing, Event, Idle, UnrecordedWork
from lectern.model.plan import Changes, Increment, RowChange
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, tasks
from lectern.model.tables.teacher import cancels, class_events, journal, moves, orders, streamers, videos
from lectern.settings import StreamerSettings
from lectern.states import Backend, BookingState
from lectern.wire.outgoing import OrderResult, Outgoing, OutgoingKind
from tests import strategies
from tests.rows import commit, order, put
from tests.strategies import NOW

Rows = Mapping[Table, Iterable[Mapping[str, object]]]


def letter(number: int, command: str, class_id: str, state: str = "new", owner: str | None = None) -> dict[str, object]:
    """A message of the inbox; they came a second apart."""
    its = {"source": "x", "state": state, "owner": owner, "received_at": NOW - 9 + number, "not_before": NOW + 60}
    return {"id": number, "command": command, "body": f'{{"class_id": "{class_id}"}}', **its}


TOLD_AT = {"cancelled_at": NOW - 60, "told_at": NOW - 60}
TEACHERS: Rows = {
    orders: [
        order("over", "ready", -600, 0, streamer="s1", record_id=409, resolution="720P"),
        order("now", "placed", 0, 600, streamer="s1", url_stem="lesson-7", url="http://o/1?secret"),
        order("now^1", "ready", 0, 600, revises="now", streamer="s2"),
        order("soon", "waiting", 300, 900, record_id=409, resolution="720P", institution_id="i-2"),
        order("late", "received", 600, 1200, record_id=7, resolution="240P"),
        order("refused", "refused", 300, 900, code=409, answered_at=NOW, streamer="s2"),
        order("gaps", "aired with gaps", -7200, -3600),
        order("told", "broken", -7200, -3600),
        order("told^1", "ready", -7200, -3600, revises="told"),
        order("dropped", "cancelled", -300, 600, updated_at=NOW - 100),
        order("unconfirmed", "cancelled", -300, 600),
    ],
    streamers: [{"name": "s1", "session": "e-1", "lost_at": NOW - 9}, {"name": "s2"}],
    class_events: [{"class_id": "told", "seq": 1, "at": NOW, "event": "ended", "body": "{}"}],
    cancels: [
        {"class_id": "early", "until": NOW + 60, **TOLD_AT},
        {"class_id": "unconfirmed", "streamer": "s1", "until": NOW + 600, **TOLD_AT},
    ],
    videos: [
        {"record_id": 409, "resolution": "720P", "status": "transcoding", "deadline": NOW + 200},
        {"record_id": 7, "resolution": "240P", "status": "success", "backend": "oss"}
        | {"requested_at": NOW - 90, "updated_at": NOW},
    ],
    journal.inbox: [
        *(letter(1, "order", "c-1", owner="t1"), letter(2, "order", "c-2", "done", "t1"), letter(3, "change", "c-1")),
        *(letter(4, "change", "c-1", owner="t2"), letter(5, "change", "c-2"), letter(6, "order", "c-9")),
        *(letter(7, "change", "c-2"), letter(8, "change", "c-3"), letter(9, "sweep", "c-4", "dead", "t2")),
    ],
    journal.events: [{"at": NOW, "what": what, "class_id": "odd", "host": "t"} for what in ("malformed", "cancelled")],
    journal.outbox: [{"target": "a", "kind": "channel", "body": "{}", "created_at": NOW - 50}],
}
COUNTED = {("ready", 0): 1, ("placed", 0): 1, ("waiting", 0): 1, ("received", 0): 1}
LATELY = {("refused", 409): 1, ("aired with gaps", 0): 1, ("broken", 0): 1, ("cancelled", 0): 2}
EVERYBODY = ("over", "now", "soon", "late", "refused", "gaps", "told")
WHOLE, NEXT, OURS = Span(NOW - 9000, NOW + 9000, None), Span(NOW, NOW + 600, None), Span(NOW, NOW + 600, "i-1")


def names(found: Iterable[Any]) -> list[str]:
    """Of classes and cancels in their order; of a set in that of the alphabet."""
    its = [one if isinstance(one, str) else one.class_id for one in found]
    return sorted(its) if isinstance(found, set) else its


def searched(connection: Connection, wanted: Search, span: Span = WHOLE) -> set[str]:
    return set(names(timetable.found(connection, span, wanted, 99)))


def waits(connection: Connection, now: float, of: str | None) -> list[tuple[object, ...]]:
    """Who waits, until which deadline, and since when its streamer is lost."""
    found = timetable.waiting(connection, now, of, 9)
    return [(one.class_id, made and made.deadline, one.lost_since) for one, made, _ in found]


def listed(connection: Connection, span: Span) -> list[str]:
    return [f"{one.class_id} {one.stem}" for one in timetable.classes(connection, timetable.begins_in(span), 9)]


def pusher(connection: Connection, of: str | None) -> list[object]:
    return [timetable.pusher(connection, "now", of)]


def unshown(connection: Connection, *its: Any) -> list[int]:
    return [one.id for one in inbox.unrecorded(connection, *its)]


def told(connection: Connection, class_id: str) -> list[object]:
    """Since when the streamer of a class is lost, what it airs, and which rendition it waits for."""
    found = account.at_teacher(connection, "t", class_id)
    assert found.booked is not None
    return [found.booked.lost_since, found.booked.video_url, found.making and found.making.stem]


def unordered(look: Callable[..., list[Any]]) -> Callable[..., set[str]]:
    """Of classes that a look gives in any order, as PostgreSQL does."""
    return lambda connection, *its: {one.class_id for one in look(connection, *its)}


FOUND: list[tuple[Callable[..., Any], dict[tuple[object, ...], object]]] = [
    (bookings.on, {("s1", NOW): ["now"]}),
    (bookings.over_unheard, {(EVERYBODY, NOW): ["gaps", "over", "told"]}),
    (bookings.overdue_waiters, {(NOW - 1000,): [], (NOW - 999,): ["soon"]}),
    (unordered(bookings.unreported), {(NOW - 1000, NOW): set(), (NOW, NOW): {"now", "now^1"}, (NOW, NOW + 600): set()}),
    (bookings.unreported, {(NOW + 1, NOW + 600): ["over"]}),
    (bookings.unended, {(NOW,): [], (NOW + 1,): ["over"]}),
    (unordered(bookings.ends_untold), {(NOW - 7200, NOW): {"gaps", "dropped"}, (NOW - 7200, NOW - 100): {"gaps"}}),
    (bookings.ends_untold, {(NOW - 7200, NOW - 3600): []}),
    (unordered(bookings.unready), {(NOW, NOW, NOW + 600): {"late", "soon"}, (NOW - 1000, NOW, NOW + 600): set()}),
    (bookings.forsaken_revisions, {(NOW - 1000,): [], (NOW - 999,): ["told^1"]}),
    (bookings.cancelled_before, {(("early", "now"), NOW): ["early"], (("early", "now"), NOW + 60): []}),
    (bookings.cancels_to_resend, {(NOW - 1,): [], (NOW,): ["unconfirmed"], (NOW + 600,): []}),
    (bookings.cancels_unconfirmed_by, {("s1", NOW): ["unconfirmed"], ("s1", NOW + 600): []}),
    (bookings.cancels_without_end, {(NOW + 599,): [], (NOW + 600,): ["unconfirmed"]}),
    (lambda c, ids: inbox.coming(c, "order", ids), {(("c-1", "c-2"),): ["c-1"]}),
    (lambda c: bookings.changes_before(c, {4: "c-1", 7: "c-2", 8: "c-3"}), {(): {4, 7}}),
    (bookings.oldest_waiting, {(): ("soon", NOW - 1000)}),
    (bookings.answered, {(EVERYBODY[3:5], NOW): [1000.0]}),
    (timetable.due, {(NOW,): ["now"]}),
    (lambda c: [timetable.next_class(c, NOW)], {(): ["soon"]}),
    (timetable.page, {(WHOLE, None, (NOW - 7200, "gaps"), 3): ["told", "over", "dropped"]}),
    (timetable.page, {(WHOLE, BookingState.READY, (0, ""), 9): ["over"]}),
    (listed, {(NEXT,): ["now lesson-7", "refused ", "soon 409_720P"], (OURS,): ["now lesson-7", "refused "]}),
    (searched, {(Search("409"),): ["over", "refused", "soon"], (Search("409_720p"),): ["over", "soon"]}),
    (searched, {(Search("409_480P"),): [], (Search("000409"),): ["over", "soon"], (Search("0" * 13 + "409"),): []}),
    (searched, {(Search("gaps"), NEXT): ["gaps"], (Search("gaps"), OURS): ["gaps"], (Search("soon"), OURS): []}),
    (searched, {(Search(state="ready"),): ["over"], (Search(institution="i-2"),): ["soon"]}),
    (waits, {(NOW, None): [("now", None, NOW - 9), ("soon", NOW + 200, None), ("late", None, None)]}),
    (waits, {(NOW + 600, None): [("soon", NOW + 200, None), ("late", None, None)]}),
    (waits, {(NOW, "i-2"): [("soon", NOW + 200, None)]}),
    (timetable.by_streamer, {(NEXT,): {"s1": {"placed": 1}, None: {"waiting": 1}}}),
    (pusher, {(None,): [("s1", "e-1")], ("i-1",): [("s1", "e-1")], ("i-2",): [None]}),
    (timetable.refusals, {(WHOLE,): {409: 1}}),
    (timetable.transcoding_s, {(OURS,): {"i-1": 90.0}, (Span(NOW, NOW + 1, "i-2"),): {}}),
    (timetable.transcoding_s, {(NEXT,): {"i-1": 90.0}, (Span(NOW - 1, NOW, None),): {}}),
    (transcodings.took_s, {(Backend.OSS, 9): [90.0], (Backend.ECS, 9): []}),
    (told, {("now",): [NOW - 9, "http://o/1?…", None], ("soon",): [None, None, "409_720P"]}),
    (account.kept_since, {("c-1",): NOW - 8, ("c-4",): None}),
    (lambda c: account.at_teacher(c, "t", "odd").is_malformed, {(): True}),
    (lambda c: set(events.named(c, "malformed", ["odd", "now"])), {(): {"odd"}}),
    (bookings.counts, {(NOW + 85_400,): COUNTED | LATELY, (NOW + 85_401,): COUNTED}),
    (inbox.young, {((1, 2, 3), NOW - 7, 1): {1, 2}}),
    (inbox.of_commands, {((1, 2, 3), ("order",)): [1, 2]}),
    (inbox.waits, {("change",): True, ("sweep",): False}),
    (inbox.oldest, {(): NOW - 8}),
    (inbox.unsettled, {(): (9, 9, 7)}),
    (unshown, {(9,): [2, 9], (9, "t1"): [2], (1,): [2]}),
]


@pytest.mark.parametrize(("look", "moments"), FOUND)
def test_a_look_finds_whom_it_is_for(
    teacher_engine: Engine, look: Callable[..., Any], moments: dict[tuple[object, ...], object]
) -> None:
    put(teacher_engine, TEACHERS)
    found = {its: commit(teacher_engine, look, *its) for its in moments}
    assert {its: one if one == moments[its] else names(one) for its, one in found.items()} == moments


def test_renditions_are_read_for_a_booking_that_no_url_satisfies(
    teacher_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide_forecast, "ENOUGH", 1)
    put(teacher_engine, TEACHERS)
    changes = Changes(strategies.transcoders(on_late="refuse"), NOW)
    asked = [strategies.booking(record_id=409, video_url_list=urls) for urls in ({}, {"720P": "http://o/1.flv"})]
    found = [commit(teacher_engine, bookings.facts, changes, [one], ["s1"]) for one in asked]
    assert [(len(one.renditions), one.least_s, one.loads) for one in found] == [(1, 90, {"s1": 1}), (0, 0, {"s1": 1})]


def test_how_things_stand_with_a_teacher_is_told_in_seconds(teacher_engine: Engine) -> None:
    found = commit(put(teacher_engine, TEACHERS), timetable.status_of_teacher, NOW, "teacher")
    assert found["oldest_waiting"] == {"class_id": "soon", "s": 1000}
    assert found["next"] == {"class_id": "soon", "streamer": None, "state": "waiting", "in_s": 300}
    assert (found["oldest_unsent_s"], found["booked"]) == (50, {"s1": 1, "s2": 1})


def test_what_no_run_shows_its_teacher_shows_or_its_heir(teacher_engine: Engine) -> None:
    """First what Prefect was asked for; also work without a run. The heir of a dead one asks for the same runs."""
    with transaction(teacher_engine) as connection:
        inbox.keep(connection, [ReceivedMessage("test", "order", "{}")], NOW)
        for flow, owner in (("sweep", "a"), ("download", "a"), ("download", "b"), ("sweep", "b")):
            inbox.keep_work(connection, UnrecordedWork(flow, flow, NOW - 5), NOW, owner)
        assert unshown(connection, 9, "a") == [2, 3]
        inbox.give_keys(connection, {"key": [3]})
        assert unshown(connection, 9, "a") == [3]
        leases.free_claims(connection, "a", "b")
        (asked,) = inbox.unrecorded(connection, 9, "b")
        assert (asked.id, asked.run_key, asked.command) == (3, "key", "work")
        inbox.recorded(connection, [asked.id], NOW)
        inbox.done(connection, [2], NOW, {2: "[]"}, is_shown=True)
        inbox.done(connection, [1], NOW, {})
        found = [inbox.work_of(one) for one in inbox.unrecorded(connection, 9)]
        assert [one and one.name for one in found] == [None, "download", "sweep"]


def test_what_failed_is_tried_again_in_its_time_and_counted(teacher_engine: Engine) -> None:
    with transaction(teacher_engine) as connection:
        inbox.keep(connection, [ReceivedMessage("test", "order", "{}")], NOW)
        inbox.failed(connection, [1], NOW + 5)
        claim = partial(inbox.claim, connection, ["order"], limit=9, lease_s=60)
        assert (claim(now=NOW + 4), [one.tries for one in claim(now=NOW + 5)]) == ([], [1])


@pytest.mark.parametrize(("owner", "freed"), [("t1", [1, 3, 5, 6, 7, 8]), (None, [1, 3, 4, 5, 6, 7, 8])])
def test_at_its_start_a_teacher_frees_what_it_had_or_nobody_has(
    teacher_engine: Engine, owner: str | None, freed: list[int]
) -> None:
    with transaction(put(teacher_engine, TEACHERS)) as connection:
        assert inbox.free_all(connection, owner) == 7
        found = inbox.claim(connection, ["order", "change"], limit=9, lease_s=60, now=NOW)
        assert [one.id for one in found] == freed


def test_of_a_message_what_is_not_done_is_to_be_done() -> None:
    kinds = [(OutgoingKind.CHANNEL, one) for one in (None, Rest.BOTH, Rest.ADD)]
    kinds += [(OutgoingKind.STREAM, one) for one in (None, Rest.ADD)]
    several = [Unsent(1, "answers", kind, "{}", rest) for kind, rest in kinds]
    assert [one.todo for one in several] == [Rest.BOTH, Rest.BOTH, Rest.ADD, Rest.ADD, Rest.ADD]
    assert [one.is_told for one in several] == [False, False, True, False, False]


def test_of_each_class_the_oldest_message_is_posted_until_its_receiver_is_gone(teacher_engine: Engine) -> None:
    its = {"target": "answers", "kind": "channel", "created_at": NOW}
    of_class = {"a": "c-1", "b": "c-1", "c": None}
    put(teacher_engine, {journal.outbox: [{"class_id": one, "body": body, **its} for body, one in of_class.items()]})
    with transaction(teacher_engine) as connection:

        def due(now: float = NOW) -> list[str]:
            return [one.body for one in outbox.webhook_due(connection, now, 9)]

        outbox.note_due(connection, "webhook", [1, 2, 3])
        assert due() == ["a", "c"]
        outbox.note_webhook(connection, 1, Telling.TOLD)
        outbox.note_due(connection, "webhook", [1])
        outbox.note_webhook(connection, 2, Telling.DUE, 1, NOW + 5)
        assert (due(), due(NOW + 5)) == (["c"], ["b", "c"])
        assert not outbox.webhook_is_gone(connection, "r")
        assert outbox.give_webhook_up(connection, 3, "r")
        assert not outbox.give_webhook_up(connection, 3, "r"), "nothing was due any more"
        assert due(NOW + 5) == []
        marked = connection.execute(select(journal.outbox.c.webhook).order_by(journal.outbox.c.id)).scalars().all()
        assert marked == [Telling.TOLD, Telling.GIVEN_UP, Telling.GONE]
        found = [outbox.webhook_is_gone(connection, one) for one in ("r", "another", "r")]
        assert found == [True, False, False], "what another one had answered is forgotten"
        outbox.note_due(connection, "people", [3])
        assert outbox.people_due(connection, 9) == [(3, "c")]
        asked = [("answers", "c-1", 0), ("answers", "c-1", 1), ("answers", "c-1", 2), ("alarms", "c-1", 0)]
        assert [outbox.answer_since(connection, *one) for one in asked] == ["a", "b", None, None]
        assert outbox.last_id(connection) == 3


def test_a_dry_run_prints_each_row_with_what_it_was_and_no_secret() -> None:
    changes = Changes(strategies.transcoders(), NOW)
    after: dict[str, object] = {"state": "ready", "end_time": NOW, "url": "rtmp://secret", "code": None}
    several = [
        RowChange(orders, {"class_id": "c-1"}, {"state": "placed"}, after),
        RowChange(files, {"id": "1"}, {}, {"num_cite": Increment(2), "duration_s": 9.5}),
        RowChange(orders, {"class_id": "c-2"}, {}, None),
        RowChange(moves, {}, None, {"class_id": "c-3", "refused": None}),
    ]
    changes.rows |= dict(enumerate(several))
    changes.notes += [Event("moved", "c-1"), Event("made", None, "6_720P"), Event("began")]
    answer = OrderResult(class_id="c-1", result="success", code=0, message="")
    changes.sends.append(Outgoing("answers", OutgoingKind.CHANNEL, answer, "c-1"))
    changes.raise_alarm(DISK_FULL, "full")
    assert lines(changes) == [
        f"order_list c-1: state: placed -> ready, end_time: {formatting.moment(NOW)}, url, code: none",
        "video_list 1: num_cite: +2, duration_s: 9.5",
        "order_list c-2: is deleted",
        "move_list: new, class_id: c-3",
        *("to answers: order_result c-1", "to alarm: alarm 316"),
        *("event: moved c-1", "event: made 6_720P", "event: began"),
    ]
    assert lines(StreamerChanges(StreamerSettings.load(_env_file=None, streamer_name="s1"), NOW)) == []


def test_of_however_many_classes_a_lost_streamer_has_each_is_looked_for(teacher_engine: Engine) -> None:
    """A statement takes some ten thousand parameters, and a streamer's classes of the coming weeks may be more."""
    many = [str(number) for number in range(300_000)]
    its = {"streamer": "s1", "placement": 1, "moved_at": NOW}
    put(teacher_engine, {moves: [{"class_id": name, "refused": name == "7", **its} for name in ("7", "8")]})
    with transaction(teacher_engine) as connection:
        assert [one for one in leases.refused_by(connection, many).items() if one[1]] == [("7", {"s1"})]
        assert leases.moved_from(connection, many) == {"8": "s1"}
        assert events.parts_of(connection, many) == {}


def test_if_one_row_is_not_as_it_was_read_none_is_written(teacher_engine: Engine) -> None:
    changes = Changes(strategies.transcoders(), NOW)
    for name in ("now", "soon"):  # the second one is waiting
        changes.rows[name] = RowChange(orders, {"class_id": name}, {"state": "placed"}, {"state": "ready"})
    engine = put(teacher_engine, TEACHERS)
    with pytest.raises(ForbiddenMove, match=r"^1 of 2 rows of order_list"):
        commit(engine, write, changes)
    assert commit(engine, bookings.by_id, ["now"])["now"].state is BookingState.PLACED


# A streamer's.


def airing(class_id: str, stem: str, state: str | None, start_s: float, end_s: float, **more: object) -> Rows:
    """The two rows of a class; its times are seconds from now."""
    url, at = more.pop("video_url", None), more.pop("push_url", class_id)
    begins, ends = cast("Any", more.pop("times", (NOW + start_s, NOW + end_s)))
    task = {"start_time": begins, "end_time": ends, "video_url": url, "push_url": at}
    its = {"class_id": class_id, "video_id": stem, "state": state, "updated_at": NOW - 100, **more}
    return {tasks: [{"class_id": class_id, **task}], classes: [its]}


def file(stem: str, duration_s: float | None, dead_air: str | None, **more: object) -> dict[str, object]:
    its = {"id": stem, "size_bytes": 100, "duration_s": duration_s, "dead_air": dead_air}
    return {**its, "state": "ready", "num_cite": 1, "tries": 0, **more}


STREAMERS: list[Rows] = [
    airing("whole", "6", "on air", -2400, -1800, run_id="r-w", released_at=NOW),
    airing("ended", "1", "on air", -1800, 0),
    airing("begun", "1", "ready", 0, 600, run_id="r-b"),
    airing("begun^1", "1", "ready", 0, 600, unconfirmed_since=NOW),
    airing("lost", "1", "refused", 100, 700, lost_at=NOW),
    airing("refused", "9", "refused", 100, 700),
    airing("soon", "2", "waiting", 300, 900, video_url="http://o/new", updated_at=NOW - 1),
    airing("soon too", "2", "waiting", 400, 900, video_url="http://o/old"),
    airing("dark", "1", "ready", 500, 1100, push_url=None, updated_at=NOW - 99),
    airing("unlooked", "5", "ready", 550, 1100, run_id="r-u"),
    airing("later", "3", "ready", 600, 2400, updated_at=None),
    airing(
        "old",
        "9",
        "waiting",
        301,
        1200,
        times=[literal_column(f"'2025-11-24T{at}Z'") for at in ("18:51:41", "19:06:40")],
    ),
    airing("done", "3", "aired", -600, -1),
    {files: [file("1", 600, "black"), file("2", None, None, state="downloading"), file("3", 300, None)]},
    {files: [file("5", 600, None, update_time=NOW), file("6", 550, ""), file("7", None, "x", num_cite=0)]},
    {files: [file("8", None, None, state="evicting"), *(file(one, None, "x", num_cite=0) for one in ("77", "78"))]},
]
LIVE = ["whole", "ended", "begun", "lost", "soon", "soon too", "dark", "unlooked", "later", "old"]
PUSHED = ["begun", "begun^1", "done", "ended", "later", "old", "soon", "soon too", "unlooked", "whole"]
IDLE = [[Idle("7", 100), Idle("77", 100)]] * 2
DARK, SHORT = ("dark", "black"), ("later", "it ends 25 min before its class")


def pairs(found: Iterable[tuple[Airing, str]]) -> list[tuple[str, str]]:
    return [(one.class_id, why) for one, why in found]


def unlooked(connection: Connection, now: float) -> str | None:
    return getattr(airings.unlooked(connection, now), "stem", None)


def looked(connection: Connection, size_bytes: int) -> bool:
    row = cache.by_stem(connection, ["5"])["5"]
    return airings.looked(connection, replace(row, size_bytes=size_bytes), "black")


def begun(connection: Connection, stem: str) -> str | None:
    airings.begun_by(connection, stem, "r-9")
    return cache.by_stem(connection, [stem])[stem].run_id


def remade(connection: Connection) -> dict[str, tuple[int, int]]:
    """The size of some files, and how many classes cite each."""
    airings.remade(connection, Path("/v"), "3", 7, NOW)
    return {name: (one.size_bytes, one.num_cite) for name, one in cache.by_stem(connection, "138").items()}


def warned(connection: Connection, class_id: str) -> str:
    return airings.recording_warning(connection, airings.by_id(connection, [class_id])[class_id])


AIRED: list[tuple[Callable[[Connection], object], object]] = [
    (airings.live, LIVE),
    (lambda c: airings.live(c, NOW + 600), [*LIVE[:-2], "old"]),
    (lambda c: airings.live(c, NOW + 301), LIVE[:5]),
    (airings.waiting, ["soon", "soon too", "old"]),
    (lambda c: airings.due(c, NOW, NOW), ["begun"]),
    (lambda c: airings.due(c, NOW + 300, NOW + 600), ["lost", "soon"]),
    (lambda c: [*airings.due(c, NOW + 301, NOW + 1199), *airings.due(c, NOW + 301, NOW + 1200)], ["old"]),
    (airings.on_air, 2),
    (lambda c: airings.over(c, NOW), []),
    (lambda c: airings.over(c, NOW + 1), ["ended"]),
    (lambda c: [airings.over(c, NOW + at)[-1] for at in (1200, 1201)], ["unlooked", "old"]),
    (lambda c: [airings.latest_url(c, one) for one in "21"], ["http://o/new", None]),
    (lambda c: sorted(airings.push_urls(c)), PUSHED),
    (airings.unconfirmed, ["begun^1"]),
    (lambda c: airings.unscheduled(c, NOW - 100), ["ended", "later"]),
    (lambda c: airings.unscheduled(c, NOW - 99, 2), ["ended", "dark"]),
    (lambda c: airings.unscheduled(c, NOW - 99, 2, ["dark"]), ["ended", "later"]),
    (lambda c: airings.unshown(c, NOW - 1, NOW, 9, []), ["done"]),
    (lambda c: airings.unshown(c, NOW, NOW, 9, []) + airings.unshown(c, 0, NOW - 1, 9, ["done"]), []),
    (lambda c: [*airings.planned(c).items()], [("r-w", "whole"), ("r-b", "begun"), ("r-u", "unlooked")]),
    (lambda c: airings.needed_at(c, "123"), {"1": NOW - 1800, "2": NOW + 300}),
    (lambda c: [one.stem for one in airings.needed(c, NOW)], ["1", "1", "2", "2", "1", "5", "3"]),
    (lambda c: [airings.tried(c, one) for one in "229"], [1, 2, 0]),
    (lambda c: [unlooked(c, NOW + at) for at in (0, 1100, 2400)], ["5", "3", None]),
    (lambda c: [looked(c, 99), looked(c, 100), unlooked(c, NOW)], [False, True, "3"]),
    (lambda c: pairs(airings.faulty(c, 1)), [("ended", "black; it ends 20 min before its class")]),
    (lambda c: pairs(airings.untold_faults(c, NOW)), [DARK, SHORT]),
    (lambda c: pairs(airings.untold_faults(c, NOW + 500)), [SHORT]),
    (lambda c: [warned(c, one) for one in ("dark", "soon", "unlooked")], ["black", "", ""]),
    (lambda c: [begun(c, one) for one in "12"], [None, "r-9"]),
    (remade, {"1": (100, 4), "3": (7, 1), "8": (100, 0)}),
    (lambda c: [one.stem for one in cache.evicting(c)], ["8"]),
    (lambda c: [cache.idle(c, but=(), size_bytes=200, num=1), cache.idle(c, but=(), size_bytes=100, num=2)], IDLE),
    (lambda c: [one.update_time for one in cache.by_stem(c, "15").values()], [0, NOW]),
]


@pytest.mark.parametrize(("look", "found"), AIRED)
def test_a_streamers_look_finds_whom_it_is_for(
    streamer_engine: Engine, look: Callable[[Connection], Any], found: object
) -> None:
    for one in STREAMERS:
        put(streamer_engine, one)
    happened = [Event("push refused", "begun"), Event(airings.FAULTS_TOLD, "dark", "1", "another")]
    commit(streamer_engine, events.note, "s1", happened, NOW)
    its = commit(streamer_engine, look)
    assert (its if its == found else names(its)) == found


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[(5, 5.0), (" 5.5 ", 5.5), ("2025-11-24T18:46:40+00:00", NOW), (airings.BEYOND - 1, airings.BEYOND - 1)],
        *[(one, None) for one in (True, None, "", "soon", "a:b", math.inf, "nan", 0, -1, airings.BEYOND)],
    ],
)
def test_a_time_of_an_old_program_is_read_if_a_class_can_have_it(value: object, seconds: float | None) -> None:
    assert airings.epoch(value) == seconds
