"""What will happen next to a class, or what a person should type: the last lines of its account."""

from typing import assert_never

from lectern.errors import CODES, MALFORMED, STREAMER_LOST
from lectern.states import AiringState, Backend, BookingState
from lectern.told import Booked, Cited, Making
from lectern.words import span

LATE_S = 120.0
"""Seconds after which an unhandled message is late: the slowest, with all its retries, takes a minute."""

ANSWERED_S = 15.0
"""Seconds within which an answer leaves, if Redis takes it."""

WAITING = "RUNBOOK.md: messages wait in the inbox"
SOON_S = 600.0
"""Seconds before its start in which a class that is not ready is in danger; the platform can still move it."""


def of_class(booked: Booked | None, making: Making | None, cited: Cited | None, now: float) -> list[str]:
    """What comes next for a class: its streamer's view, if a streamer has it, then what only its teacher knows."""
    if booked is None:
        return [] if cited is None else of_airing(cited, now)
    said = of_booking(booked, making, now)
    if cited is not None and booked.state in {BookingState.PLACED, BookingState.READY} and booked.lost_since is None:
        own = of_airing(cited, now)
        return own + [one for one in said[1:] if one not in own]
    return said


def of_booking(one: Booked, making: Making | None, now: float) -> list[str]:
    """What comes next for a booking, in sentences: the time that is left, and the RUNBOOK.md heading to read."""
    said = _standing(one, making, now)
    if one.state in {BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED}:
        said += _danger(one.class_id, one.start_time, now)
    if one.code is not None and not one.answered:
        said.append(_unanswered(one, now))
    return said


def _unanswered(one: Booked, now: float) -> str:
    waits_s = ANSWERED_S if one.decided_at is None else now - one.decided_at
    if waits_s < ANSWERED_S:
        return "Its answer is being sent."
    return f"Its answer has not left for {span(waits_s)}: see whether Redis answers. It is sent as soon as it does."


def nearest_deadline(one: Booked, making: Making | None) -> tuple[float, bool]:
    """The next deadline (epoch seconds) of a booking that waits, and whether it is the start of its class.

    It is the deadline of the rendition that the booking waits for, if that comes before the start.
    """
    is_made = one.state is BookingState.WAITING and making is not None and making.under_way
    result_due = making.deadline if making is not None and is_made else None
    if result_due is None or result_due >= one.start_time:
        return one.start_time, True
    return result_due, False


def of_unbooked(kept_since: float | None, *, malformed: bool, now: float) -> list[str]:
    """What comes next for a class that has no booking, only messages."""
    if kept_since is not None:
        waits = f"A message about it has waited in the inbox for {span(now - kept_since)}"
        if now - kept_since < LATE_S:
            return [f"{waits}: it is handled within a minute if its servers answer.", WAITING]
        return [f"{waits}, which is too long: ask this host's /health what is wrong.", WAITING]
    return [f"It is not booked: RUNBOOK.md: {MALFORMED.runbook}"] if malformed else []


def of_airing(one: Cited, now: float) -> list[str]:
    """What comes next for a class, by its state on its streamer."""
    match one.state:
        case AiringState.REFUSED if one.lost:
            said = _refused(one.code, one.message, over=now >= one.end_time)
            moves = "It was ready and lost its file: its teacher gives it to another streamer, or raises alarm 323."
            return [moves, *said, *_danger(one.class_id, one.start_time, now)]
        case AiringState.WAITING:
            said = [f"{one.stem} is being downloaded; then it is ready. `lectern cache ls` shows the download."]
            return said + _danger(one.class_id, one.start_time, now)
        case AiringState.READY | AiringState.ON_AIR:
            return _begins(one.start_time, one.end_time, now)
        case AiringState.AIRED:
            return ["It was aired to its end. Nothing is to be done."]
        case AiringState.CANCELLED:
            return ["It was cancelled; its rendition is released."]
        case AiringState.REFUSED | AiringState.BROKEN | AiringState.AIRED_WITH_GAPS:
            return _refused(one.code, one.message, over=now >= one.end_time)


def _standing(one: Booked, making: Making | None, now: float) -> list[str]:
    if one.lost_since is not None and one.state in {BookingState.PLACED, BookingState.READY}:
        silent = f"{one.streamer} is lost, as its teacher noted {span(now - one.lost_since)} ago."
        return [f"{silent} Its classes are moved to other streamers if possible.", _HEADING.format(STREAMER_LOST)]
    match one.state:
        case BookingState.RECEIVED:
            return ["It is about to be decided. If this stays so for a minute, restart the teacher."]
        case BookingState.WAITING:
            return [_making(one.stem, making, now)]
        case BookingState.PLACED:
            loads = f"It waits for {one.streamer}, which downloads {one.stem} unless it has it."
            return [f"{loads} Its answer comes then; the sweeper asks again until it does."]
        case BookingState.READY:
            return [f"{one.streamer} has {one.stem}. {' '.join(_begins(one.start_time, one.end_time, now))}".strip()]
        case BookingState.AIRED:
            return ["It was aired to its end. Nothing is to be done."]
        case BookingState.CANCELLED:
            return ["It was cancelled and is not aired. To have it all the same, book it with a new class_id."]
        case BookingState.REFUSED | BookingState.BROKEN | BookingState.AIRED_WITH_GAPS:
            return _refused(one.code, one.message, over=now >= one.end_time)
        case _:
            assert_never(one.state)


_HEADING = "RUNBOOK.md: {0.runbook}"


def _making(stem: str, making: Making | None, now: float) -> str:
    if making is None or not making.under_way:
        return f"It waits for {stem}, which nobody is making: the sweeper settles it within a minute."
    by = "an ECS host as soon as one is free" if making.queued else "an ECS host"
    by = "the OSS transcoder" if making.backend is Backend.OSS else by
    if making.deadline is None:
        return f"It waits for {stem}: attempt {making.attempt}, by {by}."
    left = making.deadline - now
    when = f"in {span(left)}" if left > 0 else f"since {span(-left)}, so within a minute"
    return (
        f"It waits for {stem}: attempt {making.attempt}, by {by}; without a result {when} it is settled as timed out."
    )


def _begins(start: float, end: float, now: float) -> list[str]:
    if now < start:
        return [f"It is aired in {span(start - now)}."]
    return [] if now < end else ["Its time is over; its end will be noted within a minute."]


def _refused(code: int | None, message: str | None, *, over: bool) -> list[str]:
    known = CODES.get(code or 0)
    said = [f"Cause: {message}"] if message else []
    if known is None:
        return [*said, "Nothing comes next."]
    said.append(_HEADING.format(known))
    return said if over else [*said, f"The platform should: {known.english.platform_should}"]


def _danger(class_id: str, start: float, now: float) -> list[str]:
    left = start - now
    if left > SOON_S:
        return []
    begins = f"begins in {span(left)}" if left > 0 else f"should have begun {span(-left)} ago"
    return [f"In danger: it {begins}. To have it moved, cancel it (lectern cancel {class_id}) and tell the platform."]
