"""Asks the OSS transcoder for a rendition by a signed POST, and checks such signatures."""

import hashlib
import hmac
from collections.abc import Mapping

import httpx

from lectern.effects import tls
from lectern.errors import FallBack, TryAgain
from lectern.states import Resolution

_TOLD_CHARACTERS = 200


def sign(fields: Mapping[str, object], secret: str) -> str:
    """The signature of *fields*; a field called ``sign`` is not part of it."""
    signed = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if name != "sign")
    # JSON can hold half a character, which no text has.
    whole = f"{signed}&key={secret}".encode(errors="surrogatepass")
    return hashlib.md5(whole, usedforsecurity=False).hexdigest()


def verify(fields: Mapping[str, object], signature: str, secret: str) -> bool:
    """Whether *signature* is that of *fields*, compared in constant time."""
    return hmac.compare_digest(sign(fields, secret).encode(), signature.encode(errors="replace"))


async def request_transcoding(
    url: str, record_id: int, resolution: Resolution, secret: str, *, timeout_s: float
) -> None:
    """Ask the transcoder at *url* once; its answer comes later, on the bus.

    Raises TryAgain (no answer in *timeout_s*, 429, 5xx) or FallBack (any other answer than 2xx, with its text).
    """
    thing = f"{record_id}_{resolution}: OSS transcoding"
    fields: dict[str, object] = {"record_id": record_id, "video_resolution": str(resolution)}
    body = {**fields, "sign": sign(fields, secret)}
    try:
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=tls.context()) as client:
            answer = await client.post(url, json=body)
    except httpx.TransportError as error:
        raise TryAgain(f"{thing}: no answer: {type(error).__name__} {error}") from error
    except httpx.InvalidURL as error:
        raise FallBack(f"{thing}: the transcoder's URL can not be used: {error}") from error
    if answer.is_success:
        return
    found = f"{thing}: answered {answer.status_code}: {answer.text[:_TOLD_CHARACTERS]}"
    if answer.status_code == 429 or answer.is_server_error:
        raise TryAgain(found)
    raise FallBack(found)
