"""RTMP: what is composed is parsed again, and a server may form, split and spoil its bytes as it likes."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lectern.playout.kernel import Counts
from lectern.playout.rtmp import NotRtmp, amf0, chunks, publish, target
from lectern.playout.rtmp.chunks import Parser, compose
from lectern.playout.rtmp.publish import HANDSHAKE_BYTES, MAX_OWED_BYTES, PublisherProtocol, Step
from lectern.playout.session import (
    PORTION_BYTES,
    TAKEN_S,
    TURN_BYTES,
    VERSION,
    Broken,
    Journal,
    Mark,
    ReceiveBudget,
    Session,
)
from tests.marks import share
from tests.playout.receiver import refused
from tests.waiting import wait_until

BUDGET = settings(max_examples=share(0.5), deadline=None)
PROTOCOL, COMMANDS = 2, 3
WAYS = st.sampled_from([COMMANDS, 5, 63, 64, 70, 319, 320, 400, 65_599])
"""Chunk streams of each of the three sizes of their numbers."""

Body = tuple[int, bytes]
"""Kind and body of a message."""
Noise = tuple[str, int, int, int, tuple[Body, ...]]
"""What else a server does: what, on which chunk stream, a size or time, a form, messages in it."""


@dataclass
class Server:
    """Says messages as RTMP allows: forms of headers, sizes of chunks, one message amid another, one given up."""

    chunk_bytes: int = 128
    last: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Size, kind and time field of what came last on a chunk stream."""

    def message(self, kind: int, body: bytes, *, on: int = COMMANDS, form: int = 0, time: int = 0) -> Iterator[bytes]:
        """Its chunks, each as large as is agreed at its moment; a *form* that is not allowed is replaced by 0."""
        size, before, said = len(body), self.last.get(on), time
        if before is None or (form > 1 and before[:2] != (size, kind)):
            form = 0
        if form == 3 and before is not None:
            said = before[2]
        self.last[on] = size, kind, said
        extended = said.to_bytes(4, "big") if said >= 0xFFFFFF else b""
        whole = min(said, 0xFFFFFF).to_bytes(3, "big") + size.to_bytes(3, "big") + bytes([kind, 1, 0, 0, 0])
        head = _basic(form, on) + whole[: (11, 7, 3, 0)[form]] + extended
        while head:
            part, body = body[: self.chunk_bytes], body[self.chunk_bytes :]
            yield head + part
            head = _basic(3, on) + extended if body else b""

    def whole(self, kind: int, body: bytes, **how: int) -> bytes:
        return b"".join(self.message(kind, body, **how))

    def noise(self, did: Noise) -> bytes:
        """What a server may do beside the conversation; the client must not lose its place."""
        what, on, number, form, inner = did
        if what == "size":
            self.chunk_bytes = 128 + number % 5000
            return self.whole(chunks.SET_CHUNK, self.chunk_bytes.to_bytes(4, "big"), on=PROTOCOL)
        if what == "say":
            return b"".join(self.whole(*one, on=on, form=form, time=number * 9001) for one in inner)
        chunks_of = self.message(chunks.DATA, bytes(number % 9000), on=on, form=form, time=number * 9001)
        begun = next(chunks_of)
        said = b"".join(self.whole(*one, on=PROTOCOL) for one in inner)
        if what == "amid":
            return begun + said + self.noise(("size", PROTOCOL, number // 3, 0, ())) + b"".join(chunks_of)
        given_up = self.whole(chunks.ABORT, on.to_bytes(4, "big"), on=PROTOCOL)
        self.last.pop(on)  # whatever comes next there says all of itself
        return begun + said + given_up


def _basic(form: int, on: int) -> bytes:
    if on < 64:
        return bytes([form << 6 | on])
    wide = 1 if on < 320 else 2
    return bytes([form << 6 | wide - 1]) + (on - 64).to_bytes(wide, "little")


def command(*values: amf0.Value) -> Body:
    return chunks.COMMAND, amf0.encode(*values)


def status(code: str, level: str = "status", words: str = "") -> Body:
    return command("onStatus", 0, None, {"level": level, "code": code, "description": words})


TARGET = target("rtmp://live.example/app/room?token=1")
NONCE = bytes(HANDSHAKE_BYTES - 8)
PLACE = (0, 0, 0, 0, 0, False, 0, 0)


def said(*bodies: Body) -> bytes:
    """What a server sends that says one message after another in its plainest form."""
    return b"".join(Server().whole(*one, on=COMMANDS if one[0] == chunks.COMMAND else PROTOCOL) for one in bodies)


SHAKE = b"\x03" + bytes(range(256)) * 6 + bytes(HANDSHAKE_BYTES)
SIZE = (5000).to_bytes(4, "big")
CONNECTED = [(chunks.WINDOW, SIZE), (chunks.BANDWIDTH, SIZE + b"\x02"), command("_result", 1, {}, {"level": "status"})]
CREATED = [(chunks.CONTROL, b"\0\0\0\0\0\1"), command("_result", 4, None, 1)]
WHOLE, STARTED = SHAKE + said(*CONNECTED, *CREATED), said(status("NetStream.Publish.Start"))
PING = said((chunks.CONTROL, b"\0\x06abcd"))


def live() -> PublisherProtocol:
    session = PublisherProtocol(TARGET, NONCE)
    session.receive(WHOLE)
    session.publish()
    session.receive(STARTED)
    assert session.step is Step.LIVE
    session.take()
    return session


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


LETTERS = "aZ0 é中\0"
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(LETTERS, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(values)
def test_a_value_that_was_written_is_read_again(value: amf0.Value) -> None:
    assert amf0.decode(amf0.encode(value)) == [value]


def test_values_are_as_deep_and_as_many_as_they_may_be() -> None:
    assert [amf0.encode("x" * number)[0] for number in (0xFFFF, 0x10000)] == [2, 12], "a string, and a long one"
    assert amf0.decode(b"\5" * 9, 9) == [None] * 9
    assert amf0.decode(b"\x0a\0\0\0\1" * amf0.MAX_DEPTH + b"\5")
    for data in (b"\5" * 10, b"\x0a\0\0\0\1" * (amf0.MAX_DEPTH + 1) + b"\5"):
        with pytest.raises(NotRtmp, match="nested too deep, or too many"):
            amf0.decode(data, 9 if data[0] == 5 else amf0.MAX_VALUES)


TIMES = st.one_of(st.integers(0, 2**33), st.sampled_from([0xFFFFFE, 0xFFFFFF, 0x1000000, 0xFFFFFFFF]))


@given(
    st.sampled_from([chunks.SOUND, chunks.PICTURE, chunks.COMMAND]),
    TIMES,
    st.integers(0, 2**32 - 1),
    st.binary(max_size=2000),
    st.integers(2, 63),
    st.lists(st.integers(0, 5000)),
)
def test_a_message_that_was_composed_is_parsed_again_however_it_is_split(
    kind: int, time: int, stream: int, body: bytes, chunk_stream: int, cuts: list[int]
) -> None:
    parser = Parser()
    data = compose(kind, time, stream, body, chunk_stream=chunk_stream, chunk_bytes=128)
    found = [one for part in split(data, cuts) for one in parser.feed(part)]
    assert found == [(kind, time & 0xFFFFFFFF, stream, body)]


def test_a_message_that_is_given_up_is_forgotten_and_the_others_that_are_begun_go_on() -> None:
    server, parser = Server(), Parser()
    given_up, kept = (server.message(chunks.DATA, bytes([on]) * 300, on=on) for on in (5, 6))
    parts = [next(given_up), next(kept), server.whole(chunks.ACKNOWLEDGED, (6).to_bytes(4, "big"), on=PROTOCOL)]
    parts.append(server.whole(chunks.ABORT, (5).to_bytes(4, "big"), on=PROTOCOL))
    parts += [*kept, server.whole(chunks.DATA, b"anew" * 100, on=5)]
    found = [one.body for one in parser.feed(b"".join(parts)) if one.kind == chunks.DATA]
    assert found == [b"\6" * 300, b"anew" * 100]


def test_what_came_is_acknowledged_after_each_window() -> None:
    session = live()
    for _ in range(600):
        session.receive(said((chunks.CONTROL, b"\0\0\0\0\0\1")))
    acknowledged = [one for one in Parser().feed(session.take()) if one.kind == chunks.ACKNOWLEDGED]
    assert len(acknowledged) == (len(WHOLE) + len(STARTED) + 600 * 18) // 5000


def test_a_server_that_asks_for_more_answers_than_it_takes_is_given_up() -> None:
    session = live()
    session.owed = bytes(MAX_OWED_BYTES - len(PING))
    session.receive(PING)
    with pytest.raises(NotRtmp, match="more answers"):
        session.receive(PING)


# A whole session, whatever form a server gives its bytes.


PINGS = st.binary(min_size=4, max_size=4).map(lambda data: (chunks.CONTROL, b"\0\x06" + data))
WINDOWS = st.integers(1024, 9000).map(lambda size: (chunks.WINDOW, size.to_bytes(4, "big")))
BANDWIDTHS = st.integers(1, 2**31).map(lambda size: (chunks.BANDWIDTH, size.to_bytes(4, "big") + b"\2"))
REMARKS = st.sampled_from(
    [
        status("NetStream.Play.Reset"),
        command("onBWDone", 0, None),
        command("_result", 99, None, {"code": "NetConnection.Connect.Success"}),
        (chunks.AMF3_COMMAND, b"\0" + amf0.encode("onFCPublish", 0, None)),
        (chunks.CONTROL, b"\0\0\0\0\0\1"),
        (chunks.ACKNOWLEDGED, bytes(4)),
        (22, bytes(300)),
    ]
)
BODIES = st.lists(st.one_of(PINGS, WINDOWS, BANDWIDTHS, REMARKS), max_size=4).map(tuple)
NOISE = st.lists(
    st.tuples(
        st.sampled_from(["say", "size", "amid", "aborted"]), WAYS, st.integers(1, 20_000), st.integers(0, 3), BODIES
    ),
    max_size=4,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, bytes, list[Body]]:
    """What a server sends until it is asked to publish, and from then on; and what it must be answered."""
    server, asked = Server(), list[Body]()

    def noise() -> bytes:
        did = draw(NOISE)
        asked.extend(one for each in did if each[0] != "size" for one in each[4])
        return b"".join(server.noise(one) for one in did)

    before = SHAKE + noise() + server.whole(*command("_result", 1, {}, {"level": "status"})) + noise()
    before += server.whole(*command("_result", 4, None, 1), form=draw(st.integers(0, 3))) + noise()
    after = noise() + server.whole(*status("NetStream.Publish.Start"), form=draw(st.integers(0, 3))) + noise()
    return before, after, [one for body in asked for one in _answers(body)]


def _answers(asked: Body) -> Iterator[Body]:
    kind, body = asked
    if kind == chunks.CONTROL and body[:2] == b"\0\x06":
        yield chunks.CONTROL, b"\0\x07" + body[2:]
    elif kind == chunks.BANDWIDTH:
        yield chunks.WINDOW, body[:4]


CUTS = st.lists(st.integers(0, 100_000), max_size=12)


@BUDGET
@given(conversations(), CUTS, CUTS, st.booleans())
def test_a_session_comes_on_air_whatever_form_a_server_gives_its_bytes(
    conversation: tuple[bytes, bytes, list[Body]], cuts: list[int], more_cuts: list[int], is_handed_over: bool
) -> None:
    """All that asks for an answer has its own, in order; what is received is acknowledged, never more than came."""
    before, after, answers = conversation
    session, owed = PublisherProtocol(TARGET, NONCE), b""
    for part in split(before, cuts):
        session.receive(part)
        owed += session.take()
    assert str(session.step) == Step.READY
    session.publish()
    for part in split(after, more_cuts):
        session.receive(part)
        owed += session.take()
        if is_handed_over and session.step is Step.LIVE:
            session = PublisherProtocol.load(TARGET, json.loads(json.dumps(session.save())))
    assert session.step is Step.LIVE
    found = Parser().feed(owed[1 + 2 * HANDSHAKE_BYTES :])
    assert [(one.kind, one.body) for one in found if one.kind in (chunks.CONTROL, chunks.WINDOW)] == answers
    assert owed[: 1 + 2 * HANDSHAKE_BYTES] == b"\x03" + bytes(HANDSHAKE_BYTES) + SHAKE[1 : 1 + HANDSHAKE_BYTES]
    commands = [amf0.decode(one.body) for one in found if one.kind == chunks.COMMAND]
    words = ["connect", "releaseStream", "FCPublish", "createStream", "publish"]  # those of ffmpeg and OBS
    assert [one[:2] for one in commands] == [[word, number] for number, word in enumerate(words, 1)]
    assert {"app": "app", "tcUrl": "rtmp://live.example:1935/app"}.items() <= commands[0][2].items()  # type: ignore[union-attr]
    assert commands[-1][2:] == [None, "room?token=1", "live"]
    assert [one.stream for one in found if one.kind == chunks.COMMAND] == [0, 0, 0, 0, 1]
    acknowledged = [int.from_bytes(one.body, "big") for one in found if one.kind == chunks.ACKNOWLEDGED]
    assert acknowledged == sorted(set(acknowledged))
    assert all(one <= len(before) + len(after) for one in acknowledged)


def outcome(before: bytes, after: bytes, cuts: list[int]) -> str:
    """How far a session comes, and whether it ends in an error."""
    session = PublisherProtocol(TARGET, NONCE)
    try:
        for part in split(before, cuts):
            session.receive(part)
        if session.step is Step.READY:
            session.publish()
        for part in split(after, cuts):
            session.receive(part)
    except NotRtmp:
        return "over"
    assert len(session.owed) <= MAX_OWED_BYTES
    return session.step


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """The same bytes with some changed, missing, said twice, or others between them."""
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        instead = draw(st.one_of(st.binary(max_size=12), st.just(data[at:to] * 2)))
        data = data[:at] + instead + data[to:]
    return data


@BUDGET
@given(st.data(), conversations(), CUTS)
def test_a_spoiled_session_ends_alike_however_its_bytes_are_split(
    data: st.DataObject, conversation: tuple[bytes, bytes, list[Body]], cuts: list[int]
) -> None:
    before, after, _ = conversation
    before, after = data.draw(spoiled(before)), data.draw(spoiled(after))
    assert outcome(before, after, cuts) == outcome(before, after, [])


ACKNOWLEDGEMENT = b"".join(Server().message(chunks.ACKNOWLEDGED, bytes(4)))
FLOODS = {
    "acknowledgements": ACKNOWLEDGEMENT,
    "tiny chunks": b"\xc3",
    "sound": b"".join(Server().message(chunks.SOUND, bytes(100))),
    "nulls": b"".join(Server().message(chunks.SOUND, bytes([5]) * 10_000)),
}


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "before"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_server_that_floods_costs_little_before_it_is_cut(flood: bytes, is_live: bool) -> None:
    """Its chunks are what takes time: of empty ones a CPU second takes 0.3 MB."""
    publisher, intake = live(), ReceiveBudget()
    publisher.step = Step.LIVE if is_live else Step.CONNECTING
    publisher.receive(ACKNOWLEDGEMENT)
    taken, data, bound = 0, flood * (2_000_000 // len(flood)), 64 * 1024 if is_live else 1024 * 1024

    def flooded() -> None:
        nonlocal taken
        for at in range(0, len(data), PORTION_BYTES):
            intake.take(publisher, data[at : at + PORTION_BYTES])
            taken += PORTION_BYTES

    with pytest.raises(NotRtmp, match="the server sends too much"):
        flooded()
    assert taken <= bound
    assert publisher.chunks <= bound / ReceiveBudget.CHUNK_BYTES


def test_a_server_may_say_for_ever_as_much_as_live_servers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledgement or ping now and then, ten a second, is no flood, whatever they come to in hours."""
    publisher, intake, now = live(), ReceiveBudget(), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(10_000):
        intake.take(publisher, ACKNOWLEDGEMENT)
        now += 0.1


def test_a_session_is_read_a_little_at_a_time_so_that_the_others_have_their_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.settimeout(0)
    session = Session(TARGET, ours, dict, lambda: True)
    session.publisher.step = Step.CONNECTING
    theirs.sendall(ACKNOWLEDGEMENT * 4000)
    turns = taken = 0
    while taken < 4000 * len(ACKNOWLEDGEMENT):
        session.receive()
        assert session.publisher._taken - taken <= TURN_BYTES
        turns, taken = turns + 1, session.publisher._taken
    assert turns >= 4000 * len(ACKNOWLEDGEMENT) / TURN_BYTES
    theirs.close()
    with pytest.raises(Broken, match="the server closed"):
        wait_until(session.receive, description="the end is told")
    session.close(politely=False)


def test_a_session_that_is_closed_leaves_no_journal_open() -> None:
    """A worker makes a session for each break of a connection, for weeks; each batch is written, to no disk."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        journal = Journal()
        session = Session(TARGET, ours, dict, lambda: True, journal=journal)
        assert str(Path(f"/proc/self/fd/{journal.file}").readlink()).startswith("/memfd:")
        session.close(politely=False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(journal.file)


@contextmanager
def on_air() -> Iterator[tuple[Session, socket.socket]]:
    """A session that has just come on air, and its server's socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            ours.settimeout(0)
            session = Session(TARGET, ours, dict, lambda: True, journal=Journal())
            for came, step in ((WHOLE, Step.READY), (STARTED, Step.LIVE)):
                theirs.sendall(came)
                wait_until(lambda: session.receive() or session.step is step, description=step)  # noqa: B023
                session.flush()
                if step is Step.READY:
                    session.publish()
            session.went_live()
            yield session, theirs
            session.close(politely=False)


def test_a_ping_that_was_answered_in_the_last_batch_is_not_answered_by_the_next_worker() -> None:
    with on_air() as (first, theirs):
        first.batch([], PLACE)
        for number in (1, 2):
            theirs.sendall(PING)
            wait_until(lambda: first.receive() or len(first.publisher.owed) == number * len(PING), description="a pong")  # noqa: B023
        first.batch([b"media"], PLACE)
        assert first.journal is not None
        then, *_ = Session.adopt(TARGET, first.connection, Journal(os.dup(first.journal.file)), dict, lambda: True)
        assert then.publisher.owed == b""
        assert then.journal is not None
        then.journal.close()


def test_a_server_that_acknowledges_nothing_is_given_up_though_the_kernel_takes_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a firewall that has forgotten the connection."""
    with on_air() as (session, _):
        began, counted = time.monotonic(), Counts(written=500, acknowledged=0, read=0, waits=True)
        monkeypatch.setattr("lectern.playout.kernel.counts", lambda _: counted)
        session.watch(began)
        session.watch(began + TAKEN_S)
        with pytest.raises(Broken, match="took nothing for 5 s"):
            session.watch(began + TAKEN_S + 0.1)
        counted = counted._replace(waits=False)
        session.watch(began + TAKEN_S + 0.2)


def test_whoever_opens_a_journal_next_reads_what_was_written_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was written by a third one; of notes, those for so many bytes of the server, of this version."""
    journal, body = Journal(), b""
    assert (journal.last(), journal.notes(5)) == (None, None)
    mark, found = Mark(0, 0, 0, 77, 13, 0, 0, False, 400, 400, 0, 0.5), dict[str, Any]()
    for number in range(12):
        for _ in range(1 + number % 3):
            body = bytes([number]) * (50 - number)
            mark, found = mark._replace(offset=mark.offset + 1, size=len(body)), {"number": mark.offset, "taken": 5}
            journal.write(mark, body)
            journal.note(found)
        journal = Journal(journal.file)
        assert journal.last() == (mark, body)
        assert (journal.notes(5), journal.notes(6)) == ({**found, "version": VERSION}, None)
    monkeypatch.setattr("lectern.playout.session.VERSION", VERSION + 1)
    assert journal.notes(5) is None
    journal.close()


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (chunks.SET_CHUNK, (0x8000007F).to_bytes(4, "big"), "chunks of 127 bytes"),
        (chunks.SET_CHUNK, bytes(3), "chunks of 0 bytes"),
        (chunks.BANDWIDTH, bytes(3), "no number"),
        (chunks.WINDOW, bytes(3), "no number"),
        (chunks.COMMAND, b"\x20", "unknown kind 32"),
        (chunks.DATA, bytes(16 * 1024 + 1), "16385 bytes"),
        (*status("NetStream.Publish.BadName", "error", "already publishing"), "BadName: already publishing"),
        (*command("close"), "closes the session"),
    ],
)
def test_a_server_that_refuses_or_misbehaves_ends_the_session_in_words(kind: int, body: bytes, words: str) -> None:
    with pytest.raises(NotRtmp, match=words):
        live().receive(Server().whole(kind, body, on=PROTOCOL))


@pytest.mark.parametrize(("kind", "size"), [(chunks.WINDOW, 4), (chunks.BANDWIDTH, 4), (chunks.DATA, 16 * 1024)])
def test_what_is_as_large_as_it_may_be_is_taken(kind: int, size: int) -> None:
    session = live()
    session.receive(Server().whole(kind, bytes(size), on=PROTOCOL))
    assert session.step is Step.LIVE


def test_a_chunk_size_has_31_bits() -> None:
    server, session = Server(), live()
    session.receive(server.whole(chunks.SET_CHUNK, (0x80001000).to_bytes(4, "big"), on=PROTOCOL))
    server.chunk_bytes = 0x1000
    session.receive(server.whole(chunks.CONTROL, b"\0\6abcd" + bytes(500)))
    assert Parser().feed(session.take()) == [(chunks.CONTROL, 0, 0, b"\0\7abcd")]


@pytest.mark.parametrize(("size", "streams"), [(1024, range(4, 20)), (1, range(4, 66))], ids=["begun", "whole"])
def test_messages_on_many_chunk_streams_take_no_more_memory_than_one(size: int, streams: range) -> None:
    """All of it is written down for the next worker each time something is received."""
    session, *said = live(), *(next(Server().message(chunks.DATA, bytes(size), on=on)) for on in (*streams, 70))
    session.receive(b"".join(said[:-1]))
    with pytest.raises(NotRtmp, match=r"begun, and do not end|more than 64 chunk streams"):
        session.receive(said[-1])


# Where a class is pushed to, and with which login.


URLS = [
    ("rtmp://h/live/room", 1935, "live", "room"),
    ("rtmp://h:1936/live/room?token=a/b", 1936, "live/room?token=a", "b"),
    ("rtmp://h/live/room?token=ab", 1935, "live", "room?token=ab"),
    ("rtmp://h/live/room.flv", 1935, "live", "room"),
    ("rtmp://h/live/room.mp4", 1935, "live", "mp4:room.mp4"),
    ("rtmp://h/live/room.f4v", 1935, "live", "mp4:room.f4v"),
    ("rtmp://h/live/flv:room.flv", 1935, "live", "flv:room"),
    ("rtmp://h/a/b/c", 1935, "a/b", "c"),
    ("rtmp://h/a/b/c/d", 1935, "a/b", "c/d"),
    ("rtmp://h/a/mp4:b/c", 1935, "a", "mp4:b/c"),
    ("rtmp://h/a/b/mp4:c", 1935, "a/b", "mp4:c"),
    ("rtmp://h/ondemand/x/y", 1935, "ondemand", "x/y"),
    ("rtmp://h/a/b?slist=c/d&e=f", 1935, "a/b?slist=c/d&e=f", "c/d"),
    ("rtmp://h/a/room with=blanks", 1935, "a", "room"),
    ("rtmp://h/onlyapp", 1935, "onlyapp", ""),
]


@pytest.mark.parametrize(("url", "port", "app", "stream"), URLS)
def test_app_and_stream_are_what_ffmpeg_makes_of_the_url(url: str, port: int, app: str, stream: str) -> None:
    found = target(url)
    assert (found.host, found.port, found.app, found.stream) == ("h", port, app, stream)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h/a/b", "neither"),
        ("rtmp://user:secret@/a/b", "no host"),
        ("rtmp://user:secret@h:x/a/b", "port"),
        ("rtmp:///a/b", "no host"),
        ("rtmp://h:0/a/b", "port"),
        ("rtmp://h:65536/a/b", "port"),
    ],
)
def test_a_url_that_is_not_spoken_is_refused_in_words_that_hold_no_secret(url: str, words: str) -> None:
    with pytest.raises(NotRtmp, match=words) as caught:
        target(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("login", "user", "password"),
    [("", "", ""), ("teacher:hunter2@", "teacher", "hunter2"), ("teacher@", "teacher", ""), ("a:b:c@d@", "a", "b:c@d")],
)
def test_user_and_password_are_kept_apart_from_what_is_shown_and_sent(login: str, user: str, password: str) -> None:
    found = target(f"rtmp://{login}h/live/room")
    assert (found.user, found.password, found.host, found.tc_url) == (user, password, "h", "rtmp://h:1935/live")
    assert not password or password not in f"{found} {found.shown}"


@pytest.mark.parametrize("method", ["adobe", "llnw"])
def test_a_login_is_answered_as_it_is_asked_for(method: str) -> None:
    """Two refusals, each of which says what the next connection must carry; then the server lets the class in."""
    found = target("rtmp://teacher:hunter2@h/live/room")
    query = ""
    for _ in range(2):
        refusal = refused(f"live{query}", method, "teacher", "hunter2")
        assert refusal is not None
        query = publish.wanted(replace(found, query=query), refusal, "01234567").query
        assert "hunter2" not in query
    assert refused(f"live{query}", method, "teacher", "hunter2") is None


@pytest.mark.parametrize(
    ("user", "refusal", "query", "words"),
    [
        (
            "teacher:hunter2@",
            "authmod=adobe : ?reason=authfailed&user=teacher",
            "?user=teacher&response=x",
            "does not take",
        ),
        ("teacher:hunter2@", "authmod=llnw : ?reason=nosuchuser", "?authmod=llnw&user=teacher", "does not take"),
        ("teacher:hunter2@", "authmod=llnw : ?reason=needauth&nonce=x", "?user=teacher&response=x", "does not take"),
        ("teacher:hunter2@", "code=403 need auth; authmod=adobe", "?authmod=adobe&user=teacher", "nothing to answer"),
        ("", "code=403 need auth; authmod=adobe", "", "has none"),
        ("teacher@", "code=403 need auth; authmod=adobe", "", "has none"),
    ],
)
def test_a_login_not_taken_ends_without_its_secret(user: str, refusal: str, query: str, words: str) -> None:
    with pytest.raises(NotRtmp, match=words) as caught:
        publish.wanted(replace(target(f"rtmp://{user}h/live/room"), query=query), refusal, "01234567")
    assert type(caught.value) is NotRtmp
    assert "teacher" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_it_is_the_connection_that_asks_for_a_login_and_nothing_else() -> None:
    for number, error in ((1, publish.LoginWanted), (4, NotRtmp)):
        session = PublisherProtocol(target("rtmp://teacher:hunter2@h/app/room"), NONCE)
        session.receive(SHAKE if number == 1 else SHAKE + said(*CONNECTED))
        with pytest.raises(NotRtmp) as caught:
            session.receive(said(command("_error", number, None, {"description": "code=403 need auth; authmod=adobe"})))
        assert type(caught.value) is error


def test_a_session_is_live_once_it_has_asked_to_publish_and_the_server_says_start() -> None:
    session, steps = PublisherProtocol(TARGET, NONCE), []
    start, other = STARTED, said(status("NetStream.Play.Reset"))
    for came in (SHAKE, start, said(*CONNECTED), start, said(*CREATED), start):
        session.receive(came)
        steps.append(session.step)
    assert Step.LIVE not in steps
    session.publish()
    for came in (other, start):
        session.receive(came)
        steps.append(session.step)
    assert steps[-2:] == [Step.PUBLISHING, Step.LIVE]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"taken", "the server refuses: X: taken"),
        ("推流地址已过期".encode(), "推流地址已过期"),
        ("推流地址已过期".encode("gbk"), "�"),
        (b"\xff\xfe", "�"),
        (b"a\0b\r\nc", "a b c"),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        (b"of teacher with hunter2", "of … with …"),
        (b"x" * 900, "x" * 200),
    ],
)
def test_the_words_of_a_server_are_cleaned_where_they_come_in(sent: bytes, words: str) -> None:
    """They reach logs, terminals, the database, JSON and the page: one text that is no UTF-8 silenced a streamer."""
    session = PublisherProtocol(target("rtmp://teacher:hunter2@h/app/room"), NONCE)
    session.receive(SHAKE)
    fields: amf0.Value = {"level": "error", "code": "X", "description": sent.decode("utf-8", "surrogateescape")}
    with pytest.raises(NotRtmp) as caught:
        session.receive(said(command("_error", 1, None, fields)))
    why = str(caught.value)
    assert words in why
    assert why.isprintable()
    assert len(why) <= 330
    json.dumps(why, ensure_ascii=False).encode()


def test_a_server_that_does_not_know_the_commands_of_a_flash_encoder_is_published_to() -> None:
    """Many answer releaseStream and FCPublish with an error; a connection and a stream are all that is needed."""
    session = PublisherProtocol(target("rtmp://h/app/room"), NONCE)
    session.receive(SHAKE)
    for word, number, value in (("_result", 1, {}), ("_error", 2, None), ("_error", 3, None), ("_result", 4, 1.0)):
        session.receive(said(command(word, number, None, value)))
    assert session.step is publish.Step.READY


@pytest.mark.parametrize("path", ["live/key?token=secret", "live/a/key", "live?token=secret/key", "key", ""])
def test_a_target_is_shown_without_its_stream_key(path: str) -> None:
    assert target(f"rtmps://h/{path}").shown == "rtmps://h:443/…"
    assert target(f"rtmps://[::1]/{path}").shown == "rtmps://[::1]:443/…"
