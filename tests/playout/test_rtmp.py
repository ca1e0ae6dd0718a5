"""The pure core of RTMP: what is composed is parsed again, and a server may split and spoil its bytes as it likes."""

import json
import subprocess
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.playout.rtmp import NotRtmp, amf0, chunks, publish, target
from lectern.playout.rtmp.chunks import Parser, compose
from lectern.playout.rtmp.publish import HANDSHAKE_BYTES, PublisherProtocol, Step
from tests.playout.receiver import HOST, Receiver, refused
from tests.waiting import wait_until

TIMES = st.one_of(st.integers(0, 2**33), st.sampled_from([0xFFFFFE, 0xFFFFFF, 0x1000000, 0xFFFFFFFF]))
TARGET = target("rtmp://live.example/app/room?token=1")
NONCE = bytes(HANDSHAKE_BYTES - 8)

LETTERS = "aZ0 é中\0"
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(LETTERS, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def result(number: int, *rest: amf0.Value) -> bytes:
    return compose(chunks.COMMAND, 0, 0, amf0.encode("_result", number, *rest), chunk_stream=3, chunk_bytes=128)


def status(level: str, code: str, words: str = "") -> bytes:
    fields = {"level": level, "code": code, "description": words}
    return compose(chunks.COMMAND, 0, 1, amf0.encode("onStatus", 0, None, fields), chunk_stream=5, chunk_bytes=128)


def control(kind: int, body: bytes) -> bytes:
    return compose(kind, 0, 0, body, chunk_stream=2, chunk_bytes=128)


SHAKE = b"\x03" + bytes(range(256)) * 6 + bytes(HANDSHAKE_BYTES)
CONNECTED = (
    control(chunks.WINDOW, (5000).to_bytes(4, "big"))
    + control(chunks.BANDWIDTH, (5000).to_bytes(4, "big") + b"\x02")
    + result(1, {"fmsVer": "FMS/3,0"}, {"level": "status", "code": "NetConnection.Connect.Success"})
)
CREATED = control(chunks.CONTROL, b"\0\0\0\0\0\1") + result(4, None, 1)
STARTED = status("status", "NetStream.Publish.Start")
PING = control(chunks.CONTROL, b"\0\x06abcd")
WHOLE = SHAKE + CONNECTED + CREATED


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


@given(values)
def test_a_value_that_was_written_is_read_again(value: amf0.Value) -> None:
    assert amf0.decode(amf0.encode(value)) == [value]


@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_not_rtmp(data: bytes) -> None:
    with suppress(NotRtmp):
        amf0.decode(data)


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


@pytest.mark.parametrize("time", [0xFFFFFE, 0xFFFFFF, 0x1000000])
def test_a_time_beyond_three_bytes_is_said_again_in_each_chunk(time: int) -> None:
    body = bytes(10_000)
    data = compose(chunks.PICTURE, time, 1, body, chunk_stream=6)
    continuations = 2
    extended = 4 * (1 + continuations) if time >= 0xFFFFFF else 0
    assert len(data) == 12 + len(body) + continuations + extended
    parser = Parser()
    parser.feed(control(chunks.SET_CHUNK, (4096).to_bytes(4, "big")))
    assert parser.feed(data)[0].timestamp == time


def test_a_session_is_published_in_the_words_that_ffmpeg_and_obs_use() -> None:
    session = PublisherProtocol(TARGET, NONCE)
    parser = Parser()
    assert session.take() == b"\x03" + bytes(HANDSHAKE_BYTES)
    session.receive(SHAKE)
    owed = session.take()
    assert owed[:HANDSHAKE_BYTES] == SHAKE[1 : HANDSHAKE_BYTES + 1]
    (connect,) = parser.feed(owed[HANDSHAKE_BYTES:])
    name, number, about = amf0.decode(connect.body)
    assert (name, number) == ("connect", 1)
    assert isinstance(about, dict)
    assert about["app"] == "app"
    assert about["tcUrl"] == "rtmp://live.example:1935/app"
    session.receive(CONNECTED + CREATED)
    said = [amf0.decode(one.body) for one in parser.feed(session.take()) if one.kind == chunks.COMMAND]
    assert [one[0] for one in said] == ["releaseStream", "FCPublish", "createStream"]
    session.publish()
    (publish,) = parser.feed(session.take())
    assert amf0.decode(publish.body) == ["publish", 5, None, "room?token=1", "live"]
    assert publish.stream == 1
    assert session.step is Step.PUBLISHING


def test_what_came_is_acknowledged_after_each_window() -> None:
    session = live()
    for _ in range(600):
        session.receive(control(chunks.CONTROL, b"\0\0\0\0\0\1"))
    acknowledged = [one for one in Parser().feed(session.take()) if one.kind == chunks.ACKNOWLEDGED]
    assert len(acknowledged) == (len(WHOLE) + len(STARTED) + 600 * 18) // 5000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (status("error", "NetStream.Publish.BadName", "already publishing"), "BadName: already publishing"),
        (control(chunks.SET_CHUNK, (1).to_bytes(4, "big")), "chunks of 1 bytes"),
        (control(chunks.SET_CHUNK, b""), "chunks of 0 bytes"),
        (compose(chunks.COMMAND, 0, 0, b"\x20", chunk_stream=3), "unknown kind 32"),
        ((b"\x03\0\0\0\xff\xff\xff\x14\0\0\0\0"), "16777215 bytes"),
        (PING * 5000, "more answers"),
    ],
)
def test_a_server_that_refuses_or_misbehaves_ends_the_session_in_words(data: bytes, words: str) -> None:
    with pytest.raises(NotRtmp, match=words):
        live().receive(data)


