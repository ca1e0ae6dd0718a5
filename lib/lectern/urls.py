"""The one check of URLs that come from outside, their parts, and how they are written without their secrets."""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from types import MappingProxyType
from urllib.parse import parse_qsl, urlencode, urlsplit

from lectern.i18n import Text

HTTP = ("http", "https")
RTMP = ("rtmp", "rtmps")

PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443})
"""The port of each scheme if the URL names none."""

MAX_LENGTH = 2_000

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# Vendors sign the push URL of each booking; these parameters do not identify the stream.
_SIGNATURES = frozenset({"auth_key", "txsecret", "txtime", "wssecret", "wstime", "hwsecret", "hwtime"})


@dataclass(frozen=True)
class Url:
    """A URL that passed the check: its text as we write it, and its parts."""

    text: str
    scheme: str
    host: str
    port: int
    path: str
    query: str

    @cached_property
    def stream(self) -> str:
        """What all push URLs of one stream share: no user, no default port, no vendor's signature."""
        pairs = parse_qsl(self.query, keep_blank_values=True) if self.query else ()
        kept = urlencode([(name, value) for name, value in pairs if name.lower() not in _SIGNATURES])
        return f"{self.scheme}://{self.host}:{self.port}{self.path}{'?' if kept else ''}{kept}"


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HOST = (
    rf"{_BYTE}(?:\.{_BYTE}){{3}}(?=[:/]|$)|"
    r"(?=[a-z0-9_.-]{1,253}(?:[:/]|$))(?:[a-z0-9_-]{1,63}\.)*(?=[0-9]*[a-z_-])[a-z0-9_-]{1,63}"
)
_PLAIN = re.compile(
    rf"(?P<scheme>https?|rtmps?)://(?P<host>{_HOST})(?::(?P<port>[1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}))?(?P<rest>/[!-~]*)?"
)
"""Fits nearly every URL: small letters, no user, a port below 60,000. Such a URL needs no rewriting."""

READ = 8192
"""Number of URLs that are remembered: more than a batch has, because each booking reads its URLs twice."""


@lru_cache(maxsize=READ)
def read(text: str, schemes: tuple[str, ...]) -> Url:
    """The URL in *text*; a plain one needs no check by `careful`.

    Raises ValueError as `careful` does, and if a push URL names no stream behind its host.
    """
    found = _PLAIN.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None or found["scheme"] not in schemes:
        url = careful(text, schemes)
    else:
        scheme, host, port, rest = found.groups()
        path, _, query = (rest or "").partition("?")
        url = Url(text, scheme, host, int(port) if port else PORTS[scheme], path, query)
    if schemes == RTMP and not url.path.strip("/"):
        raise ValueError(Text("must name the stream to publish to, as in {url}", url="rtmp://host/application/stream"))
    return url


http: Callable[[str], Url] = partial(read, schemes=HTTP)
"""The recording's URL in a text; raises ValueError that says what is wrong."""
push: Callable[[str], Url] = partial(read, schemes=RTMP)
"""The push URL in a text; raises ValueError that says what is wrong."""


def careful(text: str, schemes: tuple[str, ...]) -> Url:
    """The URL in *text*: one of *schemes*, in any case, with a host that can be looked up and a port there is.

    The returned text has its scheme in small letters and its host as DNS writes it; the rest is unchanged.
    Raises ValueError with a text that does not repeat the URL, because it can hold secrets.
    """
    if len(text) > MAX_LENGTH or " " in text or not text.isprintable():  # the space is the only printable blank
        reason = Text("must have no blanks or control characters and at most {most} characters", most=MAX_LENGTH)
        raise ValueError(reason)
    wanted = Text("must be a URL that begins with {first}:// or {second}://", first=schemes[0], second=schemes[1])
    try:
        parts = urlsplit(text, allow_fragments=False)
        hostname = parts.hostname
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in schemes or not hostname:
        raise ValueError(wanted)
    user, at, _ = parts.netloc.rpartition("@")
    if "\\" in user:
        raise ValueError(Text("must have no backslash before its host"))
    host, port = _host(hostname, in_brackets="[" in parts.netloc), _port(parts.netloc)
    place = f"[{host}]" if ":" in host else host
    rest = text[len(parts.scheme) + len("://") + len(parts.netloc) :]
    whole = f"{parts.scheme}://{user}{at}{place}{'' if port is None else f':{port}'}{rest}"
    return Url(whole, parts.scheme, host, port or PORTS[parts.scheme], parts.path, parts.query)


