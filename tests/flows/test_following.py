"""What the playout tells of a class on air becomes an alarm within 15 s, also if it then tells nothing more."""

import logging
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection, update

from flows import failures
from flows.host import StreamerHost
from flows.outbox_publisher import patience
from flows.playout_link import Playout
from flows.streamer import downloads, playout_events, playout_sync
from flows.streamer.playout_events import PlayoutEvents
from lectern import errors
from lectern.model.tables.streamer import classes, tasks
from lectern.playout.control_socket import PROTOCOL, Client
from tests import rows

START = 0.0
"""When the class of a test began, a moment before it; a whole run may take longer than the class."""


@pytest.fixture
def streamer(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer with a class on air; what it sends stays in its outbox."""
    monkeypatch.setitem(globals(), "START", time.time() - 100)
    monkeypatch.setattr(playout_events, "publish_outbox", rows.unsent)
    rows.commit(streamer.engine, rows.bare, "c-1", START, "on air", end_time=START + 2700)
    return streamer


def alarms(host: StreamerHost) -> list[str]:
    """The sentences of the alarms that were raised."""
    return [one["message"] for one in rows.said(host)]


@pytest.fixture
def following(streamer: StreamerHost) -> PlayoutEvents:
    return PlayoutEvents(streamer)


def told(event: str, after_s: float = 50, **fields: object) -> dict[str, Any]:
    """What the playout tells of the class, so long after its start."""
    return {"event": event, "class_id": "c-1", "at": START + after_s, **fields}


def broke_off(after_s: float = 50, *, was_on_air: bool = True) -> dict[str, Any]:
    """A push ended, or came to nothing."""
    return told("broke_off", after_s, session=1, why="the server took nothing for 5 s", was_on_air=was_on_air)


def slate(why: str = "the recording is missing", **fields: object) -> dict[str, Any]:
    """The recording cannot be sent."""
    return told("slate", 0, slate=True, why=why, **fields)


def back() -> dict[str, Any]:
    return told("back", 0, why="it is there", position_s=9.0)


def over(**fields: object) -> dict[str, Any]:
    """What the playout says of the class when it is over, and nothing was sent of it."""
    sums = {"sent_s": 0.0, "slate_s": 0.0, "gap_s": 2700.0, "sessions": 0, "as_run": []}
    return {"class_id": "c-1", "state": "ended", "slate": False, "why": "its end has come", **sums, **fields}


async def fetched(following: PlayoutEvents) -> None:
    """Wait until the recording was asked for, if it is."""
    fetching = following._classes["c-1"].fetching
    if fetching is not None:
        await fetching


@pytest.mark.parametrize(
    ("starts_in_s", "said"), [(2, "its slate is sent from its start on"), (-2, "its slate is sent")]
)
async def test_a_class_that_is_to_begin_without_its_recording_is_not_said_to_send_its_slate_already(
    streamer: StreamerHost, following: PlayoutEvents, starts_in_s: float, said: str
) -> None:
    """Its playout opens the file some seconds before the class."""
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(start_time=time.time() + starts_in_s))
    await following.take({**slate(), "at": time.time()})
    assert alarms(streamer) == [f"c-1: {said}: the recording is missing"]


async def test_a_push_that_broke_off_is_alarmed_unless_it_comes_back_at_once(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """Though nothing is told after it."""
    await following.take(broke_off(20))
    await following.take(told("on_air", 22, session=2, position_s=22.0))
    await following.look_around(START + 30)
    await following.take(broke_off(50))
    await following.look_around(START + 54)
    assert alarms(streamer) == []
    await following.look_around(START + 56)
    (said,) = alarms(streamer)
    assert "it is not on air: the server took nothing for 5 s" in said


async def test_trouble_of_a_class_on_air_is_not_called_over_because_its_playout_is_away(streamer: StreamerHost) -> None:
    """Nobody sees how the class is aired then, if it is."""
    handing = playout_sync.PlayoutSync(streamer)
    for one in (slate(), broke_off()):
        await handing._following.take(one)
    streamer.playout.is_away("it was killed")
    await handing._say_away()
    assert {errors.NO_RECORDING.number, errors.AIRING_BROKEN.number}.issubset(patience(streamer).goes_on)


async def test_trouble_of_a_class_that_is_another_streamers_now_goes_on_no_more(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """Also if its playout told nothing of it, and only its status said that it is not on air."""
    streamer.playout.until = math.inf
    await following.look_around(START + 60, [{"class_id": "c-1", "state": "connecting", "why": "no answer"}])
    following.still()
    assert errors.AIRING_BROKEN.number in patience(streamer).goes_on
    streamer.ongoing.clear()
    following.only([])
    following.still()
    assert errors.AIRING_BROKEN.number not in patience(streamer).goes_on


@pytest.mark.parametrize("status", [over(), {"class_id": "c-1", "state": "on_air", "slate": False}], ids=["end", "on"])
async def test_what_was_over_before_the_playout_was_reached_again_goes_on_no_longer(
    streamer: StreamerHost, following: PlayoutEvents, status: dict[str, Any]
) -> None:
    """The end of the class, its word `back` or `on air` was said while nobody listened, and its status says so.

    No alarm is raised, nor kept open, for it.
    """
    await following.take(broke_off())
    await following.take(slate(wants_file=False))
    raised = rows.said(streamer, "alarm")
    await following.catch_up(status)
    streamer.ongoing.clear()
    await following.look_around(START + 90)
    assert (streamer.ongoing, rows.said(streamer, "alarm")) == ({}, raised)


async def test_a_playout_that_was_back_and_is_away_again_is_alarmed_again(
    streamer: StreamerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People were told that the first time is over, and nothing is aired again."""

    async def ask(_do: str, **fields: Any) -> dict[str, Any]:
        answer = {"holder_pid": 1, "classes": [], "release": "2.0.0", "protocol": PROTOCOL}
        taken: dict[str, Any] = {"version": fields.get("version"), "refused": {}, "left_out": 0}
        return {**answer, **taken, "timetable": {"path": str(tmp_path / "timetable.jsonl"), "version": None}}

    monkeypatch.setattr(playout_sync, "publish_outbox", rows.unsent)
    monkeypatch.setattr(playout_sync, "ALARM_AFTER_S", 0.0)
    monkeypatch.setattr(streamer.playout, "ask", ask)
    handing = playout_sync.PlayoutSync(streamer)
    for number in (1, 2):
        streamer.playout.is_away("it was killed")
        await handing._say_away()
        await handing._say_away()
        assert [one["code"] for one in rows.said(streamer)] == [errors.PLAYOUT_AWAY.number] * number
        streamer.playout.client = cast("Client", Told())
        await handing._bring_up_to_date()


async def test_a_class_that_lacks_its_recording_again_is_alarmed_again(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """However soon: its first incident is resolved, and no later event says so while its slate is sent."""
    for number in (1, 2):
        await following.take(slate())
        await following.take(slate())
        assert len(alarms(streamer)) == number
        await following.take(back())


async def test_a_class_that_ends_while_others_are_looked_at_is_passed_over(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are taken beside the look; one of the last class must not end the whole work on the playout."""
    await following.take(broke_off())
    look = streamer.read_tx

    async def slowly(*asked: Any) -> Any:
        found = await look(*asked)
        following.only([])
        return found

    monkeypatch.setattr(streamer, "read_tx", slowly)
    await following.look_around(START + 60)
    assert alarms(streamer) == []


async def test_a_class_that_was_never_on_air_counts_from_its_start(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """A server that takes the connection, and does not answer, is given up after 10 s: those count, too."""
    await following.take(broke_off(8, was_on_air=False))
    (said,) = alarms(streamer)
    assert "it is not on air" in said


async def test_a_class_not_aired_is_reported_once(streamer: StreamerHost, following: PlayoutEvents) -> None:
    """The playout tells its end to each process that begins; the story and the teacher need it once."""
    streamer.playout = cast("Any", SimpleNamespace(over=lambda _class_id: None))
    for _ in range(2):
        await following.take({**over(), **told("ended", 2700)})
    assert [one["cmd"] for one in rows.said(streamer) if one["cmd"] != "alarm"] == ["ended"]


async def test_a_class_closed_too_early_is_aired(streamer: StreamerHost, following: PlayoutEvents) -> None:
    """The playout was away when the sweeper closed it, and says now what it has sent."""
    streamer.playout = cast("Any", SimpleNamespace(over=lambda _class_id: None))
    broken = update(classes).values(state="broken", message="nobody knows how much of it was sent")
    rows.commit(streamer.engine, Connection.execute, broken)
    row = {"url": 0, "session": 1, "source": "recording", "from": START, "to": START + 2700, "position_s": 0.0}
    row |= {"sent_s": 2700.0, "bytes": 9, "open": False}
    await following.catch_up(over(sent_s=2700.0, gap_s=0.0, sessions=1, as_run=[row]))
    assert rows.state_of(streamer, "c-1") == "aired"


async def test_how_a_class_is_aired_is_stated_to_the_teacher_when_it_changes(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    """By what the playout says that it has sent; a process that begins states it once more, which changes nothing."""

    def status(*parts: tuple[float, float, str], state: str = "on_air") -> dict[str, Any]:
        rows = [
            {"url": 0, "session": 1, "source": source, "from": START + a, "to": START + b, "position_s": a, "sent_s": 1}
            for a, b, source in parts
        ]
        return {"class_id": "c-1", "state": state, "why": None, "as_run": rows}

    def stated() -> list[tuple[str, float]]:
        return [(one["event"], one["at"] - START) for one in rows.said(streamer, "airing")]

    for _ in range(2):
        await following.look_around(START + 20, [status((0, 20, "recording"))])
    assert stated() == [("on_air", 0)]
    for at in (23, 26):
        await following.look_around(START + at, [status((0, 20, "recording"), state="trying")])
    assert stated()[1:] == [("interrupted", 20)]
    again = status((0, 20, "recording"), (28, 40, "slate"))
    await following.look_around(START + 40, [again])
    assert stated()[2:] == [("on_air", 28), ("slate", 28)]
    await PlayoutEvents(streamer).look_around(START + 40, [again])
    assert stated()[4:] == [("on_air", 28), ("slate", 28)]


async def test_an_odd_word_of_the_playout_about_a_class_is_alarmed_and_ends_nothing(
    streamer: StreamerHost, following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the whole work on the playout, which passes the lease on: all classes would leave the air."""
    monkeypatch.setattr(failures, "publish_outbox", rows.unsent)
    await following.catch_up({"class_id": "c-1", "state": "on_air"})
    await following.take(told("behind"))
    (said,) = alarms(streamer)
    assert said.startswith("streamer1: class c-1 does not work: KeyError")


async def test_a_recording_is_downloaded_again_each_time_it_is_lost(
    following: PlayoutEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nobody listened: else the slate is sent to the end of the class, for the playout says it only once."""
    asked: list[tuple[str, str, bool]] = []

    async def replace(_host: object, stem: str, why: str, *, seen_at: float) -> bool:
        asked.append((stem, why, seen_at == START))
        return seen_at > 0

    monkeypatch.setattr(downloads, "redownload", replace)
    status = {"class_id": "c-1", "state": "on_air", "slate": True, "why": "the recording is missing"}
    await following.catch_up(status)  # an older playout does not say what helps
    for _ in range(2):
        await following.catch_up({**status, "wants_file": True})
        await fetched(following)
    assert asked == [("6666", "the recording is missing", False)]
    for why in ("it is missing again", "it is missing once more"):
        await following.take(back())
        await following.take(slate(why, wants_file=True))
        await fetched(following)
    assert asked[1:] == [("6666", "it is missing again", True), ("6666", "it is missing once more", True)]


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


async def test_a_class_behind_the_clock_and_a_slate_without_a_reason_are_alarmed_in_words(
    streamer: StreamerHost, following: PlayoutEvents
) -> None:
    await following.take(told("behind", behind_s=2.1))
    await following.catch_up({"class_id": "c-1", "state": "waiting", "slate": True, "why": None})
    behind, said = alarms(streamer)
    assert behind.startswith("c-1: it falls behind the clock, and 2 s of it were skipped")
    assert said == "c-1: its slate is sent: no reason is known"
