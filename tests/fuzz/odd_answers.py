"""Odd answers of HTTP servers; each follows from the seed and its number alone."""

import random
from collections.abc import Callable, Mapping

from tests.fuzz.answer import Answer, Draw, End, Head

CHUNK_BYTES = 64 * 1024
DIGITS = ("9" * 20, "9" * 21, "1" * 19, "9" * 400, "9" * 4_300, "9" * 4_301, "9" * 30_000)
NO_NUMBERS = (
    *("-1", "+1", "", " ", "abc", "1e9", "0x10", "1_000", "1.5", "1,2", "\xb2", "\xb9\xb2", "NaN"),
    "18446744073709551616",
)
STATUS_LINES = (
    *(b"HTTP/1.1 %s X" % code for code in (b"000", b"099", b"600", b"999", b"1000", b"-200", b"2e2", b"abc", b"")),
    *(b"HTTP/0.9 200 OK", b"HTTP/9.9 200 OK", b"HTTP/1.0 200 OK", b"HTTP/2 200", b"ICY 200 OK", b"200 OK", b""),
    b"\0\0\0\0",
    *(
        b"HTTP/1.1 200 " + b"a" * 70_000,
        b"HTTP/1.1 200 \xff\xfe",
        b"HTTP/1.1 200",
        b"HTTP/1.1200OK",
        b"SSH-2.0-OpenSSH_9.2",
    ),
)
LOCATIONS = (
    *("", "/", "//", "?", "#", "http://", "http:///x", "http://[", "http://127.0.0.1:99999/"),
    *("http://127.0.0.1:abc/", "http://a..b/"),
    *("ftp://127.0.0.1/x", "file:///etc/passwd", "javascript:1", "data:,x", "http://127.0.0.1:1/", "\\\\host\\x"),
    "http://\xff/",
    *(
        "http://" + "a" * 300 + "/",
        "/" + "a" * 70_000,
        "http://user:secret@127.0.0.1/",
        "http://127.0.0.1/\0",
        " http://127.0.0.1/ ",
    ),
    "https://127.0.0.1:1/",
)


def crc(draw: Draw) -> Answer:
    """A checksum of too many digits, of none, or two of them."""
    head = draw.whole()
    for _ in range(draw.chance.choice((1, 1, 2))):
        head.add("x-oss-hash-crc64ecma", draw.chance.choice(DIGITS + NO_NUMBERS))
    return Answer("", head.raw(), (draw.recording,))


def length(draw: Draw) -> Answer:
    """A Content-Length that lies, is none, or comes twice."""
    size = len(draw.recording)
    lies = (size - 1, size + 1, size * 2, 0, 1, -size, 2**31, 2**63, 2**64, *DIGITS, *NO_NUMBERS)
    head = Head().add("Content-Type", "video/x-flv")
    for _ in range(draw.chance.choice((1, 1, 2))):
        head.add("Content-Length", draw.chance.choice((size, *lies)))
    if draw.chance.random() < 0.2:
        head.add("Transfer-Encoding", "chunked")
    return Answer("", head.raw(), (draw.recording,))


