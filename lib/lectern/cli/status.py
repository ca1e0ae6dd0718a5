"""``lectern status``: what is on air and what should be, what comes next, what is being made, what waits."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

from lectern import formatting
from lectern.chinese_account import status_line
from lectern.cli import readers
from lectern.cli.options import Json, painted, say, translated
from lectern.cli.readers import Place
from lectern.db import timetable
from lectern.decide.dashboard import tally
from lectern.decide.leases import Presence, listed
from lectern.errors import LecternError
from lectern.model.views import ClassView, StreamerStatus
from lectern.settings import TeacherSettings
from lectern.states import BookingState

app = typer.Typer()
WATCH_S = 2.0
MISSING = 10
"""Number of classes that are named which should be on air and are not."""


@app.command("status")
def status_(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every 2 s, until Ctrl-C.")] = False,
) -> None:
    """What is on air, what comes next, what is under way and what waits. Run it on the teacher's host."""
    place = readers.teacher()
    if watch:
        _watch(place)
        return
    found, trouble = _standing(place)
    say(as_json, found, [] if as_json else _in_language(place, lines(found)))
    if trouble is not None:
        raise trouble


def _in_language(place: Place[TeacherSettings], said: list[str]) -> list[str]:
    return said if place.settings.lectern_lang == "en" else [translated(line, status_line) for line in said]


def _watch(place: Place[TeacherSettings]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only here is a screen wanted, and it takes long to load)
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(console=Console(), auto_refresh=False, screen=sys.stdout.isatty()) as live:
        for said in _again(place):
            live.update(Text.from_ansi("\n".join(said)), refresh=True)
            time.sleep(WATCH_S)


def _again(place: Place[TeacherSettings]) -> Iterator[list[str]]:
    while True:
        at = formatting.clock(time.time())
        try:
            found, trouble = _standing(place)
        except LecternError as error:
            yield [f"{at}  {error.message}"]
            continue
        more = [painted(trouble.message, "red")] if trouble else []
        yield [f"{at}  lectern status --watch, Ctrl-C ends it", *_in_language(place, lines(found)), *more]


def _standing(place: Place[TeacherSettings]) -> tuple[dict[str, Any], LecternError | None]:
    """How things stand, and the error of Redis, if any; without Redis nobody knows what is on air."""
    now, trouble = time.time(), None
    said: Mapping[str, StreamerStatus] | None = None
    now_there, beats = now, cast("Mapping[str, Mapping[str, Any]]", {})
    with place.looking() as connection:
        found = timetable.status_of_teacher(connection, now)
        due = timetable.due(connection, now)
    try:
        said = readers.words(place.settings)
        own = place.settings
        now_there, beats, _ = readers.asked(own, lambda bus: bus.heard(own.streamers_key))
    except LecternError as error:
        trouble = error
    counted = tally(due, said, now)
    found["on_air"] = sum(counted.on_air.values())
    found["missing"] = [asdict(one) for one in counted.missing]
    found["unknown"] = [asdict(one) for one in counted.unknown]
    found["due"] = len(due)
    _count_apart(found["bookings"], due)
    found["redis"] = None if trouble is None else trouble.message
    found["streamers"] = {
        name: {
            **beats[name],
            **_streamer((said or {}).get(name), found["booked"].get(name, 0), counted.on_air.get(name, 0)),
            "state": state,
            "silent_s": round(silent_s, 1),
        }
        for name, (state, silent_s) in listed(beats, now_there, place.settings.streamer_lost_after_s).items()
    }
    found["streamer_incidents"] = [
        {"streamer": name, **asdict(alarm)} for name, word in (said or {}).items() for alarm in word.alarms
    ]
    return found, trouble


def _count_apart(by_state: dict[str, int], due: Iterable[ClassView]) -> None:
    """Leave the classes whose time it is out of the *ready* ones: they are counted as on air, or as missing."""
    ready = by_state.get(BookingState.READY, 0)
    ready -= sum(one.booked is not None and one.booked.state is BookingState.READY for one in due)
    by_state[BookingState.READY] = max(ready, 0)
    if not by_state[BookingState.READY]:
        del by_state[BookingState.READY]


