"""``lectern status``: what is on air and what should be, what comes next, what is being made, what waits."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, on_bus, painted
from lectern.cli.readers import Place
from lectern.db import timetable
from lectern.decide.account import MISSED, Standing, state_sentence, stood
from lectern.decide.leases import Presence, listed
from lectern.errors import LecternError
from lectern.formatting import padded
from lectern.i18n import ENGLISH, Text, joined, labelled, msgid, translated
from lectern.model.views import Booked, StreamerStatus
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
    print(json.dumps(found) if as_json else "\n".join(lines(found, place.settings.lectern_lang)), flush=True)
    if trouble is not None:
        raise trouble


def _watch(place: Place[TeacherSettings]) -> None:
    clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
    while True:
        at = formatting.clock(time.time())
        try:
            found, trouble = _standing(place)
            said = [f"{at}  lectern status --watch, Ctrl-C ends it", *lines(found, place.settings.lectern_lang)]
            said += [painted(translated(trouble.message, place.settings.lectern_lang), "red")] if trouble else []
        except LecternError as error:
            said = [f"{at}  {translated(error.message, place.settings.lectern_lang)}"]
        print(clear + "\n".join(said), flush=True)
        time.sleep(WATCH_S)


def _standing(place: Place[TeacherSettings]) -> tuple[dict[str, Any], LecternError | None]:
    """How things stand, and the error of Redis, if any; without Redis nobody knows what is on air."""
    now, own, key, trouble = time.time(), place.settings, place.settings.streamers_key, None
    words: Mapping[str, StreamerStatus] | None = None
    now_there, beats = now, dict[str, dict[str, Any]]()
    with place.looking() as connection:
        found = timetable.status_of_teacher(connection, now, own.name)
        due = timetable.due(connection, now)
    try:
        words, (now_there, beats, _) = on_bus(
            own, lambda bus: asyncio.gather(bus.words(key, own.silent_after_s), bus.heard(key)), readers.LOOK_S
        )
    except LecternError as error:
        trouble = error
    on_air, apart = counted(due, words, now)
    found |= {"on_air": on_air.total(), **apart, "due": len(due)}
    its_time = Counter(one.state for one in due if one.state is BookingState.READY)  # counted as on air, or as missing
    found["bookings"] = dict(Counter(found["bookings"]) - its_time)
    found["redis"] = None if trouble is None else trouble.message
    found["streamers"] = {
        name: {
            **beats[name],
            **_streamer((words or {}).get(name)),
            "booked": found["booked"].get(name, 0),
            "on_air": on_air[name],
            "state": state,
            "silent_s": round(silent_s, 1),
        }
        for name, (state, silent_s) in listed(beats, now_there, own.streamer_lost_after_s).items()
    }
    there = [(name, word) for name, word in (words or {}).items() if name in found["streamers"]]
    found["streamer_incidents"] = [{"streamer": name, **asdict(alarm)} for name, word in there for alarm in word.alarms]
    return found, trouble


def counted(
    due: Iterable[Booked], words: Mapping[str, StreamerStatus] | None, now: float
) -> tuple[Counter[str], dict[str, list[dict[str, Any]]]]:
    """The number of classes on air by streamer; and those *missing* and *unknown*, with how each stands instead."""
    on_air = Counter[str]()
    apart: dict[str, list[dict[str, Any]]] = {"missing": [], "unknown": []}
    for one in due:
        view, standing = stood(one, words, now)
        if standing is Standing.ON_AIR:
            on_air[one.streamer or "?"] += 1
        elif standing in MISSED or standing is Standing.SILENT:
            why = state_sentence(view, standing, now)
            if standing is Standing.BROKEN:
                why = Text("broken: {code}: {why}", code=one.code, why=one.message or "")
            said = {"class_id": one.class_id, "streamer": one.streamer, "standing": standing, "why": why}
            apart["missing" if standing in MISSED else "unknown"].append(said)
    return on_air, apart


def _streamer(word: StreamerStatus | None) -> dict[str, Any]:
    if word is None:
        return {}
    return {
        "due": word.due,
        "alarms": word.alarms_number,
        "used_bytes": word.used.size_bytes,
        "max_bytes": word.bound.size_bytes,
        "used_num": word.used.num,
        "max_num": word.bound.num,
        "bandwidth": word.bandwidth,
        "network": asdict(word.network),
    }


class _Lines:
    """Lines for people, in *language*: a label in a column of its own, then sentences, each in its colour."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.written: list[str] = []

    def said(self, text: str, style: str | None = None) -> str:
        """*text* in the language and in a colour."""
        return painted(translated(text if " " in text else Text(text), self.language), style)

    def add(self, label: str, *parts: str, style: str | None = None) -> None:
        """Add a line under *label*."""
        line = padded(self.said(label), 12) + self.said(joined(self.said(one) for one in parts))
        self.written.append(painted(line, style))

    def below(self, text: str) -> None:
        """Add a line that belongs to the one before."""
        self.written.append(f"  {self.said(text)}")


