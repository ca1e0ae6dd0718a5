"""Messages as chunks: composed with full headers always, parsed within bounds."""

import base64
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

from lectern.playout.rtmp import NotRtmp
from lectern.playout.sentences import sentence

CHUNK_BYTES = 4096
"""Size of the chunks that we send; no larger, because servers reserve a buffer of this size for each message."""

SET_CHUNK, ABORT, ACKNOWLEDGED, CONTROL, WINDOW, BANDWIDTH = 1, 2, 3, 4, 5, 6
SOUND, PICTURE, DATA, AMF3_COMMAND, COMMAND = 8, 9, 18, 17, 20

MIN_CHUNK_BYTES = 128
"""Least chunk size that a server may ask for: the protocol's first one; less would only slow the session down."""

MAX_MESSAGE_BYTES = 16 * 1024
"""Greatest size of a server's message, and of all that it has begun: commands have a few hundred bytes."""

_MAX_CHUNK_STREAMS = 64
_EXTENDED = 0xFFFFFF
_HEAD_BYTES = (11, 7, 3, 0)


class ChunkMessage(NamedTuple):
    """One message: its kind, time in milliseconds, message stream and body."""

    kind: int
    timestamp: int
    stream: int
    body: bytes


def compose(
    kind: int, timestamp: int, stream: int, body: bytes, *, chunk_stream: int, chunk_bytes: int = CHUNK_BYTES
) -> bytes:
    """The bytes of one message, whose first chunk has a full header, so they depend on no earlier message.

    The parameters are the fields of that header. *timestamp* is taken modulo 2**32, as in the protocol. *chunk_stream*
    is 2 to 63.
    """
    timestamp &= 0xFFFFFFFF
    size = len(body)
    extended = timestamp.to_bytes(4, "big") if timestamp >= _EXTENDED else b""
    head = (
        (chunk_stream << 48 | min(timestamp, _EXTENDED) << 24 | size).to_bytes(7, "big")
        + bytes([kind])
        + stream.to_bytes(4, "little")
        + extended
    )
    if size <= chunk_bytes:
        return head + body
    parts = [head, body[:chunk_bytes]]
    goes_on = bytes([0xC0 | chunk_stream]) + extended  # each chunk repeats the extended timestamp
    for at in range(chunk_bytes, size, chunk_bytes):
        parts += (goes_on, body[at : at + chunk_bytes])
    return b"".join(parts)


@dataclass(slots=True)
class _Chunks:
    """What is known of one chunk stream: later headers leave out what has not changed."""

    timestamp: int = 0
    delta: int = 0
    size: int = 0
    kind: int = 0
    stream: int = 0
    extended: bool = False
    body: bytearray = field(default_factory=bytearray)


class _Head(NamedTuple):
    """A chunk's header: *end* is where its body begins."""

    number: int
    form: int
    fields: bytes
    time: int
    extended: bool
    end: int


