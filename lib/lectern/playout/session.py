"""One RTMP session over one connection, with its journal."""

import asyncio
import json
import os
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from lectern.playout import kernel, net
from lectern.playout.rtmp import NotRtmp, Target
from lectern.playout.rtmp.publish import HANDSHAKE_BYTES, LoginWanted, PublisherProtocol, Step
from lectern.playout.sentences import sentence

# The journal of one session: what is about to be sent, so that the next worker can send the rest if this one dies. A
# batch is written into the slot that does not hold the last batch, its body first, then its mark; only then it is
# sent. The kernel knows how many bytes of the session were ever sent, and so how many of the batch: the worker may
# die at any instruction. Notes hold what changes seldom, in two slots of their own.
VERSION = 1
"""Version of the format; a worker that finds another version begins a new session."""

_REGION = 1 << 26
"""Distance of the slots in the file, which has holes: only what is written takes memory."""
_HEAD = struct.Struct("=IQI")
"""Checksum of what follows, a number that grows with each write, size of the body."""
_MARK = struct.Struct("=QIBIQqq?qqQd")

Notes = Callable[[], dict[str, Any]]
Place = tuple[int, int, int, int, int, bool, int, int]
"""*source* to *last_ms* of a mark."""


class Mark(NamedTuple):
    """A batch, and the state of its sender after it.

    It begins at *offset* in the session's bytes and has *size* bytes. *source* to *last_ms*, where its last message is,
    are those of Muxer.place(). Up to its end, *paid* of all bytes that were ever owed to the server are sent. *sent_at*
    is by time.monotonic.
    """

    offset: int
    size: int
    source: int
    file: int
    place: int
    shift_ms: int
    from_ms: int
    awaits_key: bool
    wrap: int
    last_ms: int
    paid: int
    sent_at: float


