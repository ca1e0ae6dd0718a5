"""A whole session against whatever bytes a server may send: in any form, in any portions, spoiled in any way."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lectern.playout import worker
from lectern.playout.rtmp import NotRtmp, amf0, chunks, target
from lectern.playout.rtmp.chunks import ChunkMessage, Parser
from lectern.playout.rtmp.publish import HANDSHAKE_BYTES, MAX_OWED_BYTES, PublisherProtocol, Step
from lectern.playout.session import PORTION_BYTES, TURN_BYTES, Broken, ReceiveBudget, Session
from tests.marks import share
from tests.playout.test_rtmp import NONCE, SHAKE, TARGET, split
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


def status(code: str) -> Body:
    return command("onStatus", 0, None, {"level": "status", "code": code})


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


def said(owed: bytes) -> list[ChunkMessage]:
    """What a client sent after its handshake."""
    return Parser().feed(owed[1 + 2 * HANDSHAKE_BYTES :])


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
    found = said(owed)
    assert [(one.kind, one.body) for one in found if one.kind in (chunks.CONTROL, chunks.WINDOW)] == answers
    commands = [amf0.decode(one.body)[0] for one in found if one.kind == chunks.COMMAND]
    assert commands == ["connect", "releaseStream", "FCPublish", "createStream", "publish"]
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


def live() -> PublisherProtocol:
    session = PublisherProtocol(TARGET, NONCE)
    session.step = Step.LIVE
    session.take()
    return session


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


async def test_a_server_that_floods_is_refused_when_its_push_url_is_tried() -> None:
    """Its class may be booked for the next day; the classes on air are sent by the same loop."""

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SHAKE)
        while not writer.is_closing():
            writer.write(ACKNOWLEDGEMENT * 10_000)
            await writer.drain()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    refused = await asyncio.wait_for(worker.connect_refusal(target(f"rtmp://127.0.0.1:{port}/live/x"), None), 60)
    server.close()
    assert refused is not None
    assert refused.startswith("the server sends too much: more than 1 MB")


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
    session = Session(TARGET, ours, dict)
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


def test_messages_that_are_begun_on_many_chunk_streams_take_no_more_memory_than_one() -> None:
    """All of it is written down for the next worker each time something is received."""
    begun = b"".join(next(Server().message(chunks.DATA, bytes(1000), on=on)) for on in range(3, 60))
    with pytest.raises(NotRtmp, match="begun, and do not end"):
        live().receive(begun)


def test_a_chunk_size_has_31_bits_and_a_window_names_a_number() -> None:
    server, session = Server(), live()
    session.receive(server.whole(chunks.SET_CHUNK, (0x80001000).to_bytes(4, "big"), on=PROTOCOL))
    server.chunk_bytes = 0x1000
    session.receive(server.whole(chunks.CONTROL, b"\0\6abcd" + bytes(500)))
    assert Parser().feed(session.take()) == [(chunks.CONTROL, 0, 0, b"\0\7abcd")]
    for kind, body, words in [
        (chunks.SET_CHUNK, b"\x80\0\0\0", "chunks of 0 bytes"),
        (chunks.BANDWIDTH, b"", "no number"),
        (chunks.WINDOW, b"\1", "no number"),
    ]:
        with pytest.raises(NotRtmp, match=words):
            live().receive(Server().whole(kind, body, on=PROTOCOL))
