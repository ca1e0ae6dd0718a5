"""The object store: asks its transcoder for a rendition, and uploads renditions by signed URLs."""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote, urlsplit

import httpx

from lectern import errors
from lectern.allowlist import Allowlist
from lectern.errors import UPLOAD_FAILED, CallAPerson, FallBack, Misuse, Refuse, TryAgain
from lectern.i18n import Text, labelled, msgid
from lectern.playout.sentences import cleaned
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from lectern.storage import origin
from lectern.subprocesses import Finished
from lectern.urls import redact_url

_LOOK_S = 30.0
_TYPE = "video/x-flv"  # sent, and part of the signature
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_STATUS = re.compile(r"(?:^|\n)lectern-status (\d{3})")
_CRC = re.compile(r"(?im)^\s*x-oss-hash-crc64ecma:\s*([0-9]{1,20})\s*$")
_WHY = re.compile(r"<(Code|Message)>([^<]{1,200})<")


def check_upload(settings: TeacherSettings) -> None:
    """Raise Misuse if UPLOAD_URL, to which renditions are PUT, its key or PUBLIC_URL is missing or wrong."""
    put, public = urlsplit(settings.upload_url or ""), urlsplit(settings.public_url or "")
    plain = put.scheme in ("http", "https") and put.hostname
    bucket = put.scheme == "oss" and _BUCKET.fullmatch(put.netloc)
    if not plain and not bucket:
        raise Misuse(
            "UPLOAD_URL={upload_url}: write http://…, https://… or oss://bucket/prefix",
            upload_url=redact_url(settings.upload_url or ""),
        )
    if bucket and not (settings.oss_region and settings.oss_access_key_id and settings.oss_access_key_secret):
        needs = "OSS_REGION, OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET must be set"
        raise Misuse("UPLOAD_URL={upload_url}: {needs}", upload_url=settings.upload_url, needs=needs)
    if public.scheme not in ("http", "https") or not public.hostname:
        raise Misuse(
            "PUBLIC_URL={public_url}: write http://… or https://…", public_url=redact_url(settings.public_url or "")
        )


def public_url(settings: TeacherSettings, path: str) -> str:
    """The URL by which anybody reads the rendition *path*."""
    return f"{(settings.public_url or '').rstrip('/')}/{quote(path)}"


async def upload_url(settings: TeacherSettings, path: str, md5: str, expires_s: float) -> str:
    """Where *path*, whose MD5 in base64 is *md5*, is PUT; a signed URL is good for this file, for *expires_s*.

    It may hold a signature, so no log and no command line shows it. The key that signs it never leaves this host.
    """
    base = settings.upload_url or ""
    if urlsplit(base).scheme != "oss":
        return f"{base.rstrip('/')}/{quote(path)}"
    # A thread: to load the SDK takes a second, the first time.
    return await asyncio.to_thread(_signed, settings, path, md5, expires_s)


def _signed(settings: TeacherSettings, path: str, md5: str, expires_s: float) -> str:
    # Loaded here, because it is slow to load and needed for oss:// only. It ships no types.
    import alibabacloud_oss_v2 as oss  # type: ignore[import-untyped]  # noqa: PLC0415

    assert settings.oss_access_key_id is not None  # `check_upload` has seen to it
    assert settings.oss_access_key_secret is not None
    config = oss.config.load_default()
    given = (settings.oss_access_key_id.get_secret_value(), settings.oss_access_key_secret.get_secret_value())
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(*given)
    config.region, config.endpoint = settings.oss_region, settings.oss_endpoint
    parts = urlsplit(settings.upload_url or "")
    prefix = parts.path.strip("/")
    name = f"{prefix}/{path}" if prefix else path
    request = oss.PutObjectRequest(bucket=parts.netloc, key=name, content_md5=md5, content_type=_TYPE)
    return str(oss.Client(config).presign(request, expires=timedelta(seconds=expires_s)).url)


