"""The timetable, the file in which the resident says which classes are aired; a class of it, and where it may push."""

import ipaddress
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.playout.rtmp import NotRtmp, target
from lectern.playout.sentences import sentence

# Which addresses a push may connect to: a host's name may by now lead elsewhere than when it was checked.
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC = "public"
"""Stands for every address that is reached over the internet."""


def may_reach(address: str, networks: Sequence[str] | None) -> bool:
    """Whether *address* lies in one of *networks*; None means anywhere."""
    if networks is None:
        return True
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if PUBLIC in networks and is_public(parsed):
        return True
    listed = [ipaddress.ip_network(network) for network in networks if network != PUBLIC]
    return any(parsed.version == network.version and parsed in network for network in listed)


def is_public(address: Address) -> bool:
    """Whether an address is reached over the internet; one that contains another is what that one is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:
            return False
        if any(not is_public(inside) for inside in _inside(address)):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


def _inside(address: ipaddress.IPv6Address) -> Iterator[Address]:
    """The addresses of IPv4 that a network which translates takes *address* for."""
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if any(address in network for network in _TRANSLATED):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


_TRANSLATED = [ipaddress.IPv6Network(prefix) for prefix in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]


NAME = "timetable.jsonl"
"""The file in the playout's folder: a header, then a class a line, by their start."""
MAX_BYTES = 64 * 1024 * 1024
MAX_CLASSES = 10_000
"""Number of classes of a timetable that are aired; the classes after them are left out."""
MAX_URLS = 4


class BadRequest(Exception):
    """A request that cannot be done; the text says why."""


@dataclass(frozen=True)
class ScheduledClass:
    """A class as it was asked for; times are epoch seconds."""

    class_id: str
    file: str
    push_urls: tuple[str, ...]
    start: float
    end: float
    duration_s: float | None = None
    slate: str | None = None
    networks: tuple[str, ...] | None = None
    """The networks in which its push hosts must lie, such as `public` and `10.0.0.0/8`; None allows any address."""

    @property
    def needed_ms(self) -> float | None:
        """A recording that ends more than a second before this is broken; None if it may end anywhere."""
        return None if self.duration_s is None else min(self.duration_s, self.end - self.start) * 1000


@dataclass(frozen=True)
class TimetableDifference:
    """A version of the timetable, and how it differs from the lines that a worker has."""

    version: str
    new: list[bytes]
    """The lines that the worker does not have, the class that begins soonest first."""
    gone: frozenset[bytes]
    left_out: int
    """Number of classes at the end of the file that are more than MAX_CLASSES."""


def difference(path: Path, known: Collection[bytes]) -> TimetableDifference:
    """Read the timetable at *path* and compare it with the *known* lines; raises BadRequest if it cannot be read.

    It parses the header only, so that a thread can do it beside the sending loop.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        head, *lines = data.splitlines()
        fields = json.loads(head)
        version, count = str(fields["version"]), fields["count"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{path}: it cannot be read: {error}") from error
    if len(data) > MAX_BYTES or count != len(lines):
        raise BadRequest(f"{path}: it cannot be read: it has {len(data)} bytes, and {len(lines)} classes of {count}")
    wanted = lines[:MAX_CLASSES]
    new = [line for line in wanted if line not in known]
    return TimetableDifference(version, new, frozenset(known).difference(wanted), len(lines) - len(wanted))


def lesson(fields: dict[str, Any]) -> ScheduledClass:
    """The class that *fields* ask for; raises BadRequest with what is wrong with them."""
    urls = fields.get("push_urls")
    if not isinstance(urls, list) or not 1 <= len(urls) <= MAX_URLS or len(set(map(str, urls))) < len(urls):
        raise BadRequest(sentence("push_urls: 1 to {most} different URLs are needed", most=MAX_URLS))
    for number, url in enumerate(urls):
        try:
            target(str(url))
        except NotRtmp as error:
            raise BadRequest(sentence("{thing}: {what}", thing=f"push_urls[{number}]", what=error)) from error
    given = {name for name, value in fields.items() if value is not None}
    class_ = ScheduledClass(
        class_id=class_id_of(fields),
        file=_path(fields, "file"),
        push_urls=tuple(map(str, urls)),
        start=_number(fields, "start"),
        end=_number(fields, "end"),
        duration_s=_number(fields, "duration_s") if "duration_s" in given else None,
        slate=_path(fields, "slate") if "slate" in given else None,
        networks=networks(fields),
    )
    if class_.end <= class_.start:
        raise BadRequest(sentence("end: it must be after start"))
    return class_


def class_id_of(fields: dict[str, Any]) -> str:
    """The class_id of *fields*; raises BadRequest if they have none."""
    return _text(fields, "class_id")


def networks(fields: dict[str, Any]) -> tuple[str, ...] | None:
    """The networks of a request, in which push hosts must lie; raises BadRequest that says what is wrong with them."""
    listed = fields.get("networks")
    if listed is None:
        return None
    try:
        if isinstance(listed, list) and all(isinstance(network, str) for network in listed):
            _ = [ipaddress.ip_network(network) for network in listed if network != PUBLIC]
            return tuple(listed)
    except ValueError:
        pass
    raise BadRequest(sentence("networks: a list of networks, such as 10.0.0.0/8, and of the word public is needed"))


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise BadRequest(sentence("{name}: a text of 1 to 1,024 characters is needed", name=name))
    return value


def _path(fields: dict[str, Any], name: str) -> str:
    value = _text(fields, name)
    if not value.startswith("/") or "\0" in value:
        raise BadRequest(sentence("{name}: an absolute path is needed", name=name))
    return value


def _number(fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise BadRequest(sentence("{name}: a number of seconds is needed", name=name))
    return float(value)