class Parser:
    """Takes a peer's bytes in any portions; gives its messages, of *most_bytes* at most, as those of a server are."""

    def __init__(self, most_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.count = 0
        """Number of chunks that were taken: parsing costs as much for an empty chunk as for a large one."""
        self._most_bytes, self._chunk_bytes = most_bytes, 128
        self._rest = b""
        self._streams: dict[int, _Chunks] = {}

    def feed(self, data: bytes) -> list[ChunkMessage]:
        """The messages that *data* completes; raises NotRtmp if it violates the protocol."""
        self._rest += data
        messages = []
        at = 0
        while True:
            end, message = self._chunk(at)
            if end == at:
                break
            at = end
            self.count += 1
            if message is not None:
                self._obey(message)
                messages.append(message)
        self._rest = self._rest[at:]
        return messages

    def save(self) -> dict[str, Any]:
        """The parser's whole state, as JSON; a parser that loads it goes on at the next byte."""
        streams = {str(number): [*astuple(chunks)[:-1], _text(chunks.body)] for number, chunks in self._streams.items()}
        return {"chunk_bytes": self._chunk_bytes, "rest": _text(self._rest), "streams": streams}

    @classmethod
    def load(cls, saved: dict[str, Any]) -> "Parser":
        """The parser with the state that was saved."""
        parser = cls()
        parser._chunk_bytes, parser._rest = saved["chunk_bytes"], base64.b64decode(saved["rest"])
        for number, (*fields, body) in saved["streams"].items():
            parser._streams[int(number)] = known = _Chunks(*fields)
            known.body += base64.b64decode(body)
        return parser

    def _chunk(self, at: int) -> tuple[int, ChunkMessage | None]:
        """Where the chunk at *at* ends, and the message that it completes; *at* itself if bytes are missing."""
        head = self._head(at)
        if head is None:
            return at, None
        known = self._streams.get(head.number, _Chunks())
        size = int.from_bytes(head.fields[3:6], "big") if head.form < 2 else known.size
        most = self._most_bytes
        if size > most:
            raise NotRtmp(sentence("a message of {size} bytes, which is more than {most}", size=size, most=most))
        end = head.end + min(self._chunk_bytes, size - (len(known.body) if head.form == 3 else 0))
        if len(self._rest) < end:
            return at, None
        self._note(head, known)
        is_first = not known.body
        known.body += self._rest[head.end : end]
        if len(known.body) < known.size:
            if is_first and sum(chunks.size for chunks in self._streams.values() if chunks.body) > most:
                raise NotRtmp(sentence("messages of more than {most} bytes that are begun, and do not end", most=most))
            return end, None
        body, known.body = bytes(known.body), bytearray()
        return end, ChunkMessage(known.kind, known.timestamp, known.stream, body)

    def _head(self, at: int) -> _Head | None:
        data = self._rest
        if len(data) <= at:
            return None
        number, form = data[at] & 0x3F, data[at] >> 6
        at += 1
        if number < 2:
            wide = number + 1
            number, at = 64 + int.from_bytes(data[at : at + wide], "little"), at + wide
        fields = data[at : at + _HEAD_BYTES[form]]
        at += _HEAD_BYTES[form]
        known = self._streams.get(number)
        extended = fields[:3] == b"\xff\xff\xff" if form < 3 else known is not None and known.extended
        end = at + 4 if extended else at
        if len(data) < end:
            return None
        time = data[at:end] if extended else fields[:3]
        return _Head(number, form, fields, int.from_bytes(time, "big"), extended, end)

    def _note(self, head: _Head, known: _Chunks) -> None:
        if head.number not in self._streams and len(self._streams) >= _MAX_CHUNK_STREAMS:
            raise NotRtmp(sentence("more than {most} chunk streams", most=_MAX_CHUNK_STREAMS))
        self._streams[head.number] = known
        known.extended = head.extended
        if head.form < 3:
            known.body.clear()
        if head.form < 2:
            known.size, known.kind = int.from_bytes(head.fields[3:6], "big"), head.fields[6]
        if head.form == 0:
            known.stream, known.timestamp = int.from_bytes(head.fields[7:], "little"), 0
        if not known.body:
            if head.form < 3 or head.extended:
                known.delta = head.time
            known.timestamp = known.timestamp + known.delta & 0xFFFFFFFF

    def _obey(self, message: ChunkMessage) -> None:
        number = int.from_bytes(message.body[:4], "big")
        if message.kind == SET_CHUNK:
            size = number & 0x7FFFFFFF  # the first bit has no meaning, and must be ignored
            if len(message.body) < 4 or size < MIN_CHUNK_BYTES:
                raise NotRtmp(
                    sentence("chunks of {size} bytes, which is less than {least}", size=size, least=MIN_CHUNK_BYTES)
                )
            self._chunk_bytes = min(size, self._most_bytes)
        elif message.kind == ABORT and number in self._streams:
            self._streams[number].body.clear()


def _text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()
