"""How long to wait before something that failed is tried again."""

import random

FIRST_S, MOST_S = 0.5, 10.0


def backoff_s(tries: int, first_s: float | None = None, most_s: float = MOST_S, *, jitter: float = 0.2) -> float:
    """Seconds to wait after *tries* failures in a row, counted from 0: each time twice as long, up to *most_s*.

    The wait varies by up to the fraction *jitter*, so that callers that failed together do not retry together.
    """
    first_s = FIRST_S if first_s is None else first_s
    return min(first_s * 2.0 ** min(tries, 30), most_s) * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 (no secret)
