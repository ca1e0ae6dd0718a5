"""Values that no producer should send, and JSON that no library would write."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FAR_S = 100_000.0
"""A class that begins after so long is prepared, and never aired while the test lasts."""

SOON_S = 1_500.0
"""A class that begins within the hour has its push URL tried."""


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in the JSON as they are."""

    text: bytes


@dataclass(frozen=True)
class Pairs:
    """An object whose keys may come more than once."""

    items: Sequence[tuple[Any, Any]]


def written(value: object) -> bytes:
    """*value* as JSON, with all that is raw in it."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        value = Pairs(list(value.items()))
    if isinstance(value, Pairs):
        return b"{" + b", ".join(written(key) + b": " + written(one) for key, one in value.items) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(written(one) for one in value) + b"]"
    return json.dumps(value).encode()


def is_readable(body: bytes) -> bool:
    """Whether *body* is JSON that can be written again: then a class_id in it can be read."""
    if len(body) > 64 * 1024:
        return False
    try:
        found = json.loads(body.decode(), parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


BAD_BYTES = b"\xff|\xfe\xff|\xc0\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82|\x80|\xf8\x88\x80\x80\x80".split(b"|")
"""Bytes that are no UTF-8."""

WORDS: tuple[object, ...] = (
    *("", "ORDER", "order ", "dead_letter", "order_result", "alarm", "a" * 300, "é", "\0", None, 0, []),
)
DEPTHS = (90, 190, 210, 450, 990, 1_010, 1_100, 5_000, 30_000)

SURROGATES = tuple(
    Raw(text)
    for text in (
        *(rb'"\ud800"', rb'"\udfff"', rb'"c-\ud83d-1"', rb'"\udc00\ud800"', rb'"http://127.0.0.1/\ud800.flv"'),
        *(rb'"rtmp://127.0.0.1/live/\udcff"', rb'"720P\ud800"'),
    )
)
NULS = ("\0", "c-1\0", "\0c-1", "http://127.0.0.1/\0.flv", "rtmp://127.0.0.1/live/\0", "720P\0", "a\0b\0c", "\0" * 300)
NUMBERS: tuple[object, ...] = (
    *(0, -1, True, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 1.5, 1e300),
    *(Raw(text) for text in (b"-0", b"-0.0", b"1e999", b"-1e999", b"1E400", b"1e-400", b"0.1e1", b"1e2", b"1e18")),
    *(Raw(text) for text in (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"1.", b".5", b"0x10", b"1_000", b"--1")),
    *(Raw(b"9" * digits) for digits in (19, 20, 309, 310, 400, 4_299, 4_301, 20_000)),
    Raw(b"-" + b"9" * 400),
    Raw(b"0." + b"1" * 400),
    Raw(b"1e" + b"9" * 30),
)
TYPES: tuple[object, ...] = (
    *(None, False, 0, "", "x", [], {}, [[]], ["c-1"], [None] * 50, {"class_id": "c-1"}, {"": ""}, 1.5, " "),
    *("true", "null", "\u202e", "\ufeff", "é\u0301", "𝒳", "\x7f\x1b[31m"),
)
NAMES: tuple[str, ...] = (
    *("", ".", "..", "...", "a/b", "../../etc/passwd", "a\\b", "a'b", 'a"b', "a`b", "$(id)", "a;b", "a b"),
    *("a\nb", "a\tb"),
    *("--help", "-rf", "%s", "%", "{0}", "{record_id}", "{name}", "*", "?", "[a]", "a,b", "a:b.c-d_e", ":", "::", "-"),
    *("é", "١٢", "ＡＢ", "𝒳", "a\u202eb", "nul", "con", "NULL", "' or 1=1 --", "<b>", "&amp;", "\r\nX: y", "a" * 249),
    *("a" * 250, "a" * 251, ":" * 250, "." * 251, "é" * 250, "a" * 4_000),
)
RESOLUTIONS: tuple[object, ...] = (
    *("", "240", "240p", "720", "720p", "720P ", " 720P", "1080", "1080I", "4K", "0", "-240P", "720P720P"),
    *("²40P", "٧٢٠P"),
    *("７２０P", "720P\n", "P", "1e3P", "9" * 400, "9" * 400 + "P", "720P/../..", "{resolution}", 240, 240.0, 720),
    *(-240, 10**400),
    *(True, None, [], ["720P"], {"720P": "720P"}),
)
HOSTS: tuple[str, ...] = (
    *("a..b", ".", "..", ".a", "a.", "-a", "a-", "a" * 63 + ".b", "a" * 64 + ".b", "a" * 254, ".".join(["a" * 60] * 5)),
    *("", " ", "%00", "%", "a%00b", "[", "]", "[]", "[::1", "::1]", "[::1]", "[::g]", "[v1.x]", "[::1%25eth0]", "::1"),
    *("127.1", "0", "2130706433", "0x7f.1", "127.0.0.256", "1.2.3.4.5", "xn--a", "xn--", "xn--\u20ac"),
    *("é.example", "㎏.example"),
    *("İ.example", "ﬀ.example", "a\u200db", "a\\b", "a^b", "user:secret@127.0.0.1", "a@b@c", "@", ":@", "a'b"),
    *("{0}", "localhost"),
)
PORTS: tuple[str, ...] = (
    *("", ":", ":0", ":1", ":65535", ":65536", ":99999", ":-1", ":abc", ":1e3", ":+80", ": 80", ":80:80", ":0x50"),
    *(":٨٠", ":²", ":" + "9" * 400, ":" + "0" * 5_000, ":80/", ":%38%30"),
)
SCHEMES: tuple[str, ...] = (
    *("http", "https", "rtmp", "rtmps", "HTTP", "RTMP", "rTmP", "file", "ftp", "javascript", "", "1http"),
    *("http+unix", "ht tp"),
)
PATHS: tuple[str, ...] = (
    *("", "/", "//", "/live/x", "/live/../../x", "/%2e%2e/x", "/%", "/%zz", "/\\", "/?", "/#", "/a?b=c&d='\"", "/a b"),
    *("/" + "a" * 1_900, "/" + "a" * 2_100, "/;id", "/$(id)", "/é", "/\ud7ff", "/x\r\nHost: y"),
    *("/{record_id}.flv", "/-"),
)
TIMES: tuple[object, ...] = (
    *(True, False, 0, -1, 1, 0.1, -0.0, 3.99e9, 4e9, 4e9 + 1, 1e10, 1e13, 1.7e12, 2**31, 2**32, 2**63, 10**400, 1e308),
    *(None, "", "0", "1764010800", "1764010800.5", "1e9", " 1764010800 ", "١٧٦٤٠١٠٨٠٠", "2025-11-24T19:00:00Z"),
    *("nan", "inf"),
    *("tomorrow", [], [1764010800], {}, Raw(b"NaN"), Raw(b"1e999"), Raw(b"9" * 4_301)),
)


def url(chance: random.Random, *schemes: str) -> str:
    """An odd URL, more often than not one of *schemes*."""
    scheme = chance.choice(schemes) if chance.random() < 0.7 else chance.choice(SCHEMES)
    host = chance.choice(HOSTS) if chance.random() < 0.6 else "127.0.0.1"
    slashes = "://" if chance.random() < 0.95 else chance.choice((":/", ":", "//", ""))
    return scheme + slashes + host + chance.choice(PORTS) + chance.choice(PATHS)


def long_text(chance: random.Random, letters: Sequence[str] = ("a", "é", "𝒳", '"', "\\", "\n", "%")) -> str:
    """A text that makes a message nearly, or more than, 64 KiB."""
    letter = chance.choice(letters)
    size = chance.choice((30_000, 64_000, 65_000, 65_536, 66_000, 131_072))
    return letter * (size // len(letter.encode()))


def brackets(chance: random.Random) -> bytes:
    """Lists or objects in each other, closed or not."""
    depth = chance.choice(DEPTHS)
    opened, closed = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"class_id":', b"}]")))
    inside = chance.choice((b"", b"1", b'"x"', b"null"))
    return opened * depth + inside + (closed * depth if chance.random() < 0.7 else b"")


Pick = Callable[[random.Random], object]


def of(values: Sequence[object]) -> Pick:
    """Draws one of *values*."""
    return lambda chance: chance.choice(values)
