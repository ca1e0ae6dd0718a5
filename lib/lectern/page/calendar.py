"""The timetable as a calendar (RFC 5545), which phones and office programs subscribe to."""

import time
from collections.abc import Iterable

from lectern.told import Booked

_ESCAPED = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n", "\r": ""})
FOLD = 73
"""Bytes of a line before it is folded; the RFC allows 75, with the blank."""


def calendar(booked: Iterable[Booked], now: float) -> str:
    """The classes as a calendar, one event for each; *now* (epoch seconds) is the time stamp of the events."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//lectern//timetable//EN", "CALSCALE:GREGORIAN"]
    for one in booked:
        lines += [
            "BEGIN:VEVENT",
            f"UID:{_text(one.class_id)}@lectern",
            f"DTSTAMP:{_utc(now)}",
            f"DTSTART:{_utc(one.start_time)}",
            f"DTEND:{_utc(one.end_time)}",
            f"SUMMARY:{_text(f'{one.class_id} {one.stem}')}",
            f"DESCRIPTION:{_text(_where(one))}",
            "END:VEVENT",
        ]
    return "".join(f"{folded}\r\n" for line in [*lines, "END:VCALENDAR"] for folded in _folded(line))


def _where(one: Booked) -> str:
    return f"{one.state}, {one.streamer or 'no streamer yet'}"


def _text(text: str) -> str:
    return text.translate(_ESCAPED)


def _utc(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


def _folded(line: str) -> Iterable[str]:
    """Lines of at most 75 bytes; no character is cut."""
    rest, first = line, True
    while rest:
        part = rest.encode()[:FOLD].decode(errors="ignore")
        yield part if first else f" {part}"
        rest, first = rest[len(part) :], False
