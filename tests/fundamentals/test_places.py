"""Which hosts may be connected to, as a setting lists them."""

import ipaddress

import pytest

from lectern.places import Places

LOCAL = [ipaddress.ip_address("fd00::1")]


@pytest.mark.parametrize("listed", ["[fd00::1]", "[FD00:0:0:0:0:0:0:1]", "[fd00:0000::0001]:1935"])
@pytest.mark.parametrize("host", ["fd00::1", "fd00:0:0:0:0:0:0:1"])
def test_an_address_is_listed_however_it_is_written(listed: str, host: str) -> None:
    """An address of version 6 has many spellings: the setting's and the URL's need not be the same."""
    places = Places.listed(listed, "ALLOWED_PUSH_HOSTS")
    assert places.forbidden(host, 1935, LOCAL) is None
    assert places.of_server(host, 1935) is None
    assert places.forbidden("fd00::2", 1935, [ipaddress.ip_address("fd00::2")]) is not None