def lines(found: Mapping[str, Any], language: str = ENGLISH) -> list[str]:
    """How things stand, as lines for people."""
    to = _Lines(language)
    _on_air(to, found)
    if (following := found["next"]) is not None:
        state = to.said(following["state"], None if following["state"] == "ready" else "yellow")
        coming = {"class_id": following["class_id"], "left_s": following["in_s"], "state": state}
        said = Text("{class_id} in {left_s:span}, {state}", **coming)
        if following["streamer"]:
            said = Text("{class_id} in {left_s:span} on {streamer}, {state}", streamer=following["streamer"], **coming)
        to.add("next", said)
    to.add("bookings", _counted(to, found["bookings"]))
    to.add("renditions", _counted(to, found["renditions"]))
    _under_way(to, found)
    if waiting := found["oldest_waiting"]:
        to.add("waiting", Text("the oldest is {class_id}, for {s:span}", **waiting))
    _incidents(to, found)
    to.add("inbox", Text.many("{n:,} message waits", "{n:,} messages wait", n=found["inbox"]))
    if found["oldest_unsent_s"] is not None:
        to.add("outbox", Text("the oldest unsent message is {age_s:span} old", age_s=found["oldest_unsent_s"]))
    _streamers(to, found)
    return to.written


def _streamers(to: _Lines, found: Mapping[str, Any]) -> None:
    if found.get("redis") is not None:
        to.add(msgid("redis"), Text("cannot be asked"), style="red")
        to.add(msgid("streamer"), Text("not known, because Redis cannot be asked"), style="yellow")
        return
    for name, one in found["streamers"].items():
        to.add("streamer", labelled(name, joined(_of_streamer(to, one))))
    if all(one.get("state") in {Presence.LOST, Presence.STOPPED} for one in found["streamers"].values()):
        to.add("streamer", Text("none is alive"), style="red")


def _on_air(to: _Lines, found: Mapping[str, Any]) -> None:
    missing, unknown = found["missing"], found["unknown"]
    parts: list[str] = [Text.many("{n:,} class", "{n:,} classes", n=found["on_air"])]
    if missing:
        should = Text.many(
            "{n:,} class should be on air and is not", "{n:,} classes should be on air and are not", n=len(missing)
        )
        parts.append(to.said(should, "bold red"))
    if unknown:
        silent = Text.many("of {n:,} class nobody here knows", "of {n:,} classes nobody here knows", n=len(unknown))
        parts.append(to.said(silent, "yellow"))
    to.add("on air", *parts)
    for these in (missing, unknown):
        for one in these[:MISSING]:
            to.below(labelled(one["class_id"], one["why"]))
        if len(these) > MISSING:
            to.below(Text("and {n:,} more", n=len(these) - MISSING))


def _counted(to: _Lines, numbers: Mapping[str, int]) -> str:
    said = ", ".join(f"{number:,} {to.said(state)}" for state, number in sorted(numbers.items()))
    return said or Text("none")


def _under_way(to: _Lines, found: Mapping[str, Any]) -> None:
    number = found["under_way_number"]
    if not number:
        return
    said = Text.many("{n:,} rendition, by their deadline:", "{n:,} renditions, by their deadline:", n=number)
    if number > len(found["under_way"]):
        said = Text("{n:,} renditions, the nearest to their deadline:", n=number)
    to.add(msgid("under way"), said)
    for one in found["under_way"]:
        bounded = msgid("{rendition}: {backend}, attempt {attempt}, {slack_s:span} to its deadline")
        endless = msgid("{rendition}: {backend}, attempt {attempt}, no deadline")
        to.below(Text(endless if one["slack_s"] is None else bounded, **one))


def _incidents(to: _Lines, found: Mapping[str, Any]) -> None:
    for one in (*found["incidents"], *found["streamer_incidents"]):
        what = f"{one['code']}" if one["count"] == 1 else f"{one['code']} ×{one['count']:,}"
        known = {"what": what, "last_at": one["last_at"], "message": one["message"]}
        said = Text("{what}, last at {last_at:clock}: {message}", **known)
        if "streamer" in one:
            said = Text("{what} on {streamer}, last at {last_at:clock}: {message}", streamer=one["streamer"], **known)
        to.add(msgid("incident"), said, style="red")


def _of_streamer(to: _Lines, one: Mapping[str, Any]) -> list[str]:
    """A streamer's line; without its status, the numbers are those of its heartbeat, which may lack some."""
    state, booked = one.get("state", Presence.ALIVE), one["booked"]
    if state in {Presence.LOST, Presence.STOPPED}:
        said = Text("{state}, not heard of for {silent_s:span}", state=Text(str(state)), silent_s=one["silent_s"])
        return [to.said(said, "bold red" if state is Presence.LOST else None), Text("{n:,} booked", n=booked)]
    known = {name for name, value in one.items() if isinstance(value, int | float)}
    parts: list[str] = [] if state == Presence.ALIVE else [to.said(state, "yellow")]
    parts.append(Text("{on_air:,} on air, {n:,} booked", n=booked, on_air=one["on_air"]))
    cache = Text("cache: not known")
    if {"used_bytes", "max_bytes"} <= known:
        cache = Text("cache: {used:size} of {most:size}", used=one["used_bytes"], most=one["max_bytes"])
    if {"used_num", "max_num"} <= known:
        cache = Text("{cache}, renditions: {used:,} of {n:,}", cache=cache, used=one["used_num"], n=one["max_num"])
    parts += [cache, *filter(None, [one.get("bandwidth")])]
    if "alarms" in known and one["alarms"]:
        parts.append(to.said(Text.many("{n:,} open alarm", "{n:,} open alarms", n=one["alarms"]), "red"))
    return parts
