"""Which hosts may be connected to: public hosts, and those that a setting lists."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lectern.errors import Misuse
from lectern.playout.reach import is_public

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC = "public"
"""The entry that stands for every public host, for a list that also names private hosts."""

_LISTED = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


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
                hosts.add((_shortest(matched["host"].strip("[]")), int(matched["port"]) if matched["port"] else None))
                continue
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError as error:
                raise Misuse(
                    f"{setting}: {entry!r} cannot be read; write host, host:port, 10.0.0.0/8 or {PUBLIC}"
                ) from error
        return cls(frozenset(hosts), tuple(networks), not entries or PUBLIC in entries)

    def and_also(self, hosts: Iterable[tuple[str, int]]) -> "Places":
        """These places and *hosts*."""
        return replace(self, hosts=self.hosts.union((_shortest(host), port) for host, port in hosts))

    def of_server(self, host: str, port: int) -> list[str] | None:
        """The networks, and `PUBLIC`, in which the host's addresses must lie; None if the host is listed by name."""
        if self._lists(host, port):
            return None
        return [*([PUBLIC] if self.public else []), *map(str, self.networks)]

    def forbidden(self, host: str, port: int, addresses: list[Address]) -> Address | None:
        """The first of the host's *addresses* that may not be connected to; None if all of them may."""
        if self._lists(host, port):
            return None
        return next((one for one in addresses if not self._takes(one)), None)

    def _lists(self, host: str, port: int) -> bool:
        name = _shortest(host)
        return bool({(name, port), (name, None)} & self.hosts)

    def _takes(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self.networks):
            return True
        return self.public and is_public(address)


def _shortest(host: str) -> str:
    """An address in its shortest form, as two people may write the same one; any other name as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
