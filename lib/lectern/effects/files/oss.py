"""Asks the OSS transcoder for a rendition by a signed POST, and checks such signatures."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from lectern import errors
from lectern.effects.files import tls
from lectern.errors import FallBack, TryAgain
from lectern.playout.sanitize import cleaned
from lectern.states import Resolution

_TOLD_CHARACTERS = 200
_TOLD_BYTES = 4 * _TOLD_CHARACTERS
_ERROR_CHARACTERS = 400


def sign(fields: Mapping[str, object], secret: str) -> str:
    """The signature of *fields*; a field called ``sign`` is not part of it."""
    signed = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if name != "sign")
    # JSON can hold half a surrogate pair, which UTF-8 cannot.
    whole = f"{signed}&key={secret}".encode(errors="surrogatepass")
    return hashlib.md5(whole, usedforsecurity=False).hexdigest()


def verify(fields: Mapping[str, object], signature: str, secret: str) -> bool:
    """Whether *signature* is that of *fields*, compared in constant time."""
    return hmac.compare_digest(sign(fields, secret).encode(), signature.encode(errors="replace"))


async def request_transcoding(
    url: str, record_id: int, resolution: Resolution, secret: str, *, timeout_s: float
) -> None:
    """Ask the transcoder at *url* once; its answer comes later, on the bus.

    Raises TryAgain (no answer in *timeout_s*, 429, 5xx) or FallBack (any other answer than 2xx, with its first words;
    its code is set if the transcoder does not know this teacher: 401, 403).
    """
    thing = f"{record_id}_{resolution}: OSS transcoding"
    fields: dict[str, object] = {"record_id": record_id, "video_resolution": str(resolution)}
    body = {**fields, "sign": sign(fields, secret)}
    try:
        if urlsplit(url).port == 0:  # reading it raises ValueError for an impossible port
            raise FallBack(f"{thing}: the transcoder's URL has port 0")
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=tls.context()) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            if answer.is_success:
                return
            said = await _beginning(answer)
    except TimeoutError as error:
        raise TryAgain(f"{thing}: no answer within {timeout_s:g} s") from error
    except httpx.TransportError as error:
        raise TryAgain(
            f"{thing}: no answer: {type(error).__name__} {cleaned(str(error))}"[:_ERROR_CHARACTERS]
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FallBack(
            f"{thing}: cannot be asked: {type(error).__name__} {cleaned(str(error))}"[:_ERROR_CHARACTERS]
        ) from error
    found = f"{thing}: answered {answer.status_code}: {said}".rstrip(": ")
    if answer.status_code == 429 or answer.is_server_error:
        raise TryAgain(found)
    raise FallBack(found, errors.OSS_REFUSES if answer.status_code in {401, 403} else None)


async def _beginning(answer: httpx.Response) -> str:
    """The first characters of an answer, however long or wrongly encoded it is."""
    raw = b""
    async for chunk in answer.aiter_raw():
        raw += chunk
        if len(raw) >= _TOLD_BYTES:
            break
    return cleaned(raw[:_TOLD_BYTES])[:_TOLD_CHARACTERS]
