"""Alarms that stay quiet: one an incident, one more where it grows or goes on, one at its end."""

import itertools
import re
from dataclasses import replace

import pytest
from sqlalchemy import Engine, event

from lectern.db import incidents, outbox
from lectern.db.engine import transaction
from lectern.db.incidents import AlertPolicy
from lectern.errors import CONFLICT, DISK_FULL, NO_RECORDING, NOT_READY_FOR_START, TRANSCODE_FAILED, ErrorCode
from lectern.model.tables.teacher import journal
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
        commit(self.engine, outbox.put, journal, alarms, now)
        return names[-1]

    def sent(self, now: float, *, reached: bool = True) -> list[Alarm]:
        """Send what is unsent as the host does; returns what was published. Not *reached*: Redis is away."""
        with transaction(self.engine) as connection:
            unsent = outbox.unsent(connection, journal, limit=1000, now=now)
            folded = incidents.fold(connection, journal, unsent, self.patience, now)
        if not reached:
            return []
        with transaction(self.engine) as connection:
            outbox.sent(connection, journal, [one.id for one in unsent], now)
            incidents.told(connection, journal, [one.id for one in unsent if one.id not in folded], now)
        return [Alarm.model_validate_json(one.body) for one in unsent if one.id not in folded]

    def told(self, code: ErrorCode, now: float, number: int = 1, class_id: str | None = None) -> list[int]:
        """Raise alarms, and send them; returns the codes that were published."""
        self.cry(code, now, number, class_id)
        return [one.code for one in self.sent(now)]

    def follow_up(self, now: float) -> list[tuple[str, int]]:
        """What is told once more: stage and count."""
        return [(one.stage, one.count) for one in self.followed_up(now)]  # type: ignore[attr-defined]  # of an incident

    def followed_up(self, now: float) -> list[Alarm]:
        found = commit(self.engine, incidents.follow_up, journal, "teacher", self.patience, now)
        assert all(one.message and one.runbook for one in found)
        return found

    def heard(self, now: float) -> list[Alarm]:
        """All that a person hears now."""
        return [*self.sent(now), *self.followed_up(now)]


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
    assert desk.follow_up(1302) == [("resolved", 2), *[("resolved", 1)] * 3]
    assert desk.told(DISK_FULL, 1303) == [316]


def test_a_class_without_its_recording_is_one_incident_before_its_start_and_after(desk: Desk) -> None:
    """324, then 326. It lasts as long as either is seen."""
    assert desk.told(NOT_READY_FOR_START, 1000, class_id="late") == [324]
    assert desk.told(NO_RECORDING, 1030, class_id="late") == []
    (found,) = commit(desk.engine, incidents.open_now, journal)
    assert (found["code"], found["count"], found["classes"]) == (326, 2, ["late"])
    desk.patience = replace(PATIENCE, goes_on={326})
    assert desk.follow_up(9000) == [("escalated", 2)]
    desk.patience = PATIENCE
    assert desk.follow_up(9001) == [("resolved", 2)]


def test_what_was_never_told_is_sent_when_redis_is_back_and_counted_once(desk: Desk) -> None:
    """Killed or cut between the count and the sending, nothing is lost and nothing is counted twice."""
    desk.cry(DISK_FULL, 1000, 3)
    assert desk.sent(1000, reached=False) == desk.followed_up(1500) == []
    assert [one.code for one in desk.sent(1500)] == [316]
    assert desk.follow_up(1560) == [("resolved", 3)]


def test_trouble_that_is_seen_going_on_is_not_over_until_it_is_seen_no_more(desk: Desk) -> None:
    """A streamer that stays lost: nobody says so again. But an alarm after it was last seen has its own time."""
    desk.told(DISK_FULL, 1000)
    desk.patience = replace(PATIENCE, goes_on={FULL})
    assert desk.follow_up(2000) == []
    desk.patience = replace(PATIENCE, lasts_s={FULL: 3600.0})
    assert desk.follow_up(2000) == []
    assert desk.follow_up(4600) == [("resolved", 1)]
    desk.told(DISK_FULL, 5000)
    desk.patience = replace(PATIENCE, ended_s={FULL: 20.0})
    assert desk.follow_up(5020) == [("resolved", 1)], "not five minutes later"
    desk.told(DISK_FULL, 6000)
    desk.patience = replace(PATIENCE, ended_s={FULL: 1000.0})
    assert desk.follow_up(6020) == []
    desk.patience = replace(PATIENCE, ended_s={FULL: 1280.0})
    assert desk.follow_up(6300) == [("resolved", 1)]


def test_a_clock_that_is_set_back_by_a_day_keeps_no_incident_untold_or_open(desk: Desk) -> None:
    """Else each further class in danger would be folded into it, and told to nobody for a day."""
    desk.told(NOT_READY_FOR_START, 100_000)
    desk.told(DISK_FULL, 100_000)
    assert desk.follow_up(100_000 - 2) == [], "a small correction ends nothing"
    later = 100_000 - 86_400
    new = desk.cry(NOT_READY_FOR_START, later)
    desk.sent(later)
    more, over = desk.followed_up(later + 60)
    assert f"new: {new}" in more.message
    assert (over.code, over.message.startswith("resolved")) == (FULL, True)
    assert desk.follow_up(later + 61) == []
    assert desk.follow_up(later + 301) == [("resolved", 2)]


