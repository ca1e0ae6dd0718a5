"""Alarms that stay quiet: one an incident, one more where it grows or goes on, one at its end."""

import itertools
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, event

from lectern.db import incidents, outbox
from lectern.db.engine import transaction
from lectern.db.incidents import AlertPolicy
from lectern.db.outbox import Refusal, Rest
from lectern.errors import CONFLICT, DISK_FULL, NO_RECORDING, NOT_READY_FOR_START, TRANSCODE_FAILED, ErrorCode
from lectern.wire import outgoing
from lectern.wire.outgoing import Alarm, Outgoing, OutgoingKind
from tests.rows import commit

PATIENCE = AlertPolicy(group_s=60, escalate_s=900, quiet_s=300)
FULL = DISK_FULL.number


class Desk:
    """A teacher's outbox, and what a person hears of its alarms."""

    def __init__(self, engine: Engine, patience: AlertPolicy = PATIENCE) -> None:
        self.engine = engine
        self.patience = patience
        self._numbers = itertools.count(1)

    def cry(self, code: ErrorCode, now: float, number: int = 1, class_id: str | None = None) -> str:
        """Raise *number* alarms, each of another class, or all of *class_id*; returns the last class."""
        names = [class_id or f"c-{next(self._numbers)}" for _ in range(number)]
        made = [outgoing.alarm(code, f"{one}: {code.meaning}!", now, "teacher", class_id=one) for one in names]
        alarms = [Outgoing("alarm", OutgoingKind.CHANNEL, one) for one in made]
        commit(self.engine, outbox.put, alarms, now)
        return names[-1]

    def sent(self, now: float, *, reached: bool = True) -> list[Alarm]:
        """Send what is unsent as the host does; returns what was published. Not *reached*: Redis is away."""
        with transaction(self.engine) as connection:
            unsent = outbox.unsent(connection, limit=1000, now=now)
            folded = incidents.fold(connection, unsent, self.patience, now)
        if not reached:
            return []
        with transaction(self.engine) as connection:
            outbox.sent(connection, [one.id for one in unsent], now)
            incidents.told(connection, [one.id for one in unsent if one.id not in folded], now)
        return [Alarm.model_validate_json(one.body) for one in unsent if one.id not in folded]

    def told(self, code: ErrorCode, now: float, number: int = 1, class_id: str | None = None) -> list[int]:
        """Raise alarms, and send them; returns the codes that were published."""
        self.cry(code, now, number, class_id)
        return [one.code for one in self.sent(now)]

    def follow_up(self, now: float) -> list[tuple[str, int]]:
        """What is told once more: stage and count."""
        return [(one.stage, one.count) for one in self.followed_up(now)]  # type: ignore[attr-defined]  # of an incident

    def followed_up(self, now: float) -> list[Alarm]:
        found = commit(self.engine, incidents.follow_up, "teacher", self.patience, now)
        assert all(one.message and one.runbook for one in found)
        return found


@pytest.fixture
def desk(teacher_engine: Engine) -> Desk:
    return Desk(teacher_engine)


def test_an_outage_of_500_classes_is_one_alarm_and_one_word_more_and_its_end(desk: Desk) -> None:
    assert desk.told(TRANSCODE_FAILED, 1000, 500) == [208]
    heard = {now: desk.follow_up(now) for now in (1010, 1060, 1061, 1299, 1300, 9999)}
    assert {now: told for now, told in heard.items() if told} == {1060: [("more", 500)], 1300: [("resolved", 500)]}


def test_each_code_each_class_without_recording_and_each_outage_is_an_incident(desk: Desk) -> None:
    """Of its own: after its end the same code is a new one."""
    desk.cry(TRANSCODE_FAILED, 1000)
    assert desk.told(DISK_FULL, 1000) == [208, 316]
    assert desk.told(TRANSCODE_FAILED, 1001) == []
    desk.cry(NOT_READY_FOR_START, 1001)
    assert desk.told(NO_RECORDING, 1002) == [324, 326]
    found = desk.followed_up(1302)
    assert [one.message.count("!") for one in found] == [2, 1, 1, 1], "the newest message unless it is the first"
    assert desk.told(DISK_FULL, 1303) == [316]


