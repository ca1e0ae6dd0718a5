"""What was really sent of a class: a row for each session and source."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lectern.playout import timetable
from lectern.playout.timetable import BadRequest, ScheduledClass

GOOD_S = 1.5
"""Seconds of media after which a receiver counts as good: a server may accept a publish, and close at once."""

AIRED = "aired.jsonl"
"""The file in the playout's folder: a header, the classes on air, then those that are over, each on a line."""

Row = dict[str, Any]
"""A row's fields, which docs/playout.md describes: url, session, source, from, to, position_s, sent_s, bytes, open."""


class AsRunRows:
    """The rows of the push number *url*, among the *rows* of its class; its last one is open while media are sent."""

    def __init__(self, rows: list[Row], url: int) -> None:
        self.sessions = max((row["session"] for row in rows if row["url"] == url), default=0)
        self.bytes = 0
        self.first_byte_at: float | None = None
        """When the first byte of any of its sessions was sent, in epoch seconds."""
        self._rows = rows
        self._last: Row | None = None
        self._offset = 0
        """Offset of the last row in the bytes of its session."""
        self._media_at: float | None = None

    def begin(self) -> None:
        """Count a new session, to which no media were sent yet."""
        self.sessions += 1
        self._media_at = None

    def is_good(self, now: float) -> bool:
        """Whether the session has taken media for GOOD_S; *now* is by time.monotonic."""
        return self._media_at is not None and now - self._media_at >= GOOD_S

    def note(self, row: Row, last_s: float, offset: int) -> bool:
        """Note that media were sent, up to *last_s* of the class and to *offset* of the session's bytes.

        *row* is the row to begin if none fits, with the `bytes` of this send; returns whether it was begun.
        """
        self.bytes += row["bytes"]
        if self._media_at is None:
            self._media_at = time.monotonic()
            self.first_byte_at = self.first_byte_at or time.time()
        last = self._last
        same = ("url", "session", "source")
        is_new = last is None or not last["open"] or any(last[name] != row[name] for name in same)
        if last is None or is_new:
            self.close()
            self._last = last = {**row, "sent_s": 0.0, "open": True}
            self._rows.append(last)
            self._offset = offset - row["bytes"]
        last["bytes"] = offset - self._offset
        last["sent_s"] = round(max(0.0, last_s - last["position_s"]), 3)
        last["to"] = max(row["to"], last["from"] + last["sent_s"])  # the wall clock may have been set back meanwhile
        return is_new

    def save(self) -> dict[str, Any]:
        """What the next worker must know of the as-run, for `resume`."""
        return {
            "session": self.sessions,
            "media_at": self._media_at,
            "first_byte_at": self.first_byte_at,
            "row": self._last,
            "row_offset": self._offset,
        }

    def resume(self, saved: dict[str, Any], source: str, last_s: float, offset: int, at: float) -> None:
        """Restore what the worker before has saved, and add what it sent after that, for `go_on`.

        It sent until *at* (epoch seconds); the rest is as in `note`.
        """
        self.sessions, self._media_at, self.first_byte_at = saved["session"], saved["media_at"], saved["first_byte_at"]
        self._last, self._offset = saved["row"], saved["row_offset"]
        if (last := self._last) is not None and last["open"] and last["source"] == source:
            last["bytes"] = offset - self._offset
            last["sent_s"] = round(max(last["sent_s"], last_s - last["position_s"]), 3)
            last["to"] = max(at, last["to"], last["from"] + last["sent_s"])

    def go_on(self) -> None:
        """Put the resumed row in the place of what was written down of it earlier."""
        if (last := self._last) is not None:
            begin = last["url"], last["from"]
            self._rows[:] = [*(row for row in self._rows if (row["url"], row["from"]) != begin), last]

    def close(self) -> None:
        """Close the open row: nothing is being sent any more."""
        if self._last is not None:
            self._last["open"] = False


def covered(rows: list[Row], start: float, end: float) -> float:
    """Seconds between *start* and *end* (epoch seconds) in which any push sent something."""
    total, reached = 0.0, start
    for row in sorted(rows, key=lambda part: float(part["from"])):
        begins, ends = max(reached, float(row["from"])), min(end, float(row["to"]))
        if ends > begins:
            total += ends - begins
            reached = ends
    return total


@dataclass
class AiredClass:
    """A class, and what became of it."""

    lesson: ScheduledClass
    as_run: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    """Why the class is over, in words; None if it is not."""
    first_byte_at: float | None = None

    def line(self) -> str:
        """The entry as a line of the file."""
        return json.dumps({**vars(self), "lesson": vars(self.lesson)})


def entry(line: bytes) -> AiredClass | None:
    """The entry of a line; None if it is of another release, or is none."""
    try:
        row = json.loads(line)
        known, ended = timetable.lesson(row["lesson"]), row["ended"]
        numbers = ("url", "session", "from", "to", "position_s", "sent_s", "bytes")  # which sums need
        rows = [part for part in row["as_run"] if isinstance(part, dict) and isinstance(part.get("source"), str)]
        sent = [part for part in rows if all(type(part.get(name)) in (int, float) for name in numbers)]
        began = row.get("first_byte_at")
    except (BadRequest, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    began = float(began) if type(began) in (int, float) else None
    return AiredClass(known, sent, None if ended is None else str(ended), began)


def read_aired(path: Path) -> tuple[dict[str, AiredClass], list[bytes]]:
    """The classes that were on air, by class_id, and the lines of those that are over; raises BadRequest."""
    try:
        head, *lines = path.read_bytes().splitlines()
        number = int(json.loads(head)["on_air"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{path}: it cannot be read: {error}") from error
    on_air = [aired for line in lines[:number] if (aired := entry(line)) is not None]
    return {aired.lesson.class_id: aired for aired in on_air}, lines[number:]
