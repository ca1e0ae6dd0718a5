"""The certificate authorities by which HTTPS servers are verified."""

import functools
import logging
import ssl
from pathlib import Path

import httpx

_log = logging.getLogger("lectern")
_OF_SYSTEMS = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
"""Where Debian and Red Hat keep the authorities that a host trusts; a Python built elsewhere looks in other places."""


@functools.cache
def context() -> ssl.SSLContext:
    """A context that trusts the authorities of this release and those of the host, private ones included, as wget does.

    The authorities are read once, because reading them takes as long as a request to a server.
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
