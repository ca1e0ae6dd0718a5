"""How long a streamer may push without a word from elsewhere, and after how much silence it is lost."""

import math

MARGIN_S = 5.0
"""Seconds between the end of a lease and the moment its classes may be moved: the pushes need a moment to end."""

WITNESS_S = 10.0
"""Seconds for which a streamer without Redis may rely on Prefect's answer that nobody takes its classes."""

NOTICE_S = WITNESS_S + 1.0
"""Seconds for which a move is seen in Prefect before it takes anything: by then that answer has expired."""

HASTE_S = 2.0
"""Seconds by which a move is announced earlier than NOTICE_S requires, because its run needs a moment to begin.

More would harm a streamer that is cut off from Redis only: once a move is announced, Prefect tells it to stop.
"""


def until(asked_at: float, lease_s: float) -> float:
    """The end of a lease that was confirmed; it counts from the question, not from the answer. 0 has no end."""
    return asked_at + lease_s if lease_s else math.inf


def lost_after(lost_after_s: float, lease_s: float) -> float:
    """Seconds of silence after which a streamer is lost; infinite if its lease has no end."""
    return max(lost_after_s, lease_s + MARGIN_S) if lease_s else math.inf


def suspect_after(lost_after_s: float, heartbeat_s: float) -> float:
    """Seconds of silence after which a move is announced, so that it can be done when the streamer is lost."""
    return max(lost_after_s - NOTICE_S - HASTE_S, 3 * heartbeat_s)


def silence(age_s: float | None, heard_nothing_s: float, ears_open_s: float) -> float:
    """How long a streamer has been silent, in seconds.

    *age_s* is the age of its last heartbeat. If Redis has none it is None, and *heard_nothing_s*, the time since that
    was noticed, counts instead. Time before this teacher could listen (*ears_open_s* ago) does not count.
    """
    return min(heard_nothing_s if age_s is None else age_s, ears_open_s)