def curl(program: str, url: str, md5: str, file: str) -> tuple[list[str], bytes]:
    """The command line that uploads *file*, and its stdin; *md5* is in base64.

    It prints the answer's headers, body and status.
    """
    argv = [program, "-q", "--config", "-", "--silent", "--show-error", "--globoff", "--noproxy", "*"]
    argv += ["--connect-timeout", "15", "--speed-limit", "1", "--speed-time", "30", "--dump-header", "-"]
    argv += ["--write-out", "\\nlectern-status %{http_code}\\n", "--header", "Expect:"]
    argv += ["--header", f"Content-Type: {_TYPE}", "--header", f"Content-MD5: {md5}", "--upload-file", file]
    quoted = url.replace("\\", "\\\\").replace('"', '\\"')
    return argv, f'url = "{quoted}"\n'.encode()


def judge(path: str, url: str, host: object, ended: Finished) -> int | None:
    """The CRC-64 in the store's answer, None if it has none; raises TryAgain, or CallAPerson if the store refuses."""
    status = _STATUS.search(ended.output)
    code = status[1] if status else ""
    if ended.returncode == 0 and (not code or code.startswith("2")):
        crc = _CRC.search(ended.output)
        return int(crc[1]) if crc else None
    why = ": ".join(dict(_WHY.findall(ended.output)).values()) or ended.last_words or Text("no reason was given")
    found = Text(
        "{path}: could not be uploaded from {host} to {shown}: {code} {reason}",
        path=path,
        host=host,
        shown=redact_url(url),
        code=code or ended.returncode,
        reason=why,
    )
    if code.startswith("4") and int(code) not in origin.PASSING_STATUS:
        raise CallAPerson("{found}; are UPLOAD_URL and its key right?", UPLOAD_FAILED, found=found)
    raise TryAgain(found, UPLOAD_FAILED)


async def verify_upload(url: str, size_bytes: int, crc64: int | None, allowed: Allowlist) -> None:
    """Check that the whole upload is at its public *url*; raises TryAgain with what is there instead.

    That server may redirect to *allowed* places.
    """
    try:
        there = await origin.look(url, allowed=allowed.and_server_of(url), timeout_s=_LOOK_S)
    except (Refuse, TryAgain) as error:
        raise TryAgain(
            "{url}: was uploaded, but: {error}", UPLOAD_FAILED, url=redact_url(url), error=error.message
        ) from error
    if there.size_bytes is not None and there.size_bytes != size_bytes:
        found = Text(
            "has {size_bytes} bytes, but {uploaded_bytes} were uploaded",
            size_bytes=there.size_bytes,
            uploaded_bytes=size_bytes,
        )
        raise TryAgain(labelled(redact_url(url), found), UPLOAD_FAILED)
    if None not in (crc64, there.crc64) and there.crc64 != crc64:
        text = msgid("{url}: its CRC-64 is {crc64}, but {other_crc64} was uploaded")
        raise TryAgain(text, UPLOAD_FAILED, url=redact_url(url), crc64=there.crc64, other_crc64=crc64)


# Asks the OSS transcoder for a rendition by a signed POST, and checks such signatures.
_TOLD_CHARACTERS = 200
_TOLD_BYTES = 4 * _TOLD_CHARACTERS


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
            raise FallBack("{thing}: the transcoder's URL has port 0", thing=thing)
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=origin.trusted_authorities()) as client,
            client.stream("POST", url, json=body) as answer,
        ):
            if answer.is_success:
                return
            raw = await anext(answer.aiter_raw(_TOLD_BYTES), b"")  # it may be of any length, and wrongly encoded
            said = cleaned(raw)[:_TOLD_CHARACTERS]
    except TimeoutError as error:
        raise TryAgain("{thing}: no answer within {timeout_s:g} s", thing=thing, timeout_s=timeout_s) from error
    except httpx.TransportError as error:
        raise TryAgain("{thing}: no answer: {error}", thing=thing, error=origin.words(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FallBack("{thing}: cannot be asked: {error}", thing=thing, error=origin.words(error)) from error
    why = said or Text("no reason was given")
    found = Text("{thing}: answered {status_code}: {reason}", thing=thing, status_code=answer.status_code, reason=why)
    if answer.status_code == 429 or answer.is_server_error:
        raise TryAgain(found)
    raise FallBack(found, errors.OSS_REFUSES if answer.status_code in {401, 403} else None)
