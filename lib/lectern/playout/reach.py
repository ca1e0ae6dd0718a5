"""Which addresses a push may connect to: a host's name may by now lead elsewhere than when it was checked."""

import ipaddress
from collections.abc import Sequence

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
    if PUBLIC in networks and found.is_global and not found.is_multicast:
        return True
    listed = [ipaddress.ip_network(one) for one in networks if one != PUBLIC]
    return any(found.version == one.version and found in one for one in listed)