def _streamer(word: StreamerStatus | None, booked: int, on_air: int) -> dict[str, Any]:
    if word is None:
        return {"booked": booked, "on_air": on_air}
    return {
        "booked": booked,
        "on_air": on_air,
        "due": word.due,
        "alarms": word.alarms_number,
        "used_bytes": word.used.size_bytes,
        "max_bytes": word.bound.size_bytes,
        "used_num": word.used.num,
        "max_num": word.bound.num,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """How things stand, as lines for people."""
    said = [_on_air(found), *_missing(found["missing"]), *_missing(found["unknown"])]
    if (following := found["next"]) is not None:
        where = f" on {following['streamer']}" if following["streamer"] else ""
        state = painted(following["state"], None if following["state"] == "ready" else "yellow")
        said.append(f"next        {following['class_id']} in {formatting.span(following['in_s'])}{where}, {state}")
    said += [f"bookings    {_counted(found['bookings'])}", f"renditions  {_counted(found['renditions'])}"]
    said += _under_way(found)
    if found["oldest_waiting"]:
        waiting = found["oldest_waiting"]
        said.append(f"waiting     the oldest is {waiting['class_id']}, for {formatting.span(waiting['s'])}")
    said += _incidents(found)
    messages = "1 message waits" if found["inbox"] == 1 else f"{found['inbox']:,} messages wait"
    said.append(f"inbox       {messages}")
    if found["oldest_unsent_s"] is not None:
        said.append(f"outbox      the oldest unsent message is {formatting.span(found['oldest_unsent_s'])} old")
    if found.get("redis") is not None:
        return [
            *said,
            painted("redis       does not answer", "red"),
            painted("streamer    not known, because Redis does not answer", "yellow"),
        ]
    said += [f"streamer    {name}: {_of_streamer(one)}" for name, one in found["streamers"].items()]
    is_there = any(one.get("state") not in {Presence.LOST, Presence.STOPPED} for one in found["streamers"].values())
    return said if is_there else [*said, painted("streamer    none is alive", "red")]


def _on_air(found: Mapping[str, Any]) -> str:
    number, silent = len(found["missing"]), len(found["unknown"])
    missing = (
        f"; {formatting.counted(number, 'class', 'classes')} should be on air and {'is' if number == 1 else 'are'} not"
        if number
        else ""
    )
    unknown = f"; of {formatting.counted(silent, 'class', 'classes')} nobody here knows" if silent else ""
    on_air = formatting.counted(found["on_air"], "class", "classes")
    return f"on air      {on_air}{painted(missing, 'bold red')}{painted(unknown, 'yellow')}"


def _missing(missing: list[dict[str, Any]]) -> list[str]:
    said = [f"  {one['class_id']}: {one['why']}" for one in missing[:MISSING]]
    return said + ([f"  and {len(missing) - MISSING:,} more"] if len(missing) > MISSING else [])


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in sorted(numbers.items())) or "none"


def _under_way(found: Mapping[str, Any]) -> list[str]:
    number = found["under_way_number"]
    if not number:
        return []
    nearest = "the nearest to their deadline" if number > len(found["under_way"]) else "by their deadline"
    said = [f"under way   {formatting.counted(number, 'rendition')}, {nearest}:"]
    for one in found["under_way"]:
        left = "no deadline" if one["slack_s"] is None else f"{formatting.span(one['slack_s'])} to its deadline"
        said.append(f"  {one['rendition']}: {one['backend']}, attempt {one['attempt']}, {left}")
    return said


def _incidents(found: Mapping[str, Any]) -> list[str]:
    own = [("", one) for one in found["incidents"]]
    theirs = [(f" on {one['streamer']}", one) for one in found["streamer_incidents"]]
    said = []
    for where, one in (*own, *theirs):
        times = "" if one["count"] == 1 else f" ×{one['count']:,}"
        last = f"last at {formatting.clock(one['last_at'])}"
        said.append(painted(f"incident    {one['code']}{times}{where}, {last}: {one['message']}", "red"))
    return said


def _of_streamer(one: Mapping[str, Any]) -> str:
    """A streamer's line; without its status, the numbers are those of its heartbeat, which may lack some."""
    if one.get("state") in {Presence.LOST, Presence.STOPPED}:
        said = f"{one['state']}, not heard of for {formatting.span(one['silent_s'])}"
        said = painted(said, "bold red" if one["state"] is Presence.LOST else None)
        return f"{said}; {formatting.counted(one['booked'], 'class', 'classes')} booked"
    state = "" if one.get("state", Presence.ALIVE) == Presence.ALIVE else f"{painted(one['state'], 'yellow')}; "
    known = {name for name, value in one.items() if isinstance(value, int | float)}
    on_air = f"{one['on_air']:,} on air"
    booked = f"{formatting.counted(one['booked'], 'class', 'classes')} booked"
    used = "not known"
    if {"used_bytes", "max_bytes"} <= known:
        used = f"{formatting.size(one['used_bytes'])} of {formatting.size(one['max_bytes'])}"
    number = ""
    if {"used_num", "max_num"} <= known:
        number = f", {one['used_num']:,} of {formatting.counted(one['max_num'], 'rendition')}"
    alarms = f"; {formatting.counted(one['alarms'], 'open alarm')}" if "alarms" in known and one["alarms"] else ""
    return f"{state}{on_air}, {booked}; cache: {used}{number}{painted(alarms, 'red')}"