class Journal:
    """Four slots in a file in memory; the next worker opens it by its descriptor."""

    def __init__(self, file: int | None = None) -> None:
        self.file = kernel.memory_file("lectern-journal") if file is None else file
        self._numbers = [0, 0]

    def write(self, mark: Mark, body: bytes) -> None:
        """Write down a batch that is about to be sent."""
        self._numbers[0] += 1
        slot = self._numbers[0] % 2
        os.pwrite(self.file, body, (2 + slot) * _REGION)
        self._head(slot * _REGION, 0, _MARK.pack(*mark))

    def note(self, notes: dict[str, Any]) -> None:
        """Record what changes seldom; `taken` is the number of the server's bytes that the notes take into account."""
        text = json.dumps({**notes, "version": VERSION}).encode()
        self._numbers[1] += 1
        self._head((4 + self._numbers[1] % 2) * _REGION, 1, text)

    def last(self) -> tuple[Mark, bytes] | None:
        """The last batch that was written whole, with its mark; None if there is none."""
        slots = [self._read(slot * _REGION) for slot in (0, 1)]
        number, packed = max(slots)
        if not number:
            return None
        self._numbers[0] = number
        mark = Mark(*_MARK.unpack(packed))
        return mark, os.pread(self.file, mark.size, (2 + number % 2) * _REGION)

    def notes(self, taken: int) -> dict[str, Any] | None:
        """The last notes for *taken* bytes read from the server, in this version; None if there are none."""
        for number, text in sorted((self._read((4 + slot) * _REGION) for slot in (0, 1)), reverse=True):
            if number:
                self._numbers[1] = max(self._numbers[1], number)
                notes: dict[str, Any] = json.loads(text)
                if notes.get("version") == VERSION and notes.get("taken") == taken:
                    return notes
        return None

    def close(self) -> None:
        """Close the file; its memory is freed once no other process has it open."""
        os.close(self.file)

    def _head(self, at: int, kind: int, data: bytes) -> None:
        rest = _HEAD.pack(0, self._numbers[kind], len(data))[4:] + data
        os.pwrite(self.file, struct.pack("=I", zlib.crc32(rest)) + rest, at)

    def _read(self, at: int) -> tuple[int, bytes]:
        head = os.pread(self.file, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return 0, b""
        checksum, number, size = _HEAD.unpack(head)
        data = os.pread(self.file, min(size, _REGION), at + _HEAD.size)
        return (number, data) if zlib.crc32(head[4:] + data) == checksum else (0, b"")


SET_UP_S = 10.0
"""Bound from the connection to ready, and from publish to its answer."""
TAKEN_S = 5.0
"""Seconds without an acknowledged byte after which a peer is given up."""
CLOSE_S = 10.0
"""Seconds that a peer has to take the last of a class, and to close the connection."""

TURN_BYTES = 16 * 1024
"""What is taken of a server's bytes before the other classes have their turn, counted as `ReceiveBudget` counts."""
PORTION_BYTES = 1024
"""Bytes that are parsed at once; in chunks of one byte these take 4 ms."""


class Broken(Exception):
    """The session is over; the text says why. A new connection may carry *login*, for which the server asks."""

    def __init__(self, why: str, login: str | None = None) -> None:
        super().__init__(why)
        self.login = login


class ReceiveBudget:
    """Bounds what a server may send: it answers some commands, and has little to say to a class on air.

    A chunk, and each portion, counts for `CHUNK_BYTES` more than its bytes, because an empty one takes time, too.
    """

    SET_UP_BYTES, LIVE_BYTES, LIVE_S = 1024 * 1024, 64 * 1024, 10.0
    CHUNK_BYTES = 16

    def __init__(self) -> None:
        self._sum, self._until = 0, 0.0

    def take(self, publisher: PublisherProtocol, data: bytes) -> int:
        """Give *data* to *publisher*; returns how many bytes it counts for. Raises NotRtmp, also if it is too much."""
        before = publisher.chunks
        publisher.receive(data)
        counted = len(data) + (publisher.chunks - before + 1) * self.CHUNK_BYTES
        is_live = publisher.step is Step.LIVE
        if is_live and (now := time.monotonic()) > self._until:
            self._sum, self._until = 0, now + self.LIVE_S
        self._sum += counted
        if self._sum > (self.LIVE_BYTES if is_live else self.SET_UP_BYTES):
            bound = sentence("64 KB within {live_s:g} s", live_s=self.LIVE_S)
            bound = bound if is_live else sentence("1 MB before the class is published")
            said = sentence("the server sends too much: more than {bound}, or thousands of tiny messages", bound=bound)
            raise NotRtmp(said)
        return counted


class Session:
    """Bytes between a `PublisherProtocol` and a connection, while *held*; *notes* is what else its journal keeps."""

    def __init__(
        self,
        target: Target,
        connection: socket.socket,
        notes: Notes,
        held: Callable[[], bool],
        journal: Journal | None = None,
    ) -> None:
        self.publisher = PublisherProtocol(target, os.urandom(HANDSHAKE_BYTES - 8))
        self.connection = connection
        self.journal = journal
        self.written = 0
        self._notes, self._held = notes, held
        self._rest = memoryview(b"")
        self._owed = self._paid = 0
        self._intake = ReceiveBudget()
        self._deadline: float | None = time.monotonic() + SET_UP_S
        self._acknowledged, self._acknowledged_at = -1, time.monotonic()
        if journal is None and kernel.HAND_OVER and not isinstance(connection, ssl.SSLSocket):
            self.journal = Journal()

    @classmethod
    def adopt(
        cls, target: Target, connection: socket.socket, journal: Journal, notes: Notes, held: Callable[[], bool]
    ) -> tuple["Session", Mark, dict[str, Any]]:
        """Go on with the session of a dead worker; raises Broken if that cannot be done to the byte."""
        counted = kernel.counts(connection)
        last = journal.last()
        saved = journal.notes(counted.read) if counted is not None else None
        if counted is None or last is None or saved is None:
            raise Broken(sentence("the session's journal does not tell how to go on"))
        mark, body = last
        sent = counted.written - mark.offset
        if not 0 <= sent <= len(body) or len(body) < mark.size:
            raise Broken(sentence("the session's journal does not fit what was sent"))
        self = cls(target, connection, notes, held, journal=journal)
        self.publisher = PublisherProtocol.load(target, saved["publisher"])
        self.written, self._rest, self._deadline = counted.written, memoryview(body)[sent:], None
        self._owed, self._paid = saved["owed"], mark.paid
        self.publisher.owed = self.publisher.owed[len(self.publisher.owed) - max(0, self._owed - self._paid) :]
        return self, mark, saved

    @property
    def step(self) -> Step:
        """How far the session is."""
        return self.publisher.step

    @property
    def offset(self) -> int:
        """The number of the session's bytes so far, including those that the kernel has not taken yet."""
        return self.written + len(self._rest)

    @property
    def is_clear(self) -> bool:
        """Whether the kernel has taken everything that was to be sent."""
        return not self._rest

    def receive(self) -> bool:
        """Take what has come, in a turn's bounds; returns whether more waits unseen by the kernel. Raises Broken."""
        left = TURN_BYTES
        try:
            while left > 0 and (taken := self._receive()):
                left -= taken
            return isinstance(self.connection, ssl.SSLSocket) and self.connection.pending() > 0
        except NotRtmp as error:
            raise Broken(str(error), error.query if isinstance(error, LoginWanted) else None) from error
        except OSError as error:
            raise Broken(net.words(error)) from error

    def publish(self) -> None:
        """Ask to publish; `receive` takes the answer. Raises Broken."""
        self.publisher.publish()
        self._deadline = time.monotonic() + SET_UP_S
        self.flush()

    def went_live(self) -> None:
        """Begin to keep the journal, because media come next."""
        self._deadline = None
        self._owed = len(self.publisher.owed)
        counted = kernel.counts(self.connection) if self.journal else None
        if self.journal and (counted is None or counted.written != self.written):
            self.journal.close()
            self.journal = None  # this kernel counts otherwise than we do: the next worker makes a new session
        self.note()

    def note(self) -> None:
        """Record the session's new state: something was received, or another file is sent."""
        if self.journal is not None:
            saved = self.publisher.save()
            self.journal.note({**self._notes(), "publisher": saved, "owed": self._owed, "taken": saved["window"][1]})

    def batch(self, media: list[bytes], place: Place) -> None:
        """Send *media* and the answers owed to the server; everything before must be with the kernel. Raises Broken."""
        owed = self.publisher.take()
        self._paid += len(owed)
        body = b"".join([owed, *media])
        if self.journal is not None:
            self.journal.write(Mark(self.written, len(body), *place, self._paid, time.monotonic()), body)
        self._rest = memoryview(body)
        self.flush()

    def flush(self) -> None:
        """Send the rest of the last batch; before media, also the answers owed to the server. Raises Broken."""
        if self.step is not Step.LIVE and self.publisher.owed:
            self._rest = memoryview(bytes(self._rest) + self.publisher.take())
        if not self._rest or not self._held():  # the host may have been frozen since its tick began
            return
        try:
            sent = net.send(self.connection, self._rest)
        except OSError as error:
            raise Broken(net.words(error)) from error
        self._rest = self._rest[sent:]
        self.written += sent

    def watch(self, now: float) -> None:
        """Raise Broken if the peer has not answered, or has taken nothing for too long."""
        if self._deadline is not None and now > self._deadline and self.step is not Step.READY:
            its = {"set_up_s": SET_UP_S, "step": self.step}
            raise Broken(sentence("the server did not answer within {set_up_s:g} s, at the step {step}", **its))
        counted = kernel.counts(self.connection)
        acknowledged = counted.acknowledged if counted else self.written
        waits = counted.waits if counted else bool(self._rest)
        if acknowledged != self._acknowledged or not waits:
            self._acknowledged, self._acknowledged_at = acknowledged, now
        elif now - self._acknowledged_at > TAKEN_S and self.step is Step.LIVE:
            raise Broken(sentence("the server took nothing for {taken_s:g} s", taken_s=TAKEN_S))

    def close(self, *, politely: bool) -> None:
        """Close the session with a goodbye, or by a reset, which also drops what the kernel has not sent yet."""
        is_waited_for = False
        with suppress(Broken, OSError):  # it was broken already
            if not politely:
                kernel.reset(self.connection)
            else:
                if not self._rest:  # behind half a batch, nothing can be said
                    self.publisher.close()
                    self._rest = memoryview(self.publisher.take())
                    self.flush()
                self.connection.shutdown(socket.SHUT_WR)
                is_waited_for = True
        if is_waited_for:
            closing = asyncio.get_running_loop().create_task(_closed(self.connection))
            _closing.add(closing)
            closing.add_done_callback(_closing.discard)
        else:
            self.connection.close()
        if self.journal is not None:
            self.journal.close()

    def _receive(self) -> int:
        """Take one portion; returns what it counts for, 0 if nothing is left. Raises Broken, NotRtmp, OSError."""
        is_kept = self.journal is not None and self.step is Step.LIVE
        data = net.receive(self.connection, PORTION_BYTES, socket.MSG_PEEK if is_kept else 0)
        if data is None:
            return 0
        if not data:
            raise Broken(sentence("the server closed the connection"))
        before, owed = self.step, len(self.publisher.owed)
        counted = self._intake.take(self.publisher, data)
        if before is Step.LIVE:
            self._owed += len(self.publisher.owed) - owed
        if is_kept:
            self.note()  # before it is taken from the kernel: the next worker may have to read it again
            self.connection.recv(len(data))
        return counted


_closing: set[asyncio.Task[None]] = set()


async def _closed(connection: socket.socket) -> None:
    """Close *connection* when its peer has closed it, after CLOSE_S at most.

    If it were closed with something unread, or something came after it, the kernel would reset it, and what is not sent
    yet would be lost.
    """
    with connection, suppress(OSError):
        async with asyncio.timeout(CLOSE_S):
            while net.receive(connection, PORTION_BYTES) != b"":
                await net.until_ready(connection)
