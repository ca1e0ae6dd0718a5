"""What the playout reports of a class: its as-run parts as values, and its events in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from lectern.decide.cache import Admit
from lectern.facts import AsRun

NOT_ON_AIR_S = 5.0
"""Seconds after which an alarm is raised for a class that should be on air, and whose receiver takes nothing."""

NO_ANSWER_S = 15.0
"""Seconds after the start within which the first failure of a class says that it was never on air."""

RUN_AHEAD_S = 60.0
"""Seconds before its lead time within which a class gets its run at once."""

SAME_AGAIN = (1, 10, 100, 1_000, 10_000)
"""The counts of a repeated event at which it is logged."""

STORY = frozenset(
    {
        *("connected", "on air", "push broke off", "push refused", "fell behind", "lease over", "playout away"),
        *("slate", "nothing to send", "recording again", "alarm"),
        *(f"prepare: {how}" for how in (Admit.READY, Admit.JOIN, Admit.RESERVE)),
    }
)
"""The events of a class on its streamer that its teacher is told at its end."""

Event = Mapping[str, Any]


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
        case "fenced":
            return "lease over", f"session {event['session']} was ended: this streamer may not push"
        case "behind":
            return "fell behind", f"{event['behind_s']:.1f} s late; it goes on at the clock's position"
    return None


def instead(*, has_slate: bool, has_begun: bool) -> str:
    """What a class without its recording sends: its slate, or nothing; from its start on, if that is still to come."""
    if has_begun:
        return "its slate is sent" if has_slate else "nothing is sent, there is no slate"
    return "its slate is sent from its start on" if has_slate else "nothing will be sent, there is no slate"


def lead_time(start: float, lead_s: float, now: float) -> float:
    """When the run of a class begins: *lead_s* seconds before its *start*, or now (epoch seconds)."""
    return max(start - lead_s, now)
