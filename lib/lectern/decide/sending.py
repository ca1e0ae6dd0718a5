"""How the playout sends a class, in the terms of the class's account."""

from collections.abc import Iterable, Mapping
from typing import Any

from lectern.decide import broadcast, gaps
from lectern.told import Past, Sending

GAPS = 5
"""Number of gaps of a class on air that its streamer tells, the last ones."""


def of_playout(status: Mapping[str, Any], now: float = 0.0, events: Iterable[Past] = ()) -> Sending:
    """How a class is sent at *now* (epoch seconds), from its ``status``, which docs/playout.md describes.

    Its *events* say why something was not sent.
    """
    start, end = status.get("start", 0.0), min(now, status.get("end", 0.0))
    known = gaps.sent(start, end, broadcast.as_run(status["as_run"]), events) if start < end else None
    pushes = status.get("pushes") or [{}]
    is_on_air = status.get("state") == "on_air"
    waits = "this streamer holds no lease, so it may not push" if status.get("state") == "no_lease" else None
    return Sending(
        on_air=is_on_air,
        since=status.get("first_byte_at"),
        position_s=status.get("position_s"),
        failures=0 if is_on_air else max(int(one.get("failures") or 0) for one in pushes),
        cuts=max(int(status.get("sessions") or 0) - len(pushes), 0),
        why=None if status.get("state") == "ended" else status.get("why") or waits,  # why it ended is no error
        slate=bool(status.get("slate")),
        gaps=tuple(gap for gap in known.gaps if gap.missing_s >= gaps.SHOWN_S)[-GAPS:] if known else (),
    )


def without_playout(why: str) -> Sending:
    """How a class is sent while the playout does not answer: not at all."""
    return Sending(on_air=False, why=f"the playout does not answer: {why}", is_playout_away=True)


NOT_IN_PLAYOUT = Sending(on_air=False, why="its playout does not have it yet")
"""How a class is sent that the playout, which answers, does not know."""
