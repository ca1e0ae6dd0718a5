"""Which failures are tried again, and after which pause."""

import random

import httpx
from prefect.exceptions import PrefectException

AWAY = (httpx.HTTPError, PrefectException, ValueError, LookupError, TypeError, RuntimeError, OSError)
"""What a call of Prefect's API raises where the server is away, refuses, or answers what no Prefect answers: another
program at its address, a page of a proxy, an older or newer version. Only for calls of the API: it is broad."""

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)


def backoff_s(tries: int) -> float:
    """Seconds to wait after *tries* failures in a row: up to 10, with jitter."""
    return BACKOFF_S[min(tries, len(BACKOFF_S) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311 (no secret)
