"""Recordings at their origin: which origins may be asked, what they promise of a file, and its download by wget."""

import asyncio
import functools
import ipaddress
import logging
import re
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

import httpx
import stamina

from lectern import errors, subprocesses
from lectern.allowlist import Address, Allowlist
from lectern.errors import CallAPerson, Misuse, Refuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.model.facts import RemoteFile as RemoteFile  # noqa: PLC0414 (asked for here)
from lectern.playout.sentences import cleaned
from lectern.storage import cache_dir
from lectern.timing import shielded
from lectern.urls import redact_url

T = TypeVar("T")


# Looks up the addresses of a host.
class NoSuchHost(ValueError):
    """No address belongs to the name, or it is no name at all."""


def addresses(host: str, port: int) -> list[Address]:
    """The addresses of *host*, in the order in which to try them; the look-up can block, so call it in a thread.

    Raises NoSuchHost, or TryAgain if the name cannot be looked up just now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise NoSuchHost(Text("{host}: is no host name", host=host)) from error
    except OSError as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            raise NoSuchHost(Text("{host}: there is no such host", host=host)) from error
        raise TryAgain(
            "{host}: cannot be looked up: {strerror}", host=host, strerror=error.strerror or error
        ) from error
    known: dict[Address, None] = {}  # keeps the order
    for *_, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        known[mapped or address] = None
    return list(known)


# The certificate authorities by which HTTPS servers are verified.
_log = logging.getLogger("lectern")
_OF_SYSTEMS = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
"""Where Debian and Red Hat keep the authorities that a host trusts; a Python built elsewhere looks in other places."""


@functools.cache
def trusted_authorities() -> ssl.SSLContext:
    """A context that trusts the authorities of this release and those of the host, private ones included, as wget does.

    The authorities are read once, because reading them takes as long as a request to a server.
    """
    made = httpx.create_ssl_context(trust_env=False)
    made.load_default_certs()
    for bundle in _OF_SYSTEMS:
        try:
            made.load_verify_locations(bundle)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s: its authorities cannot be read: %s", bundle, error)
    return made


_REDIRECTS = 3
_TRIES = 3
_STOOD_STILL = 1.5  # times a limit that passed before its end was seen: the process was stopped meanwhile
_PORTS = {"http": 80, "https": 443}
_HOST, _CONTROL = re.compile(r"[A-Za-z0-9._-]{1,253}"), re.compile(r"[\x00-\x1f\x7f]")
_HEADERS = {"accept-encoding": "identity"}  # otherwise the length is not that of the file
_UNSUPPORTED_HEAD = frozenset({403, 405, 501})
_ABSENT = frozenset({404, 410})
PASSING_STATUS = frozenset({408, 425, 429})  # the same request may be answered a moment later
_MOST_BYTES = 2**50  # the sum of a thousand such files still fits into a database's integer
_MOST_CRC64 = 2**64 - 1
_ETAG_CHARACTERS = 250
_TOLD_CHARACTERS = 200


def words(error: Exception) -> str:
    """What kept a request from its answer, for people."""
    return cleaned(f"{type(error).__name__} {error}")[:_TOLD_CHARACTERS]


class Absent(Refuse):
    """The origin says that there is no such file, or that nothing is in it."""


def checked(url: str, allowed: Allowlist) -> list[Address]:
    """The addresses at which *url* may be fetched; looks the host up, so it can wait (use a thread).

    Raises Refuse(FORBIDDEN_ORIGIN) if the origin is not *allowed*, Refuse(DOWNLOAD_FAILED) if there is no such host,
    TryAgain if the host's name cannot be looked up just now.
    """
    parts, host, port = _split(url)
    try:
        found = addresses(host, port)
    except NoSuchHost as error:
        raise Refuse(str(error), errors.DOWNLOAD_FAILED) from error
    forbidden = allowed.forbidden(host, port, found)
    if forbidden is not None:
        where = f"{parts.scheme}://{parts.netloc}"
        text = msgid("{where}: {forbidden} is no allowed origin; see ALLOWED_ORIGINS")
        raise Refuse(text, errors.FORBIDDEN_ORIGIN, where=where, forbidden=forbidden)
    return found


def _split(url: str) -> tuple[SplitResult, str, int]:
    """The parts of *url*, its host and its port; raises Refuse for a URL that wget and httpx could read differently."""
    said = redact_url(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        if not (_HOST.fullmatch(host) or ":" in host) or "\\" in parts.netloc or _CONTROL.search(url):
            raise ValueError("its host or its characters")
    except ValueError as error:
        raise Refuse("{url}: is no URL", errors.FORBIDDEN_ORIGIN, url=said) from error
    if parts.scheme not in _PORTS:
        raise Refuse("{url}: only http and https are allowed", errors.FORBIDDEN_ORIGIN, url=said)
    if "@" in parts.netloc:
        text = msgid("{scheme}://{host}: a URL with a user or password is not allowed")
        raise Refuse(text, errors.FORBIDDEN_ORIGIN, scheme=parts.scheme, host=host)
    return parts, host, port


async def look(url: str, *, allowed: Allowlist, timeout_s: float, first_bytes: bool = False) -> RemoteFile:
    """What the origin promises of *url*, in at most *timeout_s* and three tries; if asked to, looks at its first bytes.

    Follows up to three redirects, each to an allowed place only; connects to no other address than the checked ones.
    Raises Refuse (not there, not allowed, an answer that means nothing) or TryAgain. If this process stood still
    meanwhile, as in a machine that was paused, that says nothing of the origin, which is looked at once more.
    """
    for _ in range(2):
        since = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                tries = stamina.retry_context(
                    on=TryAgain, attempts=_TRIES, timeout=timeout_s, wait_initial=0.2, wait_max=2
                )
                async for attempt in tries:
                    with attempt:
                        return await _look(url, allowed, timeout_s, first_bytes=first_bytes)
        except TimeoutError:
            if time.monotonic() - since < _STOOD_STILL * timeout_s:
                break
    raise TryAgain("{url}: no answer within {timeout_s:g} s", url=redact_url(url), timeout_s=timeout_s)


async def _look(url: str, allowed: Allowlist, timeout_s: float, *, first_bytes: bool) -> RemoteFile:
    tls_context = trusted_authorities()
    async with httpx.AsyncClient(timeout=timeout_s, headers=_HEADERS, trust_env=False, verify=tls_context) as client:
        here = url
        for _ in range(_REDIRECTS + 1):
            addresses = await asyncio.to_thread(checked, here, allowed)
            try:
                ask = functools.partial(_ask_at, client, httpx.URL(here))
                address, answer = await first_connected(addresses, timeout_s, ask)
                if not answer.has_redirect_location:
                    promised = _promised(here, address, answer)
                    if first_bytes:
                        await _refuse_text(client, here, address)
                    return promised
                here = str(httpx.URL(here).join(answer.headers["location"]))
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                said = words(error)
                if not isinstance(error, httpx.TransportError):
                    text = msgid("{here}: its answer cannot be read: {reason}")
                    raise Refuse(text, errors.DOWNLOAD_FAILED, here=redact_url(here), reason=said) from error
                raise TryAgain("{here}: no answer: {reason}", here=redact_url(here), reason=said) from error
    last = redact_url(here)
    text = msgid("{url}: more than {redirects} redirects, the last one to {last}")
    raise Refuse(text, errors.DOWNLOAD_FAILED, url=redact_url(url), redirects=_REDIRECTS, last=last)


async def first_connected(
    addresses: Sequence[object], timeout_s: float, ask: Callable[[str, httpx.Timeout], Awaitable[T]]
) -> tuple[str, T]:
    """The first of the *addresses*, of which there is at least one, that takes the connection, and what *ask* returns.

    Raises what *ask* raises of the last one if none takes the connection.
    """
    waits = httpx.Timeout(timeout_s, connect=timeout_s / len(addresses))
    *others, last = map(str, addresses)
    for address in others:
        with suppress(httpx.ConnectError, httpx.ConnectTimeout):
            return address, await ask(address, waits)
    return last, await ask(last, waits)


async def _ask_at(client: httpx.AsyncClient, url: httpx.URL, address: str, waits: httpx.Timeout) -> httpx.Response:
    """The answer to a HEAD; if the origin refuses HEAD (URLs are often signed for GET only), to a GET of one byte.

    Also if it says 0 bytes, as programs do that make their answers and know a length only once they have sent all.

    The request still names the host, and its certificate is verified for this name.
    """
    at, name, more = pinned(url, address)
    answer = await client.head(at, headers=name, extensions=more, timeout=waits)
    is_empty = answer.is_success and answer.headers.get("content-length") == "0"
    if answer.status_code in _UNSUPPORTED_HEAD or is_empty:
        one_byte = {**name, "range": "bytes=0-0"}
        async with client.stream("GET", at, headers=one_byte, extensions=more, timeout=waits) as begun:
            answer = begun
    return answer


async def _refuse_text(client: httpx.AsyncClient, url: str, address: str) -> None:
    """Raise Refuse if a page or an error in words is there, which some servers send as if it were the file."""
    at, name, more = pinned(httpx.URL(url), address)
    async with client.stream("GET", at, headers={**name, "range": "bytes=0-15"}, extensions=more) as answer:
        start = b"" if answer.is_error else await anext(answer.aiter_bytes(), b"")
    if start.lstrip()[:1] in (b"<", b"{"):
        said = cleaned(start[:16].decode("utf-8", "replace"))
        raise Refuse(
            "{url}: is no recording, it begins with {start!r}", errors.BAD_RECORDING, url=redact_url(url), start=said
        )


def pinned(url: httpx.URL, address: str) -> tuple[httpx.URL, dict[str, str], dict[str, str]]:
    """The URL at *address*, and the header and the extension by which the request still names its host."""
    return url.copy_with(host=address), {"host": url.netloc.decode("ascii")}, {"sni_hostname": url.host}


def _promised(url: str, address: str, answer: httpx.Response) -> RemoteFile:
    if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # it has no first byte
        raise Absent("{url}: the recording is empty", errors.DOWNLOAD_FAILED, url=redact_url(url))
    if answer.status_code in PASSING_STATUS or answer.is_server_error:
        raise TryAgain("{url}: the origin answered {status_code}", url=redact_url(url), status_code=answer.status_code)
    if not answer.is_success:
        kind = Absent if answer.status_code in _ABSENT else Refuse
        raise kind(
            Text("{url}: the origin answered {status_code}", url=redact_url(url), status_code=answer.status_code),
            errors.DOWNLOAD_FAILED,
        )
    length = answer.headers.get("content-length", "")  # of two different ones it has both, and is no number
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        length = "" if total == "*" else total
    etag = answer.headers.get("etag")
    if etag is not None and len(etag) > _ETAG_CHARACTERS:
        raise Refuse(
            "{url}: its ETag has {length} characters", errors.DOWNLOAD_FAILED, url=redact_url(url), length=len(etag)
        )
    size_bytes = _number(url, msgid("length"), length, _MOST_BYTES)
    if size_bytes == 0:
        raise Absent("{url}: the recording is empty", errors.DOWNLOAD_FAILED, url=redact_url(url))
    crc64 = _number(url, "CRC-64", answer.headers.get("x-oss-hash-crc64ecma", ""), _MOST_CRC64)
    return RemoteFile(url, size_bytes, etag, crc64, address)


def _number(url: str, name: str, text: str, most: int) -> int | None:
    """The number in a header; its digits are counted first, because Python refuses to read very long numbers."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > most:
        about = {"url": redact_url(url), "name": Text(name), "value": text[:30]}
        raise Refuse("{url}: no file has the {name} {value!r}", errors.DOWNLOAD_FAILED, **about)
    return int(text)


