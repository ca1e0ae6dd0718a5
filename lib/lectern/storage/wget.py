"""Downloads by wget: resumes where the file ends, keeps to a rate limit and a size limit."""

import asyncio
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from lectern import subprocesses
from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, CallAPerson, Misuse, Refuse, TryAgain
from lectern.i18n import Text
from lectern.storage import cache_dir
from lectern.storage.origin import RemoteFile
from lectern.urls import redact_url

ENVIRONMENT = {"LC_ALL": "C"}  # judge reads its errors in English

_LOOK_S = 0.5
_IDLE_S = 30
_RATE = re.compile(r"[0-9]+(\.[0-9]+)?[kmgKMG]?")
_STATUS = re.compile(r"ERROR (\d{3})")
_NO_ROOM = ("No space left on device", "Disk quota exceeded", "Read-only file system")
_OURS = frozenset({1, 2, 3})  # its own trouble: options, the file it writes
_SERVER_ERROR = 8
_PASSING_STATUS = frozenset({408, 425, 429})


def asked(url: str, address: str | None) -> tuple[list[str], bytes]:
    """Options that name the host, and what wget reads on stdin: a command line is shown to every user of the machine.

    By plain http the host is connected to at *address*, the one that was checked, so that a name that leads elsewhere a
    moment later leads nobody there. By https wget looks the name up again, and sends nothing before the server has
    proved by its certificate that it is the host. Raises Refuse for a URL of more than one line.
    """
    if not url.isprintable():
        raise Refuse("{url}: has control characters", DOWNLOAD_FAILED, url=redact_url(url))
    parts = urlsplit(url)
    if address is None or parts.scheme != "http":
        return [], f"{url}\n".encode()
    host = f"[{address}]" if ":" in address else address
    place = host if parts.port is None else f"{host}:{parts.port}"
    return [f"--header=Host: {parts.netloc}"], f"{urlunsplit(parts._replace(netloc=place))}\n".encode()


def argv(wget: str, target: str, rate: str | None = None, options: Sequence[str] = ()) -> list[str]:
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
    part.parent.mkdir(parents=True, exist_ok=True)
    url, limit_bytes = remote.url, limits.size_bytes
    options, line = asked(url, remote.address)
    larger = Text(
        "{url}: is larger than the {limit_bytes} bytes that were reserved for it",
        url=redact_url(url),
        limit_bytes=limit_bytes,
    )
    too_large = Refuse(larger, DOWNLOAD_FAILED)
    if cache_dir.size_bytes(part) > limit_bytes:
        raise too_large

    watch = asyncio.ensure_future(_watch(part, on_progress))
    try:
        finished = await subprocesses.run(
            argv(wget_path, str(part), limits.rate, options),
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
    judge(finished, url)
    on_progress(cache_dir.size_bytes(part))


def judge(finished: subprocesses.Finished, url: str) -> None:
    """Return if wget succeeded, else raise an error that says what to do (the manual's section *Exit Status*)."""
    if finished.returncode == 0:
        return
    why = finished.last_words or Text("no word")
    found = Text("{url}: wget ended with {code}: {why}", url=redact_url(url), code=finished.returncode, why=why)
    status = _STATUS.search(finished.errors)
    if any(words in finished.errors for words in _NO_ROOM):
        raise Refuse(found, DISK_FULL)
    if finished.returncode in _OURS:
        raise CallAPerson(found)
    if finished.returncode == _SERVER_ERROR and status is not None:
        code = int(status[1])
        if 400 <= code < 500 and code not in _PASSING_STATUS:
            raise Refuse(found, DOWNLOAD_FAILED)
    raise TryAgain(found)


async def _watch(part: Path, on_progress: Callable[[int], None]) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        on_progress(cache_dir.size_bytes(part))