def test_a_class_without_its_recording_is_one_incident_before_its_start_and_after(desk: Desk) -> None:
    """324, then 326. It lasts as long as either is seen."""
    assert desk.told(NOT_READY_FOR_START, 1000, class_id="late") == [324]
    assert desk.told(NO_RECORDING, 1030, class_id="late") == []
    (found,) = commit(desk.engine, incidents.open_now)
    assert (found.code, found.count, found.classes) == (326, 2, ("late",))
    desk.patience = replace(PATIENCE, goes_on={326})
    assert desk.follow_up(9000) == [("escalated", 2)]
    assert desk.follow_up(9999) == [], "once"
    desk.patience = PATIENCE
    assert desk.follow_up(9001) == [("resolved", 2)]


def test_what_was_never_told_is_sent_when_redis_is_back_and_counted_once(desk: Desk) -> None:
    """Killed or cut between the count and the sending, nothing is lost and nothing is counted twice."""
    desk.cry(DISK_FULL, 1000, 3)
    assert desk.sent(1000, reached=False) == desk.followed_up(1500) == []
    assert [one.code for one in desk.sent(1500)] == [316]
    assert desk.follow_up(1560) == [("resolved", 3)]


def test_an_incident_that_one_teacher_sees_going_on_is_not_called_over_by_another(desk: Desk) -> None:
    """A part of its process that fails again and again, for example: no other process sees that."""
    desk.told(DISK_FULL, 1000)
    other = Desk(desk.engine, replace(PATIENCE, shared=True))

    def told(seen: set[int], times: range) -> list[tuple[str, int]]:
        desk.patience = replace(other.patience, goes_on=seen)
        return [told for now in times for one in (desk, other) for told in one.follow_up(now)]

    assert told({FULL}, range(1000, 4000, 5)) == []
    assert told(set(), range(4000, 4400, 5)) == [("resolved", 1)]


def test_an_incident_that_only_people_have_heard_of_is_not_called_over(desk: Desk) -> None:
    """Redis has not taken its first alarm: what comes over it would be the end of something that it never told."""
    desk.cry(DISK_FULL, 1000)
    desk.sent(1000, reached=False)
    with transaction(desk.engine) as connection:
        (first,) = outbox.unsent(connection, limit=9, now=1000)
        incidents.told(connection, [first.id], 1000)
        for rest, over in ((None, 0), (Rest.BOTH, 0), (Rest.ADD, 1)):
            if rest is not None:
                outbox.refused(connection, [Refusal(first, rest, "no")], 1000)
            assert len(incidents.follow_up(connection, "t", PATIENCE, 1300)) == over
        assert incidents.open_of(connection, FULL) is None