def test_what_a_server_says_of_an_app_and_its_address_are_shown_as_they_are() -> None:
    session = PublisherProtocol(TARGET, NONCE)
    session.receive(SHAKE)
    fields = {"level": "error", "code": "NetConnection.Connect.Rejected", "description": "no such app"}
    body = amf0.encode("_error", 1, None, fields)
    with pytest.raises(NotRtmp, match=r"NetConnection\.Connect\.Rejected: no such app"):
        session.receive(compose(chunks.COMMAND, 0, 0, body, chunk_stream=3, chunk_bytes=128))
    assert target("rtmp://[::1]:1936/live/room").tc_url == "rtmp://[::1]:1936/live"


@given(st.binary(max_size=4000))
def test_random_bytes_raise_nothing_but_not_rtmp(data: bytes) -> None:
    session = live()
    with suppress(NotRtmp):
        session.receive(data)
        assert session.step is Step.LIVE


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
        ("rtmpt://h/a/b", "neither"),
        ("rtmp://user:secret@/a/b", "no host"),
        ("rtmp://user:secret@h:x/a/b", "port"),
        ("rtmp:///a/b", "no host"),
        ("rtmp://h:99999/a/b", "port"),
        ("rtmp://h:x/a/b", "port"),
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
        query = publish.wanted(found, refusal, query, "01234567").query
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
        publish.wanted(target(f"rtmp://{user}h/live/room"), refusal, query, "01234567")
    assert type(caught.value) is NotRtmp
    assert "teacher" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"taken", "taken"),
        ("推流地址已过期".encode(), "推流地址已过期"),
        ("推流地址已过期".encode("gbk"), "�"),
        (b"\xff\xfe", "�"),
        (b"a\0b\r\nc", "a b c"),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07end", "red end"),
        (b"of teacher with hunter2", "of … with …"),
        (b"x" * 900, "x" * 200),
    ],
)
def test_the_words_of_a_server_are_cleaned_where_they_come_in(said: bytes, words: str) -> None:
    """They reach logs, terminals, the database, JSON and the page: one text that is no UTF-8 silenced a streamer."""
    session = PublisherProtocol(target("rtmp://teacher:hunter2@h/app/room"), NONCE)
    session.receive(SHAKE)
    fields: amf0.Value = {"level": "error", "code": "X", "description": said.decode("utf-8", "surrogateescape")}
    with pytest.raises(NotRtmp) as caught:
        session.receive(compose(20, 0, 0, amf0.encode("_error", 1, None, fields), chunk_stream=3, chunk_bytes=128))
    why = str(caught.value)
    assert words in why
    assert why.isprintable()
    assert len(why) <= 330
    json.dumps(why, ensure_ascii=False).encode()


@pytest.mark.parametrize("path", ["live/key?token=secret", "live/a/key", "live?token=secret/key", "key", ""])
def test_a_target_is_shown_without_its_stream_key(path: str) -> None:
    assert target(f"rtmps://h/{path}").shown == "rtmps://h:443/…"


SOUND = ("-f", "lavfi", "-i", "sine=duration=0.1", "-c:a", "aac", "-f", "flv")


@pytest.mark.parametrize("path", [url.split("/", 3)[3] for url, *_ in URLS])
def test_ffmpeg_publishes_to_the_same_place(path: str, tmp_path: Path) -> None:
    with Receiver() as receiver:
        receiver.strict = False
        url = f"rtmp://{HOST}:{receiver.port}/{path}"
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *SOUND, url], timeout=60, capture_output=True, check=False)
        wait_until(lambda: receiver.sessions and receiver.sessions[0].published is not None, description=path)
        (session,) = receiver.sessions
    found = target(url)
    assert (session.connect["app"], session.connect["tcUrl"]) == (found.app, found.tc_url)
    assert session.published == found.stream