ENVIRONMENT = {"LC_ALL": "C"}  # judge_wget reads its errors in English

_LOOK_S = 0.5
SYNC_BYTES = 64 * 1024**2  # number of bytes that a download grows by until it is synced to the disk
_IDLE_S = 30
_RATE = re.compile(r"[0-9]+(\.[0-9]+)?[kmgKMG]?")
_STATUS = re.compile(r"ERROR (\d{3})")
_OURS = frozenset({1, 2, 3})  # its own trouble: options, the file it writes
_SERVER_ERROR = 8


def wget_input(url: str, address: str | None) -> tuple[list[str], bytes]:
    """Options that name the host, and what wget reads on stdin: a command line is shown to every user of the machine.

    By plain http the host is connected to at *address*, the one that was checked, so that a name that leads elsewhere a
    moment later leads nobody there. By https wget looks the name up again, and sends nothing before the server has
    proved by its certificate that it is the host. Raises Refuse for a URL of more than one line.
    """
    if not url.isprintable():
        raise Refuse("{url}: has control characters", errors.DOWNLOAD_FAILED, url=redact_url(url))
    parts = urlsplit(url)
    if address is None or parts.scheme != "http":
        return [], f"{url}\n".encode()
    host = f"[{address}]" if ":" in address else address
    place = host if parts.port is None else f"{host}:{parts.port}"
    return [f"--header=Host: {parts.netloc}"], f"{urlunsplit(parts._replace(netloc=place))}\n".encode()


