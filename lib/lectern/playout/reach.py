"""Which addresses a push may connect to: a host's name may by now lead elsewhere than when it was checked."""

import ipaddress
from collections.abc import Iterator, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC = "public"
"""Stands for every address that is reached over the internet."""


def is_network(text: str) -> bool:
    """Whether *text* is valid in the list of networks of a class."""
    try:
        return text == PUBLIC or bool(ipaddress.ip_network(text))
    except ValueError:
        return False


def may_reach(address: str, networks: Sequence[str] | None) -> bool:
    """Whether *address* lies in one of *networks*; None means anywhere."""
    if networks is None:
        return True
    found = ipaddress.ip_address(address.partition("%")[0])
    if PUBLIC in networks and is_public(found):
        return True
    listed = [ipaddress.ip_network(one) for one in networks if one != PUBLIC]
    return any(found.version == one.version and found in one for one in listed)


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
    if any(address in one for one in _TRANSLATED):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


_TRANSLATED = [ipaddress.IPv6Network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]
