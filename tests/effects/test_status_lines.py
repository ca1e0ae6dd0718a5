"""What `lectern status` prints: singular and plural, units, and each class counted once."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from lectern.cli import explain, status
from lectern.db import bookings
from lectern.decide.account import Account, Standing
from lectern.decide.leases import Presence
from lectern.decide.timeline import TimelineLine
from lectern.i18n import Text
from lectern.model.views import Booked, EventView, Sending, StreamerStatus
from lectern.states import BookingState
from tests import laid, strategies
from tests.rows import commit
from tests.typed import lectern

NOW = 1_764_010_000.0


WELL: dict[str, Any] = {
    **dict.fromkeys(("on_air", "under_way_number", "inbox"), 1),
    **dict.fromkeys(("missing", "unknown", "under_way", "incidents", "streamer_incidents"), ()),
    **dict.fromkeys(("next", "oldest_waiting", "oldest_unsent_s", "redis")),
    "bookings": {"ready": 1},
    "renditions": {"success": 1},
    "streamers": {},
}
"""How things stand where nothing is missing."""
CACHE = {"used_bytes": 5e11, "max_bytes": 1e12, "used_num": 1, "max_num": 1}


def test_a_class_whose_time_it_is_is_not_counted_as_ready_too(tmp_path: Path) -> None:
    now, engine = time.time(), laid.opened("teacher", tmp_path / "teacher.db")
    for class_id, start, state, counted in (
        ("c-1", now - 1, BookingState.READY, {}),
        ("c-2", now - 1, BookingState.WAITING, {"waiting": 1}),
        ("c-3", now + 600, BookingState.READY, {"waiting": 1, "ready": 1}),
    ):
        booked = strategies.booking(class_id, start_time=start, end_time=start + 60)
        commit(engine, bookings.add, [(booked, state)], now)
        assert json.loads(lectern(tmp_path, "status", "--json").stdout)["bookings"] == counted
    engine.dispose()


def test_each_class_is_on_air_or_is_missing_with_the_reason() -> None:
    def due(class_id: str, streamer: str | None, state: BookingState = BookingState.READY) -> Booked:
        return Booked(class_id, state, "1", NOW - 1, NOW + 60, 321, "no one listens", streamer, answered=True)

    here = StreamerStatus(NOW, {"a": Sending(True), "b": Sending(False, failures=2, why="refused")}, {}, ())
    gone = StreamerStatus(NOW, {"d": Sending(True)}, {}, (), silent_s=40)
    classes = [due("a", "s1"), due("b", "s1"), due("c", None, BookingState.WAITING), due("d", "s2")]
    classes.append(due("e", "s1", BookingState.BROKEN))
    on_air, apart = status.counted(classes, {"s1": here, "s2": gone}, NOW)
    assert on_air == {"s1": 1}
    assert {one["class_id"]: one["standing"] for one in apart["missing"]} == {
        "b": Standing.NOT_ON_AIR,
        "c": Standing.NOT_ON_AIR,
        "e": Standing.BROKEN,
    }
    assert [(one["class_id"], one["standing"]) for one in apart["unknown"]] == [("d", Standing.SILENT)]
    assert "refused" in apart["missing"][0]["why"]
    assert "it waits for 1" in apart["missing"][1]["why"]
    assert "321: no one listens" in apart["missing"][2]["why"]


@pytest.mark.parametrize("beat", [{}, {"used_bytes": 1}, {"used_bytes": "1", "max_bytes": None}, {"alarms": "x"}])
def test_a_heartbeat_that_somebody_else_wrote_hides_no_other_line(beat: dict[str, Any]) -> None:
    """Redis keeps whatever is written there; only the time of a heartbeat is checked."""
    heard = {"on_air": 1, "booked": 1, "alarms": 1, "state": "alive", **CACHE}
    odd = {"at": NOW, **beat, "on_air": 0, "booked": 0, "state": "alive"}
    assert status.lines({**WELL, "streamers": {"streamer1": heard, "odd": odd}})[-2:] == [
        "streamer    streamer1: 1 on air, 1 booked; cache: 500 GB of 1,000 GB, renditions: 1 of 1; 1 open alarm",
        "streamer    odd: 0 on air, 0 booked; cache: not known",
    ]


def test_a_streamer_is_said_to_be_what_it_is() -> None:
    heard, silent = "0 on air, 2 booked", "not heard of for 5 min; 2 booked"
    said = {Presence.ALIVE: heard, Presence.DRAINED: f"drained; {heard}", Presence.HANGS: f"its process hangs; {heard}"}
    said |= {Presence.FULL: f"its disk takes nothing; {heard}"}
    said |= {one: f"{one}, {silent}" for one in (Presence.LOST, Presence.STOPPED)}
    known = {"silent_s": 300.0, "on_air": 0, "booked": 2}
    found = WELL | {"streamers": {f"s{n}": {"state": one, **known} for n, one in enumerate(said)}}
    lines = status.lines(found)[-len(said) :]
    expected = [f"streamer    s{n}: {one}" for n, one in enumerate(said.values())]
    assert [one.removesuffix("; cache: not known") for one in lines] == expected
    for one, other in zip(lines, status.lines(found, "zh")[-len(said) :], strict=True):
        assert one not in other


def test_without_redis_nobody_is_called_dead() -> None:
    """What cannot be known is not said in red."""
    found = WELL | {"redis": "Redis does not answer: no answer in time"}
    assert status.lines(found)[-2:] == [
        "redis       cannot be asked",
        "streamer    not known, because Redis cannot be asked",
    ]
    assert status.lines(WELL)[-1] == "streamer    none is alive"


def test_each_line_is_chinese_to_those_who_read_chinese() -> None:
    unsent = Text("nothing of it was sent yet by {host}", host="streamer1")
    unaired = Text("not on air: {why}", why=unsent)
    unheard = Text("{streamer} has been silent for {silent_s:span}", streamer="streamer2", silent_s=40)
    silent = Text("{unheard}: nobody here knows whether the class is on air", unheard=unheard)
    made = {"rendition": "1_240P", "backend": "oss", "attempt": 1, "slack_s": 80.0}
    found = WELL | {"oldest_waiting": {"class_id": "c-3", "s": 40.0}, "oldest_unsent_s": 61.0, "under_way": [made] * 12}
    found |= {"missing": [{"class_id": "c", "why": unaired}] * 12, "unknown": [{"class_id": "d", "why": silent}] * 12}
    found["next"] = {"class_id": "c-2", "in_s": 300.0, "streamer": "streamer1", "state": "ready"}
    found["incidents"] = [{"code": 208, "count": 2, "last_at": NOW, "message": "1_240P: no"}]
    found["streamers"] = {"streamer1": {"on_air": 12, "booked": 12, "alarms": 12, "state": "alive", **CACHE}}
    for line, english in zip(status.lines(found, "zh"), status.lines(found), strict=True):
        assert re.search("[\u4e00-\u9fff]", line), english
    assert status.lines({**found, "streamers": {}}, "zh")[-1] == "推流端      没有存活的"


def test_the_account_of_a_record_begins_with_its_first_event() -> None:
    """It has no header, as it is no class; an empty line would part its events from nothing."""
    event = EventView(NOW, "transcoding asked for", None, "6666_720P", "teacher", "")
    story = (TimelineLine(event, event),)
    assert explain.lines("6666", Account(Standing.UNKNOWN, (), (), story))[0].strip() != ""