def wget_argv(wget: str, target: str, rate: str | None = None, options: Sequence[str] = ()) -> list[str]:
    """The command line of one try: it downloads the URL on stdin into *target*, and goes on where the file ends.

    No configuration, proxy, password file or redirect leads it elsewhere than to the URL, which was checked.
    Raises Misuse for a rate that wget cannot read.
    """
    if rate is not None and not _RATE.fullmatch(rate):
        raise Misuse("download rate {rate!r}: cannot be read; write 1000k, 1.5m or 0 (no limit)", rate=rate)
    limit = [] if rate is None else [f"--limit-rate={rate}"]
    ours = ["-c", *limit, "--tries=1", f"--timeout={_IDLE_S}", "--no-verbose", "--max-redirect=0"]
    return [wget, "--no-config", "--no-proxy", "--no-netrc", *ours, *options, "-O", target, "--input-file=-"]


@dataclass(frozen=True)
class WgetLimits:
    """The limits of a download; *rate* is in wget's notation (``1000k`` bytes a second)."""

    rate: str
    timeout_s: float
    size_bytes: int


async def download(
    wget_path: str, remote: RemoteFile, part: Path, limits: WgetLimits, on_progress: Callable[[int], None]
) -> None:
    """Download *remote* into *part*, or go on with what is there; calls *on_progress* with its size every 0.5 s.

    The file never grows over its limit. Raises TryAgain (network, busy server, timeout; the part is kept), Refuse (not
    there, too large, disk full), CallAPerson, Misuse.
    """
    await cache_dir.in_thread(part.parent.mkdir, parents=True, exist_ok=True)
    url, limit_bytes = remote.url, limits.size_bytes
    options, line = wget_input(url, remote.address)
    text = msgid("{url}: is larger than the {limit_bytes} bytes that were reserved for it")
    too_large = Refuse(text, errors.DOWNLOAD_FAILED, url=redact_url(url), limit_bytes=limit_bytes)
    if await cache_dir.in_thread(cache_dir.size_bytes, part) > limit_bytes:
        raise too_large

    watch = asyncio.ensure_future(_watch(remote, part, on_progress))
    try:
        finished = await subprocesses.run(
            wget_argv(wget_path, str(part), limits.rate, options),
            timeout_s=limits.timeout_s,
            stdin=line,
            env=ENVIRONMENT,
            file_limit_bytes=limit_bytes,
            nice=subprocesses.GIVES_WAY,
        )
    finally:
        watch.cancel()
        await asyncio.wait({watch})
    if not watch.cancelled():
        watch.result()  # what on_progress raised
    if finished.returncode == -signal.SIGXFSZ:
        raise too_large
    judge_wget(finished, url)
    on_progress(await cache_dir.in_thread(cache_dir.size_bytes, part))


