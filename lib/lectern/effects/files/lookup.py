"""Looks up the addresses of a host."""

import ipaddress
import socket

from lectern.errors import TryAgain
from lectern.places import Address


class NoSuchHost(ValueError):
    """No address belongs to the name, or it is no name at all."""


def addresses(host: str, port: int) -> list[Address]:
    """The addresses of *host*, in the order in which to try them; the look-up can block, so call it in a thread.

    Raises NoSuchHost, or TryAgain if the name cannot be looked up just now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise NoSuchHost(f"{host}: there is no such host") from error
        raise TryAgain(f"{host}: cannot be looked up: {error.strerror}") from error
    except UnicodeError as error:
        raise NoSuchHost(f"{host}: is no host name") from error
    except OSError as error:
        raise TryAgain(f"{host}: cannot be looked up: {error.strerror or error}") from error
    known: dict[Address, None] = {}  # keeps the order
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        known[mapped or address] = None
    return list(known)