def test_an_incident_that_one_teacher_sees_going_on_is_not_called_over_by_another(desk: Desk) -> None:
    """A part of its process that fails again and again, for example: no other process sees that."""
    desk.told(DISK_FULL, 1000)
    other = Desk(desk.engine, replace(PATIENCE, shared=True))

    def told(seen: set[int], times: range) -> list[tuple[str, int]]:
        desk.patience = replace(other.patience, goes_on=seen)
        return [told for now in times for one in (desk, other) for told in one.follow_up(now)]

    assert told({FULL}, range(1000, 4000, 5)) == []
    assert told(set(), range(4000, 4400, 5)) == [("resolved", 1)]


@pytest.mark.parametrize(("code", "number"), [(TRANSCODE_FAILED, 1), (CONFLICT, 0)], ids=["trouble", "notice"])
def test_an_incident_that_goes_on_is_escalated_once_and_a_notice_is_not(
    desk: Desk, code: ErrorCode, number: int
) -> None:
    told: list[tuple[str, int]] = []
    for now in range(1000, 3000, 100):
        desk.told(code, now)
        told += desk.follow_up(now)
    assert [stage for stage, _ in told].count("escalated") == number
    assert len(told) <= 6
    assert desk.follow_up(3300)[0][0] == "resolved"


def test_without_grouping_each_alarm_is_sent(desk: Desk) -> None:
    desk.patience = replace(PATIENCE, group_s=0)
    assert desk.told(DISK_FULL, 1000, 3) == [316, 316, 316]


def test_an_incident_names_all_its_classes_and_shows_its_newest_message(desk: Desk) -> None:
    desk.told(DISK_FULL, 1000, 80)
    desk.told(DISK_FULL, 1001, 80)
    (one,) = commit(desk.engine, incidents.open_now, journal)
    assert (one["count"], one["classes"]) == (160, [f"c-{number}" for number in range(1, 161)])
    assert one["message"].startswith("c-160:")


def test_an_incident_keeps_the_newest_names_and_tells_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is open, and however many classes it has: its row does not grow without end."""
    monkeypatch.setattr(incidents, "NAMES_KEPT", 5)
    told: set[str] = set()
    for now in range(1000, 1000 + 61 * 20, 61):
        desk.cry(NOT_READY_FOR_START, now, 2)
        told |= names(desk.heard(now))
    (one,) = commit(desk.engine, incidents.open_now, journal)
    assert (one["count"], one["classes"]) == (40, [f"c-{number}" for number in range(36, 41)])
    assert told == {f"c-{number}" for number in range(1, 41)}


def names(alarms: list[Alarm]) -> set[str]:
    """The classes that these alarms name to a person who reads the sentence only."""
    return {word for one in alarms for word in re.findall(r"c-\d+", one.message)} | {
        one.class_id for one in alarms if one.class_id
    }


def test_each_class_in_danger_is_named_at_once(desk: Desk) -> None:
    """A class that is not ready five minutes before its start: its name is no use ten minutes later."""
    raised: dict[str, float] = {}
    heard: dict[str, float] = {}
    for now in range(1000, 1000 + 40 * 60, 5):
        if (now - 1000) % 60 == 0:
            raised[desk.cry(NOT_READY_FOR_START, now)] = now
        heard = dict.fromkeys(names(desk.heard(now)), float(now)) | heard
    assert raised.keys() == heard.keys()
    assert max(heard[name] - at for name, at in raised.items()) <= PATIENCE.group_s
    assert len(raised) == 40


def test_classes_in_danger_are_told_together_at_most_once_in_the_time_of_a_group(desk: Desk) -> None:
    messages: list[Alarm] = []
    for now in range(1000, 1600, 5):
        desk.cry(NOT_READY_FOR_START, now, 10)
        messages += desk.heard(now)
    assert len(messages) <= 1 + 10
    messages += desk.followed_up(1660)
    assert set(messages[-1].classes) == {f"c-{number}" for number in range(1, 1201)}  # type: ignore[attr-defined]


def test_a_class_that_is_in_danger_for_longer_is_no_new_one(desk: Desk) -> None:
    """Only new names are news: the same class again waits for the number to double, as any other alarm."""
    told = 0
    for now in range(1000, 1600, 5):
        desk.cry(NOT_READY_FOR_START, now, class_id="c-1")
        told += len(desk.heard(now))
    assert told <= 5


def test_a_thousand_alarms_are_folded_in_few_statements(desk: Desk) -> None:
    statements: list[str] = []
    desk.cry(DISK_FULL, 1000, 1000)
    event.listen(desk.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert len(desk.sent(1000)) == 1
    assert len([one for one in statements if "incident_list" in one]) <= 4
