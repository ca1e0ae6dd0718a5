"""The errors of Prefect's API after which a call is retried."""

import httpx
from prefect.exceptions import PrefectException

AWAY = (httpx.HTTPError, PrefectException, ValueError, LookupError, TypeError, RuntimeError, OSError)
"""What a call of Prefect's API raises if the server is away, refuses, or answers what no Prefect answers: another
program at its address, a page of a proxy, an older or newer version. Only for calls of the API: it is broad."""
