"""A publisher's side of one RTMP session, as a pure state machine: bytes in, bytes and decisions out."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from lectern.playout.rtmp import NotRtmp, Target, amf0, chunks
from lectern.playout.rtmp.chunks import ChunkMessage, Parser, compose
from lectern.playout.sentences import cleaned, sentence

ADOBE, LIMELIGHT = "authmod=adobe", "authmod=llnw"
_COUNT = "00000001"
"""How often a nonce is used: always the first time."""


class LoginWanted(NotRtmp):
    """The server wants a login; the next connection must carry *query*."""

    def __init__(self, query: str) -> None:
        super().__init__("the server asks for a login")
        self.query = query


def wanted(target: Target, refusal: str, nonce: str) -> LoginWanted:
    """What the connection after a *refusal* of the one to *target* must carry; *nonce* is random.

    Raises NotRtmp in words that name neither user nor password if there is nothing that would be taken.
    """
    if not target.user or not target.password:
        raise NotRtmp(sentence("the server asks for a user and password, and the push URL has none"))
    if "reason=authfailed" in refusal or "reason=nosuchuser" in refusal or "&response=" in target.query:
        raise NotRtmp(sentence("the server does not take the user and password of the push URL"))
    method = ADOBE if ADOBE in refusal else LIMELIGHT
    _, is_challenge, rest = refusal.partition("?reason=needauth")
    if is_challenge:
        asked = dict(field.partition("=")[::2] for field in rest.partition(" ")[0].split("&"))
        theirs, opaque = asked.get("nonce", ""), asked.get("opaque", "")
        if method == ADOBE:
            secret = _base64(target.user + asked.get("salt", "") + target.password)
            response = _base64(secret + (opaque or asked.get("challenge", "")) + nonce)
            answer = f"&challenge={nonce}&response={response}" + (f"&opaque={opaque}" if opaque else "")
        else:
            place = target.app if "/" in target.app else f"{target.app}/_definst_"
            user, publish = _hex(f"{target.user}:live:{target.password}"), _hex(f"publish:/{place}")
            response = _hex(f"{user}:{theirs}:{_COUNT}:{nonce}:auth:{publish}")
            answer = f"&nonce={theirs}&cnonce={nonce}&nc={_COUNT}&response={response}"
        return LoginWanted(f"?{method}&user={target.user}{answer}")
    if target.query:
        raise NotRtmp(sentence("the server asks for a login again, and gives nothing to answer"))
    return LoginWanted(f"?{method}&user={target.user}")


def _md5(text: str) -> "hashlib._Hash":
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False)  # what these servers speak


def _base64(text: str) -> str:
    return base64.b64encode(_md5(text).digest()).decode()


def _hex(text: str) -> str:
    return _md5(text).hexdigest()


HANDSHAKE_BYTES = 1536
MAX_OWED_BYTES = 64 * 1024
"""Bytes of unsent answers above which the session ends, because the server takes none."""
MAX_VALUES = 1000
"""Greatest number of values in a server's command; an answer has about ten."""

_CONNECT, _RELEASE, _FC_PUBLISH, _CREATE, _PUBLISH, _FC_UNPUBLISH, _DELETE = range(1, 8)
_COMMANDS, _PROTOCOL, _SOUND, _DATA, _PICTURE = 3, 2, 4, 5, 6
_STREAM_OF = {chunks.SOUND: _SOUND, chunks.PICTURE: _PICTURE, chunks.DATA: _DATA}
_PING, _PONG = b"\x00\x06", b"\x00\x07"


class Step(StrEnum):
    """How far a session is."""

    SHAKING = "handshake"
    CONNECTING = "connect"
    READY = "ready"
    PUBLISHING = "publish"
    LIVE = "live"


