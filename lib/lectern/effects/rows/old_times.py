"""Reads the times of ``task_list`` as old programs wrote them: numbers, numbers in text, or dates."""

import math
from datetime import datetime

BEYOND = 4e9
"""Epoch seconds that no message may reach (the year 2096)."""


def epoch(value: object) -> float | None:
    """The epoch seconds that *value* means: a number, or a text that holds one or a date with a time of day.

    A date without a zone is the host's local time. None for anything else, and for numbers that are no class's time.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            seconds = datetime.fromisoformat(text).timestamp() if ":" in text else float(text)
        except (ValueError, OverflowError, OSError):
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds < BEYOND else None
