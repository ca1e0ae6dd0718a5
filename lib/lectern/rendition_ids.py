"""The id of a rendition on a streamer: how it is chosen, and which folder it lies in."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from lectern import urls
from lectern.errors import Misuse
from lectern.states import Resolution

_SIZES = "|".join(Resolution)
_RENDITION = re.compile(rf"(?P<record>0|[1-9][0-9]{{0,18}})(?:_(?:{_SIZES}))?")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# A URL's file name must not claim a stem that has a meaning already, or a name that the store uses itself.
_TAKEN = re.compile(rf"[0-9]+_(?:{_SIZES})|url-[0-9a-f]{{32}}|quarantine")
# Each booking brings a newly signed URL; parameters of the signature do not identify the recording.
_SIGNATURES = frozenset(
    {
        *("expires", "signature", "ossaccesskeyid", "awsaccesskeyid", "security-token", "auth_key", "sign", "token"),
        *("x-oss-signature-version", "x-oss-signature", "x-oss-credential", "x-oss-date", "x-oss-expires"),
        *("x-oss-security-token", "x-oss-additional-headers"),
        *("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders"),
        *("x-amz-signature", "x-amz-security-token"),
    }
)


@dataclass(frozen=True)
class HeldStem:
    """What a stem is used for already; *source* is the recording that gave it its name, None if a record_id did."""

    source: str | None
    url: str | None = None


def stem(record_id: int, resolution: Resolution | None) -> str:
    """``6666_720P``, or ``6666`` if the booking named no resolution."""
    return f"{record_id}_{resolution}" if resolution else str(record_id)


def source(url: str) -> str:
    """What all URLs of one recording share: host, port, path, and the query without its signature."""
    try:
        parts = urls.http(url)
    except ValueError:  # an older version or another program wrote it
        return url
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([pair for pair in pairs if pair[0].lower() not in _SIGNATURES])
    port = "" if parts.port == urls.PORTS[parts.scheme] else f":{parts.port}"
    return f"{parts.host}{port}{parts.path}{'?' if query else ''}{query}"


def of_url(url: str) -> str:
    """The stem of a booking that names no record: ``6666`` for ``…/6666.flv``, if that is a plain name."""
    found = source(url)
    path, asks, _ = found.partition("?")
    name = path.rpartition("/")[2]
    name = name.rpartition(".")[0] or name
    is_plain = _PLAIN.fullmatch(name) and not _TAKEN.fullmatch(name) and not asks
    return name if is_plain else hashed(url)


def hashed(url: str) -> str:
    """The stem that only the recording at *url* can have, a hash."""
    return f"url-{hashlib.sha256(source(url).encode()).hexdigest()[:32]}"


def chosen(record_id: int | None, resolution: Resolution | None, url: str, held: Mapping[str, HeldStem]) -> str:
    """The stem of a class, so that two recordings never share a file.

    *held* says what each stem is used for. All renditions of one record are one recording, whatever their URLs.
    """
    wanted = of_url(url) if record_id is None else stem(record_id, resolution)
    before = held.get(wanted)
    if before is None or resolution is not None:
        return wanted
    if record_id is not None and before.source is None:
        return wanted
    known = before.source or (before.url and source(before.url))
    return wanted if known == source(url) else hashed(url)


def is_stem(text: str) -> bool:
    """Whether *text* may be the id of a rendition."""
    if record_of(text) is not None:
        return True
    return _PLAIN.fullmatch(text) is not None and (_TAKEN.fullmatch(text) is None or text.startswith("url-"))


def record_of(text: str) -> int | None:
    """The record_id of ``6666`` or ``6666_720P``; None if the name came from a URL."""
    rendition = _RENDITION.fullmatch(text)
    return int(rendition["record"]) if rendition and int(rendition["record"]) < 2**63 else None


def folder(text: str) -> str:
    """The folder of a rendition below the root: its record_id, or the stem if it has none."""
    record_id = record_of(text)
    return text if record_id is None else str(record_id)


@lru_cache(4096)  # a storm of bookings asks for few of them, each thousands of times
def rendition_path(root: Path, stem: str) -> Path:
    """Where the rendition lies: ``root/6666/6666_720P.flv``; raises Misuse if *stem* is no stem."""
    if not is_stem(stem):
        raise Misuse("{stem!r}: is no rendition; write 6666 or 6666_720P", stem=stem)
    return root / folder(stem) / f"{stem}.flv"
