"""How URLs are written for people: without their secrets, which are user, password, query and stream key."""

import os
import re

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


def shown(url: str) -> str:
    """*url* as scheme, host, port and path, with ``?…`` in place of a query; a push URL without path and query."""
    matched = _URL.match(url)
    if matched is None:
        return f"{_printable(url.partition('?')[0])[:_MOST_CHARACTERS]}{'?…' if '?' in url else ''}"
    return _written(matched)


def masked(text: str) -> str:
    """*text* with the secrets removed from each URL in it; what programs and libraries print often has URLs."""
    return _URL.sub(_within, text) if "://" in text else text


def plain(error: BaseException) -> str:
    """What went wrong with a connection, in the words of the system instead of its numbers."""
    if found := _NUMBERED.match(str(error)):
        if _SSL.search(found["words"]):
            return f"{found['place']}: {_SSL.sub('', found['words'])}"
        return f"{found['place']}: {os.strerror(int(found['number'])).lower()}"
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)  # those are asyncio's words
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