def judge_wget(finished: subprocesses.Finished, url: str) -> None:
    """Return if wget succeeded, else raise an error that says what to do (the manual's section *Exit Status*)."""
    if finished.returncode == 0:
        return
    why = finished.last_words or Text("no word")
    found = Text("{url}: wget ended with {code}: {why}", url=redact_url(url), code=finished.returncode, why=why)
    status = _STATUS.search(finished.errors)
    if finished.has_no_room:
        raise Refuse(found, errors.DISK_FULL)
    if finished.returncode in _OURS:
        raise CallAPerson(found)
    if finished.returncode == _SERVER_ERROR and status is not None:
        code = int(status[1])
        if 400 <= code < 500 and code not in PASSING_STATUS:
            raise Refuse(found, errors.DOWNLOAD_FAILED)
    raise TryAgain(found)


async def _watch(remote: RemoteFile, part: Path, on_progress: Callable[[int], None]) -> None:
    """Report the size of a download, and sync it now and then: a power cut costs no more than what came since."""
    synced_bytes = 0
    while True:
        await asyncio.sleep(_LOOK_S)
        came_bytes = await cache_dir.in_thread(cache_dir.size_bytes, part)  # the disk may hang
        on_progress(came_bytes)
        if came_bytes - synced_bytes >= SYNC_BYTES:
            synced_bytes = came_bytes
            try:
                await shielded(cache_dir.in_thread(cache_dir.write_origin, part, remote))
            except OSError as error:
                _log.warning("%s: could not be synced: %s", part, error)
