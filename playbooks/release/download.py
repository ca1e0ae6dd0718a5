"""Fetches the locked wheels into a cache, and lets nothing pass whose checksum is not the lock's."""

import hashlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import stamina

from lectern.errors import CallAPerson, TryAgain
from playbooks.release.lock import Wheel

_AT_A_TIME = 6
_TRIES = 3
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int], None]
"""Is given the size of each piece that came."""


def fetched(wheels: Iterable[Wheel], cache: Path, on_bytes: OnBytes) -> list[Path]:
    """Each wheel's file in *cache*, fetched where it is not there yet.

    Raises TryAgain where the network fails, CallAPerson where a file is not the one that was locked.
    """
    cache.mkdir(parents=True, exist_ok=True)
    # The machine decides whom it trusts, also where a company's proxy stands in between.
    with (
        httpx.Client(verify=ssl.create_default_context(), timeout=_TIMEOUT_S, follow_redirects=True) as client,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        return list(pool.map(lambda wheel: _one(client, wheel, cache / wheel.filename, on_bytes), wheels))


def _one(client: httpx.Client, wheel: Wheel, file: Path, on_bytes: OnBytes) -> Path:
    if not file.exists():
        _fetch(client, wheel, file, on_bytes)
        return file
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != wheel.sha256:
        raise CallAPerson(
            f"{file}: its sha256 is {found}, uv.lock says {wheel.sha256}: it was changed after it was fetched. "
            f"Find out by whom; then remove it, and type the same again."
        )
    on_bytes(file.stat().st_size)
    return file


def _fetch(client: httpx.Client, wheel: Wheel, file: Path, on_bytes: OnBytes) -> None:
    """Fetch *wheel* beside *file*, then put it into its place: another build may do the same at this moment."""
    descriptor, name = tempfile.mkstemp(prefix=f"{wheel.filename}.", suffix=".part", dir=file.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            found = _download(client, wheel, out.fileno(), on_bytes)
        if found != wheel.sha256:
            raise CallAPerson(
                f"{wheel.filename}: {wheel.url} gave a file with sha256 {found}, uv.lock says {wheel.sha256}. "
                f"It was not kept. Something between here and there changes files, or the lock is wrong."
            )
        part.chmod(0o644)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


def _download(client: httpx.Client, wheel: Wheel, out: int, on_bytes: OnBytes) -> str:
    """Write what the URL gives to the descriptor *out*; returns its sha256. Passing trouble is tried again."""
    try:
        for attempt in stamina.retry_context(on=httpx.TransportError, attempts=_TRIES, timeout=None):
            with attempt, client.stream("GET", wheel.url) as answer:
                answer.raise_for_status()
                os.ftruncate(out, 0)
                os.lseek(out, 0, os.SEEK_SET)
                digest = hashlib.sha256()
                for piece in answer.iter_bytes(_CHUNK_BYTES):
                    os.write(out, piece)
                    digest.update(piece)
                    on_bytes(len(piece))
                return digest.hexdigest()
    except httpx.HTTPError as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TryAgain(
            f"{wheel.package} {wheel.version}: {wheel.url} could not be fetched ({found}). "
            f"See that this machine reaches it; then type the same again, what came is kept."
        ) from error
    raise AssertionError("a retry ends by an answer or an error")