def ranges(draw: Draw) -> Answer:
    """Parts of something else than was asked for."""
    size = len(draw.recording)
    totals = (*DIGITS, *NO_NUMBERS, "*", size, size + 1, 0)
    spans = (
        f"bytes 0-0/{draw.chance.choice(totals)}",
        f"bytes 5-1/{size}",
        f"bytes */{size}",
        "bytes",
        "",
        "lines 0-0/1",
    )
    status = draw.chance.choice(
        (b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 416 Range Not Satisfiable", b"HTTP/1.1 200 OK")
    )
    head = (
        Head(status)
        .add("Content-Range", draw.chance.choice(spans))
        .add("Content-Length", draw.chance.choice((1, size)))
    )
    return Answer("", head.raw(), (draw.recording[:1],))


def headers(draw: Draw) -> Answer:
    """Too many, too long, and what is no header."""
    head = draw.whole()
    odd: Mapping[str, Callable[[], bytes]] = {
        "long": lambda: b"X-Long: " + b"a" * draw.chance.choice((8_000, 65_536, 70_000)) + b"\r\n",
        "many": lambda: b"".join(b"X-%d: y\r\n" % number for number in range(draw.chance.choice((90, 120, 3_000)))),
        "bytes": lambda: b"X-Bytes: \xff\xfe\x80\0\r\n",
        "folded": lambda: b"X-Folded: a\r\n b\r\n\tc\r\n",
        "no colon": lambda: b"nothing\r\n",
        "no name": lambda: b": nothing\r\n",
        "spaces": lambda: b"Content-Length : 5\r\n",
        "newlines": lambda: b"X: y\nZ: z\rW: w\r\n",
        "etag": lambda: b"ETag: " + draw.chance.choice((b"", b'"', b"\xff" * 90, b"e" * 65_000, b'W/"\0"')) + b"\r\n",
        "encoded": lambda: (
            b"Content-Encoding: " + draw.chance.choice((b"gzip", b"br", b"x" * 200, b"deflate, gzip")) + b"\r\n"
        ),
        "cookies": lambda: b"Set-Cookie: a=" + b"b" * 5_000 + b"; Domain=.\r\n",
    }
    line = odd[draw.chance.choice(list(odd))]()
    first, _, rest = head.raw().partition(b"\r\n")
    return Answer("", first + b"\r\n" + line + rest, (draw.recording,))


def statuses(draw: Draw) -> Answer:
    """Codes without the answer that belongs to them, and lines that are no status."""
    codes = (
        *(201, 202, 203, 204, 205, 206, 226, 300, 304, 305, 306, 400, 401, 403, 404, 405, 407, 408, 410, 416),
        *(418, 425, 429),
    )
    line = b"HTTP/1.1 %d X" % draw.chance.choice((*codes, 431, 451, 500, 501, 502, 503, 504, 511, 599))
    head = draw.whole()
    head.status = draw.chance.choice(STATUS_LINES) if draw.chance.random() < 0.3 else line
    head.add(
        "Retry-After", draw.chance.choice(("-1", "0", "9" * 400, "1e999", "tomorrow", "Wed, 21 Oct 2099 07:28:00 GMT"))
    )
    return Answer("", head.raw(), (draw.recording,))


def informs(draw: Draw) -> Answer:
    """Answers before the answer, 1xx, some of them or very many; then the true one, or none."""
    code = draw.chance.choice((b"100", b"101", b"102", b"103", b"199"))
    early = (b"HTTP/1.1 %s Wait\r\n\r\n" % code) * draw.chance.choice((1, 5, 300))
    return Answer("", early + (draw.whole().raw() if draw.chance.random() < 0.6 else b""), (draw.recording,))


def circles(draw: Draw) -> Answer:
    """Elsewhere, which is here again, or nowhere. An empty place is filled in with this very URL."""
    code = draw.chance.choice((b"301", b"302", b"303", b"307", b"308"))
    head = Head(b"HTTP/1.1 %s Elsewhere" % code).add("Content-Length", 0)
    for _ in range(draw.chance.choice((1, 1, 2))):
        head.add("Location", draw.chance.choice(LOCATIONS) or "?again")
    return Answer("", head.raw())


def bodies(draw: Draw) -> Answer:
    """A body that is no recording, or only a part of it; its length is told truly."""
    whole = draw.recording
    pages = (
        *(b"<html><body>Please log in</body></html>", b"", b"\0" * 4_096, b'{"error": "no"}', b"[" * 5_000),
        b"FLV",
        whole[:13],
    )
    at = draw.chance.randrange(len(whole))
    spoiled = (
        whole[:at],
        whole + b"\xff" * 5_000,
        whole[:at] + b"\0" * (len(whole) - at),
        whole[at:],
        whole[:-1] + b"\0",
    )
    found = draw.chance.choice((*pages, *spoiled))
    head = (
        Head()
        .add("Content-Type", draw.chance.choice(("video/x-flv", "text/html", "\xff")))
        .add("Content-Length", len(found))
    )
    return Answer("", head.raw(), (found,))


def endless(draw: Draw) -> Answer:
    """More, and more, without a length, or over the length that was told."""
    head = Head().add("Content-Type", "video/x-flv")
    if draw.chance.random() < 0.5:
        head.add("Content-Length", len(draw.recording))
    piece = draw.chance.choice((draw.recording, b"\0" * CHUNK_BYTES, b"a" * CHUNK_BYTES))
    return Answer("", head.raw(), (piece,), endless=True)


def chunked(draw: Draw) -> Answer:
    """Chunks whose sizes are none."""
    head = Head().add("Transfer-Encoding", draw.chance.choice(("chunked", "chunked, chunked", "gzip, chunked", "x")))
    sizes = (b"-1", b"zz", b"", b"f" * 16, b"f" * 400, b"1;" + b"x" * 70_000, b"0x10", b"10")
    body = (
        draw.chance.choice(sizes)
        + b"\r\n"
        + draw.recording[:16]
        + b"\r\n0\r\n"
        + b"X: y\r\n" * draw.chance.choice((0, 3_000))
    )
    return Answer("", head.raw(), (body,))


def slow(draw: Draw) -> Answer:
    """Late, or drop by drop; after some seconds it ends."""
    raw = draw.whole().raw()
    pause = draw.chance.choice((0.05, 0.3, 1.0))
    drops: list[bytes | float] = []
    for number in range(int(3 / pause)):
        drops += [pause, draw.recording[number : number + 1]]
    if draw.chance.random() < 0.5:
        return Answer("", b"", (draw.chance.choice((0.5, 2.0, 3.5)), raw, draw.recording), to_head=True)
    if draw.chance.random() < 0.5:
        return Answer("", b"", tuple(one for byte in raw[:30] for one in (0.1, bytes([byte]))), "reset", to_head=True)
    return Answer("", raw, tuple(drops), draw.chance.choice(("reset", "close", "hold")))


def resets(draw: Draw) -> Answer:
    """The end comes before it should: nothing at all, half a head, half a body."""
    raw, whole = draw.whole().raw(), draw.recording
    end: End = draw.chance.choice(("reset", "close", "hold"))
    if draw.chance.random() < 0.5:
        return Answer("", raw[: draw.chance.choice((0, 1, 20, len(raw) - 2))], (), end)
    return Answer("", raw, (whole[: draw.chance.randrange(len(whole))],), end)


def junk(draw: Draw) -> Answer:
    """Bytes that are no HTTP."""
    bytes_ = draw.chance.choice(
        (draw.chance.randbytes(300), b"\x16\x03\x01\x02\x00", b"\r\n" * 500, b"HTTP" * 9_000, b"\0" * 9_000)
    )
    return Answer("", bytes_)


def sound(draw: Draw) -> Answer:
    """Without fault."""
    return Answer("", draw.whole().raw(), (draw.recording,))


KINDS: Mapping[str, Callable[[Draw], Answer]] = {
    "crc64": crc,
    "length": length,
    "ranges": ranges,
    "headers": headers,
    "status": statuses,
    "1xx": informs,
    "circles": circles,
    "bodies": bodies,
    "endless": endless,
    "chunked": chunked,
    "slow": slow,
    "resets": resets,
    "no HTTP": junk,
}


def drawn(seed: int, index: int, turn: int, recording: bytes) -> Answer:
    """The answer number *turn* of place *index*; what follows a first one is often sound, so that a download begins."""
    kinds = list(KINDS)
    kind = random.Random(f"{seed} answer {index}").choice(kinds)
    chance = random.Random(f"{seed} answer {index} {turn}")
    if turn % 2 != index % 2 and chance.random() < 0.5:
        return sound(Draw(chance, recording))
    answer = KINDS[kind](Draw(chance, recording))
    return Answer(kind, answer.head, answer.body, answer.end, answer.endless, answer.to_head)
