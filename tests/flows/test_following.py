"""What the playout tells of a class on air becomes an alarm within 15 s, also if it then tells nothing more."""

import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, select, update

from flows import failures
from flows.host import StreamerHost
from flows.outbox_publisher import patience
from flows.playout_link import Playout
from flows.streamer import downloads, playout_events, playout_sync
from lectern import errors
from lectern.model.tables.streamer import classes, tasks
from lectern.playout.control_socket import PROTOCOL, Client
from tests import rows

START = 0.0
"""When the class of a test began, a moment before it; a whole run may take longer than the class."""


async def nobody(_host: object) -> None:
    """Hears nothing."""


@pytest.fixture
def streamer(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer with a class on air; what it sends stays in its outbox."""
    monkeypatch.setitem(globals(), "START", time.time() - 100)
    monkeypatch.setattr(playout_events, "publish_outbox", nobody)
    rows.commit(streamer.engine, rows.bare, "c-1", START, "on air", end_time=START + 2700)
    return streamer


def alarms(host: StreamerHost) -> list[str]:
    """The sentences of the alarms that were raised."""
    return [one["message"] for one in rows.said(host)]


def broke_off(at: float, *, was_on_air: bool) -> dict[str, object]:
    """The playout's word for a push that ended, or came to nothing."""
    why = "the server took nothing for 5 s"
    return {"event": "broke_off", "class_id": "c-1", "at": at, "session": 1, "why": why, "was_on_air": was_on_air}


async def fetched(one: playout_events.PlayoutEvents) -> None:
    """Wait until the recording was asked for, if it is."""
    fetching = one._classes["c-1"].fetching
    if fetching is not None:
        await fetching


@pytest.mark.parametrize(
    ("starts_in_s", "said"), [(2, "its slate is sent from its start on"), (-2, "its slate is sent")]
)
async def test_a_class_that_is_to_begin_without_its_recording_is_not_said_to_send_its_slate_already(
    streamer: StreamerHost, starts_in_s: float, said: str
) -> None:
    """Its playout opens the file some seconds before the class."""
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(start_time=time.time() + starts_in_s))
    slate = {"event": "slate", "class_id": "c-1", "at": time.time(), "slate": True, "why": "the recording is missing"}
    await playout_events.PlayoutEvents(streamer).take(slate)
    assert alarms(streamer) == [f"c-1: {said}: the recording is missing"]


async def test_a_push_that_broke_off_is_alarmed_though_nothing_is_told_after_it(streamer: StreamerHost) -> None:
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 50, was_on_air=True))
    await one.look_around(START + 54)
    assert alarms(streamer) == []
    await one.look_around(START + 56)
    (said,) = alarms(streamer)
    assert "it is not on air: the server took nothing for 5 s" in said


async def test_a_push_that_comes_back_at_once_is_not_alarmed(streamer: StreamerHost) -> None:
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 50, was_on_air=True))
    told = {"event": "on_air", "class_id": "c-1", "at": START + 52, "session": 2, "position_s": 52.0}
    await one.take(told)
    await one.look_around(START + 60)
    assert alarms(streamer) == []


async def test_trouble_of_a_class_on_air_is_not_called_over_because_its_playout_is_away(streamer: StreamerHost) -> None:
    """Nobody sees how the class is aired then, if it is."""
    handing = playout_sync.PlayoutSync(streamer)
    slate = {"event": "slate", "class_id": "c-1", "at": time.time(), "slate": True, "why": "the recording is missing"}
    await handing._following.take(slate)
    await handing._following.take(broke_off(START + 50, was_on_air=True))
    streamer.playout.is_away("it was killed")
    await handing._say_away()
    assert {errors.NO_RECORDING.number, errors.AIRING_BROKEN.number}.issubset(patience(streamer).goes_on)


async def test_trouble_of_a_class_that_is_another_streamers_now_goes_on_no_more(streamer: StreamerHost) -> None:
    """Also if its playout told nothing of it, and only its status said that it is not on air."""
    one = playout_events.PlayoutEvents(streamer)
    streamer.playout.until = math.inf
    await one.look_around(START + 60, [{"class_id": "c-1", "state": "connecting", "why": "no answer"}])
    one.still()
    assert errors.AIRING_BROKEN.number in patience(streamer).goes_on
    streamer.ongoing.clear()
    one.only([])
    one.still()
    assert errors.AIRING_BROKEN.number not in patience(streamer).goes_on


async def test_trouble_of_a_class_that_ended_while_nobody_listened_goes_on_no_more(streamer: StreamerHost) -> None:
    """Its end is told by its status when the playout is reached again, and by no event."""
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 50, was_on_air=True))
    sums = {"sent_s": 0.0, "slate_s": 0.0, "gap_s": 100.0, "sessions": 1, "as_run": []}
    await one.catch_up({"class_id": "c-1", "state": "ended", "slate": False, "why": "its end has come", **sums})
    streamer.ongoing.clear()
    await one.look_around(START + 90)
    assert streamer.ongoing == {}