def _host(name: str, *, in_brackets: bool) -> str:
    """The host *name* as DNS writes it, or as an IP address is written; raises ValueError if it is neither."""
    if in_brackets:
        return _address(name)
    try:
        plain = name if name.isascii() else name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError(Text("must have a host that DNS can write")) from None
    labels = plain.removesuffix(".").split(".")
    if len(plain) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        reason = Text("must have a host of at most 253 letters, digits, hyphens and dots, 1 to 63 between dots")
        raise ValueError(reason)
    return _address(plain) if labels[-1].isdigit() else plain


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(Text("must have a host name or a whole IP address")) from None


def _port(netloc: str) -> int | None:
    """The port that *netloc* names; None if it names none. Raises ValueError if it is not 1 to 65535."""
    text = re.sub(r".*[@\]]", "", netloc).partition(":")[2]
    if not text:
        return None
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= port <= 65_535:
        raise ValueError(Text("must have a port between 1 and 65535"))
    return port


# How URLs are written for people: without their secrets, which are user, password, query and stream key.
_UNTIL_PATH = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,19})://(?P<place>[^\s/?#\\]*)"
_SHOWN_ALREADY = r"[?]…(?=[.,:;!)\]}'`\"]*(?:\s|$))"
_URL = re.compile(_UNTIL_PATH + rf"(?P<path>[^\s?#]*)(?P<rest>{_SHOWN_ALREADY}|[?#]\S*)?")
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[^:@]*)(?P<port>:\d*)?")
_NUMBERED = re.compile(
    r"Error (?P<number>\d+) connecting to (?P<place>\S+?)\.( |$)(?P<words>.*)"
)  # as redis-py writes it
_SSL = re.compile(r"\[SSL: \w+\] | \(_ssl\.c:\d+\)\.?")  # around OpenSSL's words; its numbers are no errno
_LOGIN = re.compile(r"[\w.-]+@[^\s:@/]+(:\w*)?")  # an SSH login, whose user is kept: people must type it
_PUSH = ("rtmp", "rtmps")  # the last part of their path is the stream key
_MOST_CHARACTERS = 300
_SENTENCE_ENDS = ".,:;!)]}'`\""


def redact_url(url: str) -> str:
    """*url* as scheme, host, port and path, with ``?…`` in place of a query; a push URL without path and query."""
    matched = _URL.match(url)
    if matched is None:
        return f"{_printable(url.partition('?')[0])[:_MOST_CHARACTERS]}{'?…' if '?' in url else ''}"
    return _written(matched)


def redact(text: str) -> str:
    """*text* with the secrets removed from each URL in it; what programs and libraries print often has URLs."""
    return _URL.sub(_within, text) if "://" in text else text


def plain(error: BaseException) -> str:
    """What went wrong with a connection, in the words of the system instead of its numbers."""
    if found := _NUMBERED.match(str(error)):
        if _SSL.search(found["words"]):
            return f"{found['place']}: {_SSL.sub('', found['words'])}"
        return f"{found['place']}: {os.strerror(int(found['number'])).lower()}"
    if isinstance(error, TimeoutError) and not str(error):
        return Text("no answer in time")
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _within(matched: re.Match[str]) -> str:
    """A URL inside a sentence: a full stop or bracket after it belongs to the sentence."""
    whole = matched[0]
    end = "" if matched["rest"] else whole[len(whole.rstrip(_SENTENCE_ENDS)) :]
    if end and (shorter := _URL.fullmatch(whole[: -len(end)])) is not None:
        return _written(shorter) + end
    return _written(matched)


def _written(matched: re.Match[str]) -> str:
    scheme, rest = matched["scheme"], matched["rest"]
    if scheme.lower() == "ssh" and _LOGIN.fullmatch(matched["place"]):
        return f"{scheme}://{matched['place']}"
    place = _PLACE.fullmatch(matched["place"].rpartition("@")[2])
    if place is None or "@" in matched["path"].partition("/")[0]:
        return f"{scheme}://…"  # a password can hold a character that ends a host, which then has no known end
    host = f"{place['host']}{place['port'] or ''}"
    if scheme.lower() in _PUSH:
        return f"{scheme}://{host}/…" if matched["path"] or rest else f"{scheme}://{host}"
    path = _printable(matched["path"])
    path = path if len(path) <= _MOST_CHARACTERS else f"{path[:_MOST_CHARACTERS]}…"
    return f"{scheme}://{host}{path}{'?…' if rest else ''}"


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "�" for one in text)
