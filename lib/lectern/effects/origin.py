"""Looks at a recording where it lies, before a byte is downloaded, and says which places may be looked at at all."""

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx
import stamina

from lectern.effects import tls
from lectern.errors import DOWNLOAD_FAILED, FORBIDDEN_ORIGIN, Misuse, Refuse, TryAgain

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC = "public"
"""The entry that stands for every public host, for a list that names private ones beside them."""

_REDIRECTS = 3
_TRIES = 3
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")
_LISTED = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_HEADERS = {"accept-encoding": "identity"}  # otherwise the length is not that of the file
_UNSUPPORTED_HEAD = frozenset({403, 405, 501})
_ABSENT = frozenset({404, 410})


class Absent(Refuse):
    """The origin says that there is no such file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on an origin as it promises it; None where it promises nothing. *url* is where redirects ended."""

    url: str
    size_bytes: int | None
    etag: str | None
    crc64: int | None


@dataclass(frozen=True)
class Allowed:
    """From where recordings may come."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()
    public: bool = True

    @classmethod
    def parse(cls, text: str) -> "Allowed":
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
                    f"allowed origins: {entry!r} can not be read; write host, host:port, 10.0.0.0/8 or {PUBLIC}"
                ) from error
        return cls(frozenset(hosts), tuple(networks), not entries or PUBLIC in entries)

    def check(self, url: str) -> None:
        """Raise Refuse(FORBIDDEN_ORIGIN) unless *url* may be fetched; looks the host up, so it can wait (use a thread).

        Raises TryAgain if the host's name can not be looked up just now.
        """
        parts, host, port = _split(url)
        if {(host, port), (host, None)} & self.hosts:
            return
        for address in _addresses(host, port):
            if not self._takes(address):
                raise Refuse(
                    f"{parts.scheme}://{parts.netloc}: {address} is no allowed origin; see ALLOWED_ORIGINS",
                    FORBIDDEN_ORIGIN,
                )

    def _takes(self, address: Address) -> bool:
        if any(address.version == network.version and address in network for network in self.networks):
            return True
        return self.public and address.is_global and not address.is_multicast


def _split(url: str) -> tuple[SplitResult, str, int]:
    """The parts of *url*, its host and its port; raises Refuse for what wget and httpx could read differently."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refuse(f"{url!r}: is no URL: {error}", FORBIDDEN_ORIGIN) from error
    host = parts.hostname or ""
    if parts.scheme not in _PORTS:
        raise Refuse(f"{url!r}: only http and https are allowed", FORBIDDEN_ORIGIN)
    if "@" in parts.netloc:
        raise Refuse(f"{parts.scheme}://{host}: a URL with a user or password is not allowed", FORBIDDEN_ORIGIN)
    if re.search(r"[\x00-\x1f\x7f]", url) or "\\" in parts.netloc:
        raise Refuse(f"{url!r}: has control characters or a backslash", FORBIDDEN_ORIGIN)
    if not _HOST.fullmatch(host) and ":" not in host:
        raise Refuse(f"{url!r}: its host can not be read", FORBIDDEN_ORIGIN)
    return parts, host, port or _PORTS[parts.scheme]


def _addresses(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise Refuse(f"{host}: there is no such host", DOWNLOAD_FAILED) from error
        raise TryAgain(f"{host}: can not be looked up: {error.strerror}") from error
    except UnicodeError as error:
        raise Refuse(f"{host}: is no host name", FORBIDDEN_ORIGIN) from error
    addresses: list[Address] = []
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        addresses.append(mapped or address)
    return addresses


async def look(url: str, *, allowed: Allowed, timeout_s: float) -> RemoteFile:
    """What the origin promises of *url*, in at most *timeout_s* and three tries.

    Follows up to three redirects, each to an allowed place only. Raises Refuse (not there, not allowed) or TryAgain.
    """
    try:
        async with asyncio.timeout(timeout_s):
            tries = stamina.retry_context(on=TryAgain, attempts=_TRIES, timeout=timeout_s, wait_initial=0.2, wait_max=2)
            async for attempt in tries:
                with attempt:
                    return await _look(url, allowed, timeout_s)
    except TimeoutError as error:
        raise TryAgain(f"{url}: no answer within {timeout_s:g} s") from error
    raise AssertionError("stamina ends by returning or raising")


async def _look(url: str, allowed: Allowed, timeout_s: float) -> RemoteFile:
    tls_context = tls.context()
    async with httpx.AsyncClient(timeout=timeout_s, headers=_HEADERS, trust_env=False, verify=tls_context) as client:
        here = url
        for _ in range(_REDIRECTS + 1):
            await asyncio.to_thread(allowed.check, here)
            answer = await _ask(client, here)
            if not answer.has_redirect_location:
                return _promised(here, answer)
            here = str(answer.url.join(answer.headers["location"]))
    raise Refuse(f"{url}: more than {_REDIRECTS} redirects, the last one to {here}", DOWNLOAD_FAILED)


async def _ask(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """The answer to a HEAD; where that is not served (URLs are often signed for GET only), to a GET of one byte."""
    try:
        answer = await client.head(url)
        if answer.status_code in _UNSUPPORTED_HEAD:
            async with client.stream("GET", url, headers={"range": "bytes=0-0"}) as begun:
                answer = begun
    except httpx.TransportError as error:
        raise TryAgain(f"{url}: no answer: {type(error).__name__} {error}") from error
    except httpx.InvalidURL as error:
        raise Refuse(f"{url}: is no URL: {error}", DOWNLOAD_FAILED) from error
    return answer


def _promised(url: str, answer: httpx.Response) -> RemoteFile:
    if answer.status_code in (408, 425, 429) or answer.is_server_error:
        raise TryAgain(f"{url}: the origin answered {answer.status_code}")
    if not answer.is_success:
        kind = Absent if answer.status_code in _ABSENT else Refuse
        raise kind(f"{url}: the origin answered {answer.status_code}", DOWNLOAD_FAILED)
    length = answer.headers.get("content-length", "")
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        length = answer.headers.get("content-range", "").rpartition("/")[2]
    crc = answer.headers.get("x-oss-hash-crc64ecma", "")
    return RemoteFile(
        url=url,
        size_bytes=int(length) if length.isdecimal() else None,
        etag=answer.headers.get("etag"),
        crc64=int(crc) if crc.isdecimal() else None,
    )
