"""The words for a class on air: for an event of the playout, and for how the whole class was aired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lectern import words
from lectern.facts import AsRun

WHOLE = "aired whole"
"""How the sentence of a class begins that was aired whole; the report goes by it."""

RECORDING_OVER = "its recording is over"
"""The playout's reason for the end of a class at the end of its recording."""

FROM_THE_START_S = 1.5
"""Seconds of delay from which a class no longer counts as aired from its beginning."""

MISSING_S = 2.0
"""Least number of missing seconds with which a class does not count as aired whole."""

NOT_ON_AIR_S = 5.0
"""Seconds after which an alarm is raised for a class that should be on air, and whose receiver takes nothing."""

NO_ANSWER_S = 15.0
"""Seconds after the start within which the first failure of a class says that it was never on air."""

SAME_AGAIN = (1, 10, 100, 1_000, 10_000)
"""The counts of a repeated event at which it is logged."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Sums:
    """Seconds in which the recording, the slate, and nothing was sent, and the number of RTMP sessions."""

    sent_s: float
    slate_s: float
    gap_s: float
    sessions: int


def as_run(rows: Sequence[Mapping[str, Any]]) -> list[AsRun]:
    """The as-run parts of a class, from *rows* of the playout."""
    return [
        AsRun(
            url=int(row["url"]),
            session=int(row["session"]),
            source=str(row["source"]),
            begins=float(row["from"]),
            ends=float(row["to"]),
            position_s=float(row["position_s"]),
            sent_s=float(row["sent_s"]),
            sent_bytes=row.get("bytes"),
        )
        for row in rows
    ]


def sums(told: Mapping[str, Any]) -> Sums:
    """The sums of a class, from its `status` or its event `ended`."""
    return Sums(float(told["sent_s"]), float(told["slate_s"]), float(told["gap_s"]), int(told["sessions"]))


def covered(parts: Sequence[AsRun], source: str | None = None) -> float:
    """Seconds in which any session sent something, or, with *source*, something of that source."""
    total, reached = 0.0, 0.0
    for one in sorted(parts, key=lambda part: part.begins):
        if source in (None, one.source) and one.ends > reached:
            total += one.ends - max(one.begins, reached)
            reached = one.ends
    return total


def as_run_sentence(parts: Sequence[AsRun]) -> str:
    """What was really sent of a class that is over, for people; empty if nothing was sent."""
    if not parts:
        return ""
    begins, ends = min(one.begins for one in parts), max(one.ends for one in parts)
    said = f"{words.span(covered(parts, 'recording'))} of the recording, {words.clock(begins)} to {words.clock(ends)}"
    slate_s, gap_s = covered(parts, "slate"), ends - begins - covered(parts)
    said += f"; {words.span(slate_s)} of the slate" if slate_s >= 1 else ""
    said += f"; {words.span(gap_s)} of nothing" if gap_s >= 1 else ""
    said += f"; {words.counted(len({(one.url, one.session) for one in parts}), 'session')}"
    size = sum(one.sent_bytes or 0 for one in parts)
    return f"{said}; {words.size(size)}" if size else said


def how_aired(parts: Sequence[AsRun], total: Sums, start: float, length_s: float) -> str | None:
    """How a class that began at *start* was aired of its *length_s* seconds, for people; None if it was not."""
    if total.sent_s <= 0:
        return None
    begins = min(one.begins for one in parts) if parts else start
    late_s = max(0.0, begins - start)
    missing_s = length_s - total.sent_s
    if missing_s - late_s >= MISSING_S:
        said = f"aired but for {missing_s:.0f} s"
        said += f" ({total.slate_s:.0f} s of them the slate)" if total.slate_s >= 1 else ""
    else:
        said = f"aired from {late_s:.0f} s on" if late_s >= FROM_THE_START_S else WHOLE
    return f"{said}; {total.sessions} {'session' if total.sessions == 1 else 'sessions'}"


def not_aired(total: Sums, why: str | None) -> str:
    """The message for a class whose recording was never sent."""
    slate = f"; the slate was sent for {total.slate_s:.0f} s" if total.slate_s >= 1 else ""
    return f"not aired{slate}{': ' + why if why else ''}"


def said(event: Event) -> tuple[str, str] | None:
    """The name and the details of an event, for the log; None for an event that another line reports."""
    match event["event"]:
        case "connected":
            return "connected", f"session {event['session']} is ready to publish"
        case "on_air":
            return "on air", f"at {event['position_s']:.1f} s, session {event['session']}"
        case "broke_off":
            return ("push broke off" if event["was_on_air"] else "push refused"), str(event["why"])
        case "slate":
            return ("slate" if event["slate"] else "nothing to send"), str(event["why"])
        case "back":
            return "recording again", f"{event['why']}; it goes on at {event['position_s']:.1f} s"
        case "behind":
            return "fell behind", f"{event['behind_s']:.1f} s late; it goes on at the clock's position"
    return None


def lead_time(start: float, lead_s: float, now: float) -> float:
    """When the run of a class begins: *lead_s* seconds before its *start*, or now (epoch seconds)."""
    return max(start - lead_s, now)