async def test_a_playout_that_was_back_and_is_away_again_is_alarmed_again(
    streamer: StreamerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People were told that the first time is over, and nothing is aired again."""

    async def ask(_do: str, **fields: Any) -> dict[str, Any]:
        answer = {"holder_pid": 1, "classes": [], "release": "2.0.0", "protocol": PROTOCOL}
        taken: dict[str, Any] = {"version": fields.get("version"), "refused": {}, "left_out": 0}
        return {**answer, **taken, "timetable": {"path": str(tmp_path / "timetable.jsonl"), "version": None}}

    monkeypatch.setattr(playout_sync, "publish_outbox", nobody)
    monkeypatch.setattr(playout_sync, "ALARM_AFTER_S", 0.0)
    monkeypatch.setattr(streamer.playout, "ask", ask)
    handing = playout_sync.PlayoutSync(streamer)
    for number in (1, 2):
        streamer.playout.is_away("it was killed")
        await handing._say_away()
        await handing._say_away()
        assert len(alarms(streamer)) == number
        streamer.playout.client = cast("Client", Told())
        await handing._bring_up_to_date()


async def test_a_class_that_lacks_its_recording_again_is_alarmed_again(streamer: StreamerHost) -> None:
    """However soon: its first incident is resolved, and no later event says so while its slate is sent."""
    one = playout_events.PlayoutEvents(streamer)
    slate = {"event": "slate", "class_id": "c-1", "at": START, "slate": True, "why": "the recording is missing"}
    for number in (1, 2):
        await one.take(slate)
        await one.take(slate)
        assert len(alarms(streamer)) == number
        await one.take({"event": "back", "class_id": "c-1", "at": START, "why": "it is there", "position_s": 9.0})


async def test_a_class_that_ends_while_others_are_looked_at_is_passed_over(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are taken beside the look; one of the last class must not end the whole work on the playout."""
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 50, was_on_air=True))
    look = streamer.read_tx

    async def slowly(*asked: Any) -> Any:
        found = await look(*asked)
        one.only([])
        return found

    monkeypatch.setattr(streamer, "read_tx", slowly)
    await one.look_around(START + 60)
    assert alarms(streamer) == []


async def test_a_class_that_was_never_on_air_counts_from_its_start(streamer: StreamerHost) -> None:
    """A server that takes the connection, and does not answer, is given up after 10 s: those count, too."""
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 8, was_on_air=False))
    (said,) = alarms(streamer)
    assert "it is not on air" in said


async def test_a_class_not_aired_is_reported_once(streamer: StreamerHost) -> None:
    """The playout tells its end to each process that begins; the story and the teacher need it once."""
    streamer.playout = cast("Any", SimpleNamespace(over=lambda _class_id: None))
    one = playout_events.PlayoutEvents(streamer)
    sums = {"sent_s": 0.0, "slate_s": 0.0, "gap_s": 2700.0, "sessions": 0, "as_run": []}
    told = {"event": "ended", "class_id": "c-1", "at": START + 2700, "why": "its end has come", **sums}
    for _ in range(2):
        await one.take(told)
    assert [one["cmd"] for one in rows.said(streamer) if one["cmd"] != "alarm"] == ["ended"]


async def test_a_class_closed_too_early_is_aired(streamer: StreamerHost) -> None:
    """The playout was away when the sweeper closed it, and says now what it has sent."""
    streamer.playout = cast("Any", SimpleNamespace(over=lambda _class_id: None))
    broken = update(classes).values(state="broken", message="nobody knows how much of it was sent")
    rows.commit(streamer.engine, Connection.execute, broken)
    row = {"url": 0, "session": 1, "source": "recording", "from": START, "to": START + 2700, "position_s": 0.0}
    row |= {"sent_s": 2700.0, "bytes": 9, "open": False}
    sums = {"sent_s": 2700.0, "slate_s": 0.0, "gap_s": 0.0, "sessions": 1, "as_run": [row]}
    told = {"class_id": "c-1", "state": "ended", "slate": False, "why": "its end has come", **sums}
    await playout_events.PlayoutEvents(streamer).catch_up(told)
    assert rows.look(streamer.engine, Connection.execute, select(classes.c.state)).scalar_one() == "aired"


async def test_how_a_class_is_aired_is_stated_to_the_teacher_when_it_changes(streamer: StreamerHost) -> None:
    """By what the playout says that it has sent; a process that begins states it once more, which changes nothing."""

    def status(*parts: tuple[float, float, str], state: str = "on_air") -> dict[str, Any]:
        rows = [
            {"url": 0, "session": 1, "source": source, "from": START + a, "to": START + b, "position_s": a, "sent_s": 1}
            for a, b, source in parts
        ]
        return {"class_id": "c-1", "state": state, "why": None, "as_run": rows}

    def stated() -> list[tuple[str, float]]:
        return [(one["event"], one["at"] - START) for one in rows.said(streamer, "airing")]

    one = playout_events.PlayoutEvents(streamer)
    for _ in range(2):
        await one.look_around(START + 20, [status((0, 20, "recording"))])
    assert stated() == [("on_air", 0)]
    for at in (23, 26):
        await one.look_around(START + at, [status((0, 20, "recording"), state="trying")])
    assert stated()[1:] == [("interrupted", 20)]
    back = status((0, 20, "recording"), (28, 40, "slate"))
    await one.look_around(START + 40, [back])
    assert stated()[2:] == [("on_air", 28), ("slate", 28)]
    await playout_events.PlayoutEvents(streamer).look_around(START + 40, [back])
    assert stated()[4:] == [("on_air", 28), ("slate", 28)]


