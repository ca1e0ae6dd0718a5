"""By what HTTPS servers are verified."""

import functools
import ssl

import httpx


@functools.cache
def context() -> ssl.SSLContext:
    """The authorities that came with this release, read once: to read them takes as long as to ask a server."""
    return httpx.create_ssl_context(trust_env=False)
