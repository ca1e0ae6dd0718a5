"""How the playout sends a class, in the terms of the class's account."""

from collections.abc import Mapping
from typing import Any

from lectern.told import Sending


def of_playout(status: Mapping[str, Any]) -> Sending:
    """How a class is sent, from its ``status``, which docs/playout.md describes."""
    pushes = status.get("pushes") or [{}]
    is_on_air = status.get("state") == "on_air"
    waits = "this streamer holds no lease, so it may not push" if status.get("state") == "no_lease" else None
    return Sending(
        on_air=is_on_air,
        since=status.get("first_byte_at"),
        position_s=status.get("position_s"),
        failures=0 if is_on_air else max(int(one.get("failures") or 0) for one in pushes),
        cuts=max(int(status.get("sessions") or 0) - len(pushes), 0),
        why=status.get("why") or waits,
        slate=bool(status.get("slate")),
    )


def without_playout(why: str) -> Sending:
    """How a class is sent while the playout does not answer: not at all."""
    return Sending(on_air=False, why=f"the playout does not answer: {why}")