class PublisherProtocol:
    """Drives a session to `READY`, after `publish` to `LIVE`; `owed` is what must be sent meanwhile."""

    def __init__(self, target: Target, nonce: bytes) -> None:
        self.step = Step.SHAKING
        self.is_connected = False
        self.owed = b"\x03" + bytes(8) + nonce
        self._target = target
        self._shake: bytes = b""
        self._parser = Parser()
        self._stream = 0
        self._window = self._taken = self._told = 0

    @property
    def chunks(self) -> int:
        """Number of chunks that the server has sent."""
        return self._parser.count

    def take(self) -> bytes:
        """The bytes that must be sent now; they are not owed any more."""
        owed, self.owed = self.owed, b""
        return owed

    def receive(self, data: bytes) -> None:
        """Take the server's next bytes; `step` and `owed` say what follows. Raises NotRtmp."""
        self._taken += len(data)
        if self.step is Step.SHAKING:
            data = self._shaken(data)
        for message in self._parser.feed(data):
            self._handle(message)
        if self._window and self._taken - self._told >= self._window:
            self._told = self._taken
            self._control(chunks.ACKNOWLEDGED, (self._taken & 0xFFFFFFFF).to_bytes(4, "big"))
        if len(self.owed) > MAX_OWED_BYTES:
            raise NotRtmp(sentence("the server asks for more answers than it takes"))

    def publish(self) -> None:
        """Ask to publish, once `READY`."""
        self.step = Step.PUBLISHING
        self._command("publish", _PUBLISH, None, self._target.stream, "live", stream=self._stream)

    def close(self) -> None:
        """Queue a goodbye, if anything was published or asked to be."""
        if self.step in (Step.PUBLISHING, Step.LIVE):
            self._command("FCUnpublish", _FC_UNPUBLISH, None, self._target.stream)
            self._command("deleteStream", _DELETE, None, self._stream)

    def media(self, kind: int, timestamp: int, body: bytes) -> bytes:
        """The bytes of one message of sound, picture or data."""
        return compose(kind, timestamp, self._stream, body, chunk_stream=_STREAM_OF[kind])

    def save(self) -> dict[str, Any]:
        """The session's whole state, as JSON; its step is not part of it."""
        return {
            "stream": self._stream,
            "parser": self._parser.save(),
            "window": [self._window, self._taken, self._told],
            "owed": base64.b64encode(self.owed).decode(),
        }

    @classmethod
    def load(cls, target: Target, saved: dict[str, Any]) -> "PublisherProtocol":
        """The session that was saved, which was `LIVE`."""
        session = cls(target, bytes(HANDSHAKE_BYTES - 8))
        session.step, session.owed = Step.LIVE, base64.b64decode(saved["owed"])
        session._stream, session._parser = saved["stream"], Parser.load(saved["parser"])
        session._window, session._taken, session._told = saved["window"]
        return session

    def _shaken(self, data: bytes) -> bytes:
        """Do the simple handshake; returns the bytes that follow it."""
        self._shake += data
        if self._shake[:1] not in (b"", b"\x03"):
            raise NotRtmp(sentence("the server does not answer as RTMP does"))
        if len(self._shake) < 1 + 2 * HANDSHAKE_BYTES:
            return b""
        self.owed += self._shake[1 : 1 + HANDSHAKE_BYTES]
        rest, self._shake = self._shake[1 + 2 * HANDSHAKE_BYTES :], b""
        self.step = Step.CONNECTING
        about = {
            "app": self._target.app + self._target.query,
            "type": "nonprivate",
            "flashVer": "FMLE/3.0 (compatible; lectern)",
        }
        self._command("connect", _CONNECT, {**about, "tcUrl": self._target.tc_url + self._target.query})
        return rest

    def _handle(self, message: ChunkMessage) -> None:
        kind, body = message.kind, message.body
        if kind == chunks.CONTROL and body[:2] == _PING:
            self._control(chunks.CONTROL, _PONG + body[2:6])
        elif kind in (chunks.WINDOW, chunks.BANDWIDTH):
            if len(body) < 4:
                raise NotRtmp(sentence("a window that names no number of bytes"))
            if kind == chunks.WINDOW:
                self._window = max(1024, int.from_bytes(body[:4], "big"))
            else:
                self._control(chunks.WINDOW, body[:4])
        elif kind in (chunks.COMMAND, chunks.AMF3_COMMAND):
            values = amf0.decode(body[kind == chunks.AMF3_COMMAND :], MAX_VALUES)
            if values:
                self._answer(str(values[0]), values[1] if len(values) > 1 else None, values[2:])

    def _answer(self, name: str, number: amf0.Value, values: list[amf0.Value]) -> None:
        if name == "_result" and number == _CONNECT and self.step is Step.CONNECTING:
            self.is_connected = True
            self._control(chunks.SET_CHUNK, chunks.CHUNK_BYTES.to_bytes(4, "big"))
            self._command("releaseStream", _RELEASE, None, self._target.stream)
            self._command("FCPublish", _FC_PUBLISH, None, self._target.stream)
            self._command("createStream", _CREATE, None)
        elif name == "_result" and number == _CREATE and self.step is Step.CONNECTING:
            stream = values[-1] if values else None
            if not isinstance(stream, float) or not 0 < stream < 2**32:
                raise NotRtmp(sentence("the server names no stream to publish on"))
            self._stream, self.step = int(stream), Step.READY
        elif name == "_error" and number in (_CONNECT, _CREATE, _PUBLISH):
            refusal = str(_fields(values).get("description"))[:1000]
            if number == _CONNECT and (ADOBE in refusal or LIMELIGHT in refusal):
                raise wanted(self._target, refusal, secrets.token_hex(4))
            raise NotRtmp(self._words(values))
        elif name == "onStatus":
            status = _fields(values)
            if status.get("level") == "error":
                raise NotRtmp(self._words(values))
            if status.get("code") == "NetStream.Publish.Start" and self.step is Step.PUBLISHING:
                self.step = Step.LIVE
        elif name == "close":
            raise NotRtmp(sentence("the server closes the session"))

    def _words(self, values: list[amf0.Value]) -> str:
        """The server's refusal in its own words, without the user and the password of the push URL."""
        fields = _fields(values)
        text = ": ".join(str(fields[name]) for name in ("code", "description") if fields.get(name))
        for secret in filter(None, (self._target.password, self._target.user)):
            text = text.replace(secret, "…")
        if not (text := cleaned(text)):
            return sentence("the server refuses, and gives no reason")
        return sentence("the server refuses: {why}", why=text)

    def _control(self, kind: int, body: bytes) -> None:
        self.owed += compose(kind, 0, 0, body, chunk_stream=_PROTOCOL)

    def _command(self, name: str, number: int, *values: amf0.Value, stream: int = 0) -> None:
        # Until the server knows our chunk size, chunks have the size with which the protocol begins.
        size = 128 if self.step is Step.CONNECTING and number == _CONNECT else chunks.CHUNK_BYTES
        body = amf0.encode(name, number, *values)
        self.owed += compose(chunks.COMMAND, 0, stream, body, chunk_stream=_COMMANDS, chunk_bytes=size)


def _fields(values: list[amf0.Value]) -> Mapping[str, amf0.Value]:
    return next((value for value in reversed(values) if isinstance(value, Mapping)), {})
