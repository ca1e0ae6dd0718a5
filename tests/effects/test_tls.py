"""Servers whose certificate was issued by an authority that only this host trusts; the name that is verified."""

import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lectern.allowlist import Address, Allowlist
from lectern.errors import TryAgain
from lectern.storage import origin
from tests.answering import Answer, serving
from tests.effects.certificates import issued

NAME = "recordings.example"


@dataclass(frozen=True)
class Private:
    """An HTTPS origin, by whom its certificate is issued, and where it listens."""

    authority: Path
    port: int
    asked: list[str]


class Noting(Answer):
    """Notes by which name it is asked."""

    asked: list[str]
    body = b"12345"

    def answer(self) -> None:
        self.asked.append(self.headers["host"])
        super().answer()


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Private]:
    authority, server_pem = issued(tmp_path, NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pem)
    asked: list[str] = []

    with serving(Noting, asked=asked) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield Private(authority, server.server_port, asked)


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    origin.trusted_authorities.cache_clear()
    yield
    origin.trusted_authorities.cache_clear()


def _leads_here(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[str]:
    """Make each name lead to this machine, *times* times; after that nobody can look one up."""
    looked_up: list[str] = []

    def addresses(host: str, port: int) -> list[Address]:
        looked_up.append(host)
        assert len(looked_up) <= times, "it was looked up again"
        return [ipaddress.ip_address("127.0.0.1")]

    monkeypatch.setattr(origin, "addresses", addresses)
    return looked_up


async def test_an_authority_that_the_host_trusts_is_trusted(private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, at the address that was checked."""
    monkeypatch.setenv("SSL_CERT_FILE", str(private.authority))
    _leads_here(monkeypatch, times=1)
    url = f"https://{NAME}:{private.port}/a.flv"
    found = await origin.look(url, allowed=Allowlist.listed("127.0.0.1/32"), timeout_s=20)
    assert (found.url, found.size_bytes, found.address) == (url, 5, "127.0.0.1")
    assert private.asked == [f"{NAME}:{private.port}"]


@pytest.mark.parametrize(("name", "trusted"), [(NAME, False), ("another.example", True)])
async def test_a_server_that_does_not_prove_its_name_is_told_nothing(
    private: Private, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(private.authority))
    _leads_here(monkeypatch, times=3)
    with pytest.raises(TryAgain, match="CERTIFICATE_VERIFY_FAILED"):
        await origin.look(f"https://{name}:{private.port}/a", allowed=Allowlist.listed("127.0.0.1/32"), timeout_s=20)
    assert private.asked == []


def test_the_authorities_of_the_release_stay_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert origin.trusted_authorities().cert_store_stats()["x509_ca"] > 50
    assert origin.trusted_authorities() is origin.trusted_authorities()
    assert origin.trusted_authorities().verify_mode is ssl.CERT_REQUIRED


async def test_a_name_that_leads_elsewhere_a_moment_later_leads_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was checked: the name is looked up once."""
    asked: list[str] = []
    with serving(Noting, asked=asked) as server:
        looked_up = _leads_here(monkeypatch, times=1)
        url = f"http://{NAME}:{server.server_port}/a.flv"
        found = await origin.look(url, allowed=Allowlist.listed("127.0.0.0/8"), timeout_s=20)
    assert looked_up == [NAME]
    assert (found.address, asked) == ("127.0.0.1", [f"{NAME}:{server.server_port}"])
