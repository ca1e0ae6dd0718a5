"""What will happen next to a class, or what a person should type: the last lines of ``lectern explain``."""

from typing import assert_never

from lectern.errors import CODES, MALFORMED, STREAMER_LOST
from lectern.facts import Booked, Cited, Making
from lectern.states import AiringState, Backend, BookingState, RenditionState

LATE_S = 120.0
"""Seconds after which a message that is not handled is late: the slowest, with all its tries, takes a minute."""

WAITING = "RUNBOOK.md: messages wait in the inbox"
SOON_S = 600.0
"""A class that begins so soon and is not ready is in danger: the platform can still move it."""


def of_booking(one: Booked, making: Making | None, now: float) -> list[str]:
    """Sentences: what comes next for a booking, how much time is left, which heading of RUNBOOK.md to read."""
    said = _standing(one, making, now)
    if one.state in {BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED}:
        said += _danger(one.class_id, one.start_time, now)
    if one.code is not None and not one.answered:
        said.append("Its answer is not sent yet: is Redis there? It is sent as soon as it is.")
    return said


def of_unbooked(kept_since: float | None, *, malformed: bool, now: float) -> list[str]:
    """The same for a class of which only messages are known, not a booking."""
    if kept_since is not None:
        waits = f"A message about it waits in the inbox, since {_span(now - kept_since)}"
        if now - kept_since < LATE_S:
            return [f"{waits}: it is handled within a minute, if Prefect and Redis answer.", WAITING]
        return [f"{waits}, which is too long: ask this host's /health what is wrong.", WAITING]
    return [f"It is not booked: RUNBOOK.md: {MALFORMED.runbook}"] if malformed else []


def of_airing(one: Cited, now: float) -> list[str]:
    """The same for a class as its streamer has it."""
    match one.state:
        case AiringState.REFUSED if one.lost:
            said = _refused(one.code, one.message, over=now >= one.end_time)
            moves = "It was ready and lost its file: its teacher gives it to another streamer, or alarms 323."
            return [moves, *said, *_danger(one.class_id, one.start_time, now)]
        case AiringState.WAITING:
            said = [f"{one.stem} is downloaded; then it is ready. `lectern cache ls` shows the download."]
            return said + _danger(one.class_id, one.start_time, now)
        case AiringState.READY:
            return [_begins(one.start_time, one.end_time, now)]
        case AiringState.ON_AIR:
            return [f"It is pushed now, for {_span(one.end_time - now)} more. To end it: lectern cancel {one.class_id}"]
        case AiringState.AIRED:
            return ["It was aired to its end."]
        case AiringState.CANCELLED:
            return ["It was cancelled; its rendition is released."]
        case AiringState.REFUSED | AiringState.BROKEN:
            return _refused(one.code, one.message, over=now >= one.end_time)


def _standing(one: Booked, making: Making | None, now: float) -> list[str]:
    if one.lost_since is not None and one.state in {BookingState.PLACED, BookingState.READY}:
        silent = (
            f"{one.streamer} is lost, since {_span(now - one.lost_since)}: its classes go to others, where they can."
        )
        return [silent, f"RUNBOOK.md: {STREAMER_LOST.runbook}"]
    match one.state:
        case BookingState.RECEIVED:
            return ["It is about to be decided. Should this stay so for a minute, restart the teacher."]
        case BookingState.WAITING:
            return [_making(one.stem, making, now)]
        case BookingState.PLACED:
            return [f"{one.streamer} prepares it; its answer comes then. The sweeper asks again until it does."]
        case BookingState.READY:
            return [_on_the_timetable(one, now)]
        case BookingState.AIRED:
            return ["It was aired to its end. Nothing is to be done."]
        case BookingState.CANCELLED:
            return ["It was cancelled and is not aired. To have it all the same, book it with a new class_id."]
        case BookingState.REFUSED | BookingState.BROKEN:
            return _refused(one.code, one.message, over=now >= one.end_time)
        case _:
            assert_never(one.state)


def _making(stem: str, making: Making | None, now: float) -> str:
    if making is None or making.state is not RenditionState.TRANSCODING:
        return f"It waits for {stem}, which nobody makes: the sweeper settles it within a minute."
    by = "the OSS transcoder" if making.backend is Backend.OSS else "an ECS host"
    if making.deadline is None:
        return f"It waits for {stem}: attempt {making.attempt}, by {by}."
    left = making.deadline - now
    when = f"in {_span(left)}" if left > 0 else f"since {_span(-left)}, so within a minute"
    return (
        f"It waits for {stem}: attempt {making.attempt}, by {by}; without a result {when} it is settled as timed out."
    )


def _on_the_timetable(one: Booked, now: float) -> str:
    return f"{one.streamer} has {one.stem}. {_begins(one.start_time, one.end_time, now)}"


def _begins(start: float, end: float, now: float) -> str:
    if now < start:
        return f"It is aired in {_span(start - now)}."
    if now < end:
        return "It should be on air now: look at its broadcast run, and at RUNBOOK.md under 321."
    return "Its time is over; its end will be noted within a minute."


def _refused(code: int | None, message: str | None, *, over: bool) -> list[str]:
    known = CODES.get(code or 0)
    said = [f"Cause: {message}"] if message else []
    if known is None:
        return [*said, "Nothing comes next."]
    said.append(f"RUNBOOK.md: {known.runbook}")
    return said if over else [*said, f"The platform should: {known.platform_should}"]


def _danger(class_id: str, start: float, now: float) -> list[str]:
    left = start - now
    if left > SOON_S:
        return []
    begins = f"begins in {_span(left)}" if left > 0 else f"should have begun {_span(-left)} ago"
    return [f"In danger: it {begins}. To have it moved, cancel it (lectern cancel {class_id}) and tell the platform."]


def _span(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3 h 5 min, 2 d 4 h."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 2 else f"{days} d {hours % 24} h"
