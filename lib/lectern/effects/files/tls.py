"""The authorities by which HTTPS servers are verified."""

import functools
import logging
import ssl
from pathlib import Path

import httpx

_log = logging.getLogger("lectern")
_OF_SYSTEMS = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
"""Where Debian and Red Hat keep what their hosts trust; a Python that was built elsewhere looks elsewhere."""


@functools.cache
def context() -> ssl.SSLContext:
    """The authorities that came with this release, and those of the host, a private one among them, as for wget.

    They are read once: to read them takes as long as to ask a server.
    """
    made = httpx.create_ssl_context(trust_env=False)
    made.load_default_certs()
    for bundle in _OF_SYSTEMS:
        try:
            made.load_verify_locations(bundle)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s: its authorities cannot be read: %s", bundle, error)
    return made