@pytest.mark.parametrize(
    ("since_s", "stage", "told", "its"),
    [
        (0, None, 1, {"number": 1}),
        (299, None, 1, {"number": 1}),
        (300, "resolved", 1, {"number": 1}),
        (300, None, 1, {"number": 1, "goes_on": {FULL}}),
        (3599, None, 1, {"number": 1, "lasts_s": {FULL: 3600.0}}),
        (3600, "resolved", 1, {"number": 1, "lasts_s": {FULL: 3600.0}}),
        (20, "resolved", 1, {"number": 1, "ended_s": {FULL: 20.0}}),
        (20, None, 1, {"number": 1, "ended_s": {FULL: 1000.0}}),
        (300, "resolved", 1, {"number": 1, "ended_s": {FULL: 1280.0}}),
        (20, None, 1, {"number": 1, "ended_s": {FULL: 20.0}, "shared": True}),
        (-2, None, 1, {"number": 1}),
        (-60, "more", 1, {"number": 2}),
        (-300, "resolved", 1, {"number": 1}),
        (60, "more", 2, {"number": 4}),
        (59, None, 2, {"number": 4}),
        (60, None, 2, {"number": 3}),
        (60, "more", 1, {"number": 3}),
        (60, None, 2, {"number": 2}),
        (60, "more", 3, {"number": 6, "code": 1}),
        (60, None, 3, {"number": 5}),
        (60, "more", 3, {"number": 5, "classes": '["c"]'}),
        (60, None, 3, {"number": 5, "classes": '["c"]', "told_classes": 1}),
        (60, None, 3, {"number": 5, "classes": '["c"]', "code": 1}),
        (60, None, 3, {"number": 5, "classes": '["c"]', "code": TRANSCODE_FAILED.number}),
        (599, None, 2, {"number": 3, "last_at": 599}),
        (600, "more", 2, {"number": 3, "last_at": 600}),
        (900, "escalated", 2, {"number": 2, "last_at": 900}),
        (899, None, 2, {"number": 2, "last_at": 900}),
        (900, None, 1, {"number": 1, "last_at": 900}),
        (900, None, 2, {"number": 2, "last_at": 900, "escalated_at": 9}),
        (900, None, 2, {"number": 2, "last_at": 900, "code": CONFLICT.number}),
        (300, "resolved", 2, {"number": 2, "code": 1}),
    ],
)
def test_an_incident_is_told_again_if_it_has_grown_goes_on_or_is_over(
    since_s: float, stage: str | None, told: int, its: dict[str, object]
) -> None:
    """If it has doubled, if ten times as long as a group have passed, or if a class in danger was not named yet.

    Trouble that is seen going on is not over; that which was seen to end is over at once, unless an alarm came since.
    A clock that is set back by a day keeps nothing untold or open: it counts as time that has passed.
    """
    known = {"code": FULL, "told_number": told, "told_at": 0, "first_at": 0, "last_at": 0, "escalated_at": None}
    row = SimpleNamespace(**{**known, "classes": "[]", "told_classes": 0, **its})
    policy: dict[str, Any] = {one: its[one] for one in ("goes_on", "lasts_s", "ended_s", "shared") if one in its}
    assert incidents._stage(row, replace(PATIENCE, **policy), since_s) == stage


@pytest.mark.parametrize("number", [20, 25])
def test_the_next_alarm_names_twenty_new_classes_and_the_number_of_the_others(desk: Desk, number: int) -> None:
    desk.told(DISK_FULL, 1000, class_id="first")
    desk.told(DISK_FULL, 1001, number)
    (more,) = desk.followed_up(1060)
    assert more.message.count("c-") == 20 + 1, "the newest message is that of one of them"
    assert "first message: first: " in more.message
    assert re.findall(r"and (\d+) more", more.message) == (["5"] if number == 25 else [])


def test_without_grouping_each_alarm_is_sent(desk: Desk) -> None:
    desk.patience = replace(PATIENCE, group_s=0)
    assert desk.told(DISK_FULL, 1000, 3) == [316, 316, 316]


def test_an_incident_names_all_its_classes_and_shows_its_newest_message(desk: Desk) -> None:
    for _ in range(2):
        desk.told(DISK_FULL, 1000, 80)
    (one,) = commit(desk.engine, incidents.open_now)
    assert (one.count, one.classes) == (160, tuple(f"c-{number}" for number in range(1, 161)))
    assert one.message.startswith("c-160:")
    assert [len(commit(desk.engine, incidents.about, "t", name)) for name in ("c-7", "c-999")] == [1, 0]


def test_an_incident_keeps_the_newest_names_and_tells_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is open, and however many classes it has: its row does not grow without end."""
    monkeypatch.setattr(incidents, "NAMES_KEPT", 5)
    told: set[str] = set()
    for now in range(1000, 1000 + 61 * 20, 61):
        desk.cry(NOT_READY_FOR_START, now, 2)
        for alarm in (*desk.sent(now), *desk.followed_up(now)):
            told |= {alarm.class_id or "", *re.findall(r"c-\d+", alarm.message)} - {""}
    (one,) = commit(desk.engine, incidents.open_now)
    assert (one.count, one.classes) == (40, tuple(f"c-{number}" for number in range(36, 41)))
    assert told == {f"c-{number}" for number in range(1, 41)}


def test_a_thousand_alarms_are_folded_in_few_statements(desk: Desk) -> None:
    statements: list[str] = []
    desk.cry(DISK_FULL, 1000, 1000)
    event.listen(desk.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert len(desk.sent(1000)) == 1
    assert len([one for one in statements if "incident_list" in one]) <= 4
