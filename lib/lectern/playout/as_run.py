"""What was really sent of a class: a row for each session and source."""

from typing import Any

Row = dict[str, Any]
"""url, session, source, from, to, position_s, sent_s, bytes, open: docs/playout.md says what they are."""


class AsRun:
    """The rows of one push; the last one is open while it goes on."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.offset = 0
        """Where in its session's bytes the last row begins."""

    def note(self, row: Row, last_s: float, offset: int) -> bool:
        """Media were sent, up to *last_s* of the class, the session's bytes up to *offset*.

        *row* is how its row would begin, with the `bytes` of this time; returns whether it does.
        """
        now = row["to"]
        last = self.rows[-1] if self.rows else None
        same = ("url", "session", "source")
        is_new = last is None or not last["open"] or any(last[name] != row[name] for name in same)
        if last is None or is_new:
            self.close()
            last = {**row, "sent_s": 0.0, "open": True}
            self.rows.append(last)
            self.offset = offset - row["bytes"]
        last["to"] = now
        last["bytes"] = offset - self.offset
        last["sent_s"] = round(max(0.0, last_s - last["position_s"]), 3)
        return is_new

    def close(self) -> None:
        """What was being sent is no longer."""
        if self.rows:
            self.rows[-1]["open"] = False


def covered(rows: list[Row], start: float, end: float) -> float:
    """Seconds between *start* and *end* in which something was sent, by any push."""
    total, reached = 0.0, start
    for row in sorted(rows, key=lambda one: float(one["from"])):
        begins, ends = max(reached, float(row["from"])), min(end, float(row["to"]))
        if ends > begins:
            total += ends - begins
            reached = ends
    return total
