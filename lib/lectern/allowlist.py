"""Which hosts may be connected to: public hosts, and those that a setting lists."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from lectern.errors import Misuse
from lectern.i18n import msgid
from lectern.playout.timetable import PUBLIC as PUBLIC  # noqa: PLC0414 (asked for here)
from lectern.playout.timetable import Address as Address  # noqa: PLC0414
from lectern.playout.timetable import may_reach as may_reach  # noqa: PLC0414

_LISTED = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Allowlist:
    """The hosts and networks that a setting lists."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[str, ...] = (PUBLIC,)

    @classmethod
    @lru_cache(maxsize=64)  # each batch asks for what a few settings list
    def listed(cls, text: str, setting: str = "ALLOWED_ORIGINS") -> "Allowlist":
        """Read ``host,host:port,10.0.0.0/8,public``; empty means public hosts only. Raises Misuse for anything else."""
        entries = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
        hosts: set[tuple[str, int | None]] = set()
        networks = [] if entries else [PUBLIC]
        for entry in entries:
            if (matched := _LISTED.fullmatch(entry)) is not None and entry != PUBLIC:
                hosts.add((_shortest(matched["host"].strip("[]")), int(matched["port"]) if matched["port"] else None))
                continue
            try:
                networks.append(PUBLIC if entry == PUBLIC else str(ipaddress.ip_network(entry, strict=False)))
            except ValueError as error:
                text = msgid("{setting}: {entry!r} cannot be read; write host, host:port, 10.0.0.0/8 or public")
                raise Misuse(text, setting=setting, entry=entry) from error
        return cls(frozenset(hosts), tuple(networks))

    def and_also(self, hosts: Iterable[tuple[str, int | None]]) -> "Allowlist":
        """These places and *hosts*, each with its port, or with None for all of its ports."""
        return replace(self, hosts=self.hosts.union((_shortest(host), port) for host, port in hosts))

    def and_server_of(self, url: str) -> "Allowlist":
        """These places and the server of *url*, which is one of our own settings."""
        parts = urlsplit(url)
        return self.and_also([(parts.hostname or "", parts.port)])

    def of_server(self, host: str, port: int) -> list[str] | None:
        """The networks in which the host's addresses must lie; None if the host is listed by name."""
        name = _shortest(host) if ":" in host else host  # others have one spelling
        return None if {(name, port), (name, None)} & self.hosts else list(self.networks)

    def forbidden(self, host: str, port: int, addresses: Iterable[Address]) -> Address | None:
        """The first of the host's *addresses* that may not be connected to; None if all of them may."""
        networks = self.of_server(host, port)
        return next((one for one in addresses if not may_reach(str(one), networks)), None)


def _shortest(host: str) -> str:
    """An address in its shortest form, as two people may write the same one; any other name as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