async def test_an_odd_word_of_the_playout_about_a_class_is_alarmed_and_ends_nothing(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the whole work on the playout, which passes the lease on: all classes would leave the air."""
    monkeypatch.setattr(failures, "publish_outbox", nobody)
    one = playout_events.PlayoutEvents(streamer)
    await one.catch_up({"class_id": "c-1", "state": "on_air"})
    await one.take({"event": "behind", "class_id": "c-1", "at": START})
    (said,) = alarms(streamer)
    assert said.startswith("streamer1: class c-1 does not work: KeyError")


async def test_what_was_over_before_the_playout_was_reached_again_goes_on_no_longer(streamer: StreamerHost) -> None:
    """Its word `back` or `on air` was said while nobody listened: no alarm is raised, nor kept open, for it."""
    one = playout_events.PlayoutEvents(streamer)
    await one.take(broke_off(START + 50, was_on_air=True))
    slate = {"event": "slate", "class_id": "c-1", "at": START, "why": "it is missing", "slate": "/s.flv"}
    await one.take({**slate, "wants_file": False})
    raised = len(alarms(streamer))
    await one.catch_up({"class_id": "c-1", "state": "on_air", "slate": False})
    streamer.ongoing.clear()
    await one.look_around(START + 90)
    assert (streamer.ongoing, len(alarms(streamer))) == ({}, raised)


async def test_a_recording_that_was_lost_while_nobody_listened_is_downloaded_again(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the slate is sent to the end of the class: the playout's word for it is said only once."""
    asked: list[tuple[str, str]] = []

    async def replace(_host: object, stem: str, why: str, *, seen_at: float) -> bool:
        asked.append((stem, why))
        return seen_at > 0

    monkeypatch.setattr(downloads, "redownload", replace)
    one = playout_events.PlayoutEvents(streamer)
    told = {"class_id": "c-1", "state": "on_air", "slate": True, "why": "the recording is missing"}
    await one.catch_up(told)  # an older playout does not say what helps
    for _ in range(2):
        await one.catch_up({**told, "wants_file": True})
        await fetched(one)
    assert asked == [("6666", "the recording is missing")]


async def test_a_recording_lost_twice_comes_twice(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was back, a second loss is a new one: else the slate is sent to the end of the class."""
    asked: list[str] = []

    async def replace(_host: object, _stem: str, why: str, *, seen_at: float) -> bool:
        asked.append(why)
        return seen_at == START

    monkeypatch.setattr(downloads, "redownload", replace)
    one = playout_events.PlayoutEvents(streamer)
    slate = {"event": "slate", "class_id": "c-1", "at": START, "slate": "/s.flv", "wants_file": True}
    for why in ("it is missing", "it is missing again"):
        await one.take({**slate, "why": why})
        await fetched(one)
        await one.take({"event": "back", "class_id": "c-1", "at": START, "why": "it is there", "position_s": 9.0})
    assert asked == ["it is missing", "it is missing again"]


class Told:
    """A playout that answers as it is told to."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = iter(answers)

    async def ask(self, _: str, **__: Any) -> dict[str, Any]:
        return next(self._answers)


async def test_playout_that_would_forget_class_is_said_once_until_it_writes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else its next restart would be the first to show that its disk takes nothing."""
    kept, lost = {"durable": True}, {"durable": False, "why": "the timetable is not written yet"}
    playout = Playout(client=cast("Client", Told(lost, kept, lost, kept, lost)))

    with caplog.at_level(logging.WARNING, logger="lectern"):
        for do in ("timetable", "status", "timetable", "timetable", "timetable"):
            await playout.ask(do)
    assert caplog.messages == ["playout: the timetable is not written yet; if it ends now, it forgets that"] * 2


async def test_a_class_that_falls_behind_the_clock_is_alarmed_at_once(streamer: StreamerHost) -> None:
    one = playout_events.PlayoutEvents(streamer)
    await one.take({"event": "behind", "class_id": "c-1", "at": START + 50, "behind_s": 2.1})
    (said,) = alarms(streamer)
    assert said.startswith("c-1: it falls behind the clock, and 2 s of it were skipped")


async def test_slate_whose_reason_playout_does_not_know_any_more_is_alarmed_in_words(streamer: StreamerHost) -> None:
    await playout_events.PlayoutEvents(streamer).catch_up(
        {"class_id": "c-1", "state": "waiting", "slate": True, "why": None}
    )
    assert alarms(streamer) == ["c-1: its slate is sent: no reason is known"]
