"""Which hosts may be connected to, and at which addresses: public ones, and what a setting lists."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from lectern.errors import Misuse, TryAgain

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC = "public"
"""The entry that stands for every public host, for a list that names private ones beside them."""

_LISTED = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


class NoSuchHost(ValueError):
    """No address belongs to the name, or it is no name at all."""


@dataclass(frozen=True)
class Places:
    """The hosts and networks that a setting lists."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()
    public: bool = True

    @classmethod
    def listed(cls, text: str, setting: str) -> "Places":
        """Read ``host,host:port,10.0.0.0/8,public``; empty means public hosts only. Raises Misuse for anything else."""
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        hosts: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in entries:
            matched = _LISTED.fullmatch(entry)
            if entry == PUBLIC:
                continue
            if matched is not None:
                hosts.add((matched["host"].strip("[]"), int(matched["port"]) if matched["port"] else None))
                continue
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError as error:
                raise Misuse(
                    f"{setting}: {entry!r} can not be read; write host, host:port, 10.0.0.0/8 or {PUBLIC}"
                ) from error
        return cls(frozenset(hosts), tuple(networks), not entries or PUBLIC in entries)

    def forbidden(self, host: str, port: int, addresses: list[Address]) -> Address | None:
        """The first of the host's *addresses* that may not be connected to; None where all of them may."""
        if {(host, port), (host, None)} & self.hosts:
            return None
        return next((one for one in addresses if not self._takes(one)), None)

    def _takes(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self.networks):
            return True
        return self.public and address.is_global and not address.is_multicast


def addresses(host: str, port: int) -> list[Address]:
    """The addresses of *host*, the one to be tried first at the beginning; it can wait, so call it in a thread.

    Raises NoSuchHost, or TryAgain if the name can not be looked up just now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise NoSuchHost(f"{host}: there is no such host") from error
        raise TryAgain(f"{host}: can not be looked up: {error.strerror}") from error
    except UnicodeError as error:
        raise NoSuchHost(f"{host}: is no host name") from error
    except OSError as error:
        raise TryAgain(f"{host}: can not be looked up: {error.strerror or error}") from error
    known: dict[Address, None] = {}  # keeps the order
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        known[mapped or address] = None
    return list(known)
