"""How long a streamer may push without renewing its lease, and after how much silence it counts as lost."""

import math

MARGIN_S = 5.0
"""Seconds between the end of a lease and the moment its classes may be moved: the pushes need a moment to end."""

WITNESS_S = 10.0
"""Seconds for which a streamer without Redis may rely on Prefect's answer that nobody takes its classes."""

NOTICE_S = WITNESS_S + 1.0
"""Seconds for which Prefect shows a move before it takes a class: by then earlier answers have expired."""

HASTE_S = 2.0
"""Seconds by which a move is announced earlier than NOTICE_S requires, because its run needs a moment to begin.

More would harm a streamer that is cut off from Redis only: once a move is announced, Prefect tells it to stop.
"""


def until(asked_at: float, lease_s: float) -> float:
    """The end of a confirmed lease, counted from its request, by the clock of *asked_at*; a lease of 0 s has no end."""
    return asked_at + lease_s if lease_s else math.inf


def lost_after(lost_after_s: float, lease_s: float) -> float:
    """Seconds of silence after which a streamer is lost; infinite if its lease has no end."""
    return max(lost_after_s, lease_s + MARGIN_S) if lease_s else math.inf


def suspect_after(lost_after_s: float, heartbeat_s: float) -> float:
    """Seconds of silence after which a move is announced, so that it can begin as soon as the streamer is lost."""
    return max(lost_after_s - NOTICE_S - HASTE_S, 3 * heartbeat_s)


def heard_within(silent_s: float) -> float:
    """The seconds in which a streamer must have been heard to take the classes of one that is silent for *silent_s*.

    One that fell silent together with it counts as alive for a while, but cannot take classes: what keeps both from
    Redis does not end their pushes, and a move that only one of them hears of would.
    """
    return silent_s / 2


def silence(age_s: float | None, heard_nothing_s: float, ears_open_s: float) -> float:
    """How long a streamer has been silent, in seconds.

    *age_s* is the age of its last heartbeat; if Redis has none it is None, and *heard_nothing_s*, the time since that
    was noticed, counts instead. Time before this teacher began to listen (*ears_open_s* ago) does not count.
    """
    return min(heard_nothing_s if age_s is None else age_s, ears_open_s)
