"""What was really sent of a class: a row for each session and source."""

import time
from typing import Any

GOOD_S = 1.5
"""Seconds of media after which a receiver counts as good: a server may accept a publish, and close at once."""

Row = dict[str, Any]
"""A row's fields, which docs/playout.md describes: url, session, source, from, to, position_s, sent_s, bytes, open."""


class AsRun:
    """The rows of one push; the last row is open while media are sent."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.sessions = self.bytes = 0
        self.first_byte_at: float | None = None
        """When the first byte of any of its sessions was sent, in epoch seconds."""
        self._offset = 0
        """Offset of the last row in the bytes of its session."""
        self._media_at: float | None = None

    def begin(self) -> None:
        """Count a new session, to which no media were sent yet."""
        self.sessions += 1
        self._media_at = None

    def media_s(self, now: float) -> float:
        """Seconds since the session got its first media; *now* is by time.monotonic."""
        return now - self._media_at if self._media_at is not None else 0.0

    def note(self, row: Row, last_s: float, offset: int) -> bool:
        """Note that media were sent, up to *last_s* of the class and to *offset* of the session's bytes.

        *row* is the row to begin if none fits, with the `bytes` of this send; returns whether it was begun.
        """
        self.bytes += row["bytes"]
        if self._media_at is None:
            self._media_at = time.monotonic()
            self.first_byte_at = self.first_byte_at or time.time()
        last = self.rows[-1] if self.rows else None
        same = ("url", "session", "source")
        is_new = last is None or not last["open"] or any(last[name] != row[name] for name in same)
        if last is None or is_new:
            self.close()
            last = {**row, "sent_s": 0.0, "open": True}
            self.rows.append(last)
            self._offset = offset - row["bytes"]
        last["to"] = row["to"]
        last["bytes"] = offset - self._offset
        last["sent_s"] = round(max(0.0, last_s - last["position_s"]), 3)
        return is_new

    def save(self) -> dict[str, Any]:
        """What the next worker must know of the as-run, for `resume`."""
        return {
            "session": self.sessions,
            "media_at": self._media_at,
            "first_byte_at": self.first_byte_at,
            "row": self.rows[-1] if self.rows else None,
            "row_offset": self._offset,
        }

    def resume(self, saved: dict[str, Any]) -> None:
        """Restore what the worker before has saved."""
        self.sessions, self._media_at, self.first_byte_at = saved["session"], saved["media_at"], saved["first_byte_at"]
        self.rows, self._offset = [saved["row"]] if saved["row"] else [], saved["row_offset"]

    def reach(self, source: str, last_s: float, offset: int, at: float) -> None:
        """Add what a dead worker sent after it saved the row: until *at* (epoch seconds); the rest is as in `note`."""
        if self.rows and self.rows[-1]["open"] and self.rows[-1]["source"] == source:
            last = self.rows[-1]
            last["to"], last["bytes"] = max(at, last["to"]), offset - self._offset
            last["sent_s"] = round(max(last["sent_s"], last_s - last["position_s"]), 3)

    def close(self) -> None:
        """Close the open row: nothing is being sent any more."""
        if self.rows:
            self.rows[-1]["open"] = False


def covered(rows: list[Row], start: float, end: float) -> float:
    """Seconds between *start* and *end* (epoch seconds) in which any push sent something."""
    total, reached = 0.0, start
    for row in sorted(rows, key=lambda one: float(one["from"])):
        begins, ends = max(reached, float(row["from"])), min(end, float(row["to"]))
        if ends > begins:
            total += ends - begins
            reached = ends
    return total
