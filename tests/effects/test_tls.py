"""Servers whose certificate was issued by an authority that only this host trusts; the name that is verified."""

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from lectern.allowlist import Allowlist
from lectern.errors import TryAgain
from lectern.storage import origin
from tests.answering import Answer, Server, serving
from tests.effects.certificates import issued

NAME = "recordings.example"
HERE = Allowlist.listed("127.0.0.1/32")


class Noting(Answer):
    """Notes by which name it is asked."""

    asked: ClassVar[list[str]] = []
    body = b"12345"

    def answer(self) -> None:
        self.asked.append(self.headers["host"])
        super().answer()


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Server]:
    """An HTTPS origin; by whom its certificate is issued is in the test's folder, in `ca.pem`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued(tmp_path, NAME)[1])
    Noting.asked.clear()
    with serving(Noting) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    origin.trusted_authorities.cache_clear()
    yield
    origin.trusted_authorities.cache_clear()


def _leads_here(monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Make each name lead to this machine, *times* times; after that nobody can look one up."""
    found = iter([[ipaddress.ip_address("127.0.0.1")]] * times)
    monkeypatch.setattr(origin, "addresses", lambda _host, _port: next(found))


async def test_an_authority_that_the_host_trusts_is_trusted(
    private: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, at the address that was checked: the name may lead elsewhere a moment later."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _leads_here(monkeypatch, times=1)
    url = f"https://{NAME}:{private.server_port}/a.flv"
    found = await origin.look(url, allowed=HERE, timeout_s=20)
    assert (found.url, found.size_bytes, found.address) == (url, 5, "127.0.0.1")
    assert Noting.asked == [f"{NAME}:{private.server_port}"]


@pytest.mark.parametrize(("name", "trusted"), [(NAME, False), ("another.example", True)])
async def test_a_server_that_does_not_prove_its_name_is_told_nothing(
    private: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _leads_here(monkeypatch, times=3)
    with pytest.raises(TryAgain, match="CERTIFICATE_VERIFY_FAILED"):
        await origin.look(f"https://{name}:{private.server_port}/a", allowed=HERE, timeout_s=20)
    assert Noting.asked == []


def test_the_authorities_of_the_release_stay_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert origin.trusted_authorities().cert_store_stats()["x509_ca"] > 50
    assert origin.trusted_authorities() is origin.trusted_authorities()
    assert origin.trusted_authorities().verify_mode is ssl.CERT_REQUIRED
