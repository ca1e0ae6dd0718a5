"""FLV: its tags, their contents, and its metadata in the form that is sent."""

from collections.abc import Mapping
from typing import NamedTuple

from lectern.playout.rtmp import NotRtmp, amf0
from lectern.playout.sentences import sentence

SOUND, PICTURE, SCRIPT = 8, 9, 18
HEAD_BYTES = 13
"""Size of the file's header, and of the 0 that stands for a tag before the first."""
TAG_HEAD_BYTES = 11
TAIL_BYTES = 4
"""Bytes after each tag that repeat its size."""
LOOK_BYTES = 6
"""Bytes of a body that are enough to tell what it holds."""

_AVC, _HEVC, _AAC = 7, 12, 10
_PICTURES = {2: "Sorenson", 4: "VP6", 5: "VP6 with alpha", _AVC: "H.264", _HEVC: "HEVC"}
_ENHANCED = {b"hvc1": "HEVC", b"avc1": "H.264", b"av01": "AV1", b"vp09": "VP9", b"vp08": "VP8", b"vvc1": "VVC"}
_SEQUENCE_START, _CODED, _CODED_X = 0, 1, 3
_ENHANCED_SOUND = 9
_OWN_KEYS = {"duration", "filesize", "keyframes", "hasKeyframes", "lasttimestamp", "lastkeyframetimestamp"}
_OWN_KEYS |= {"lastkeyframelocation", "canSeekToEnd", "datasize", "videosize", "audiosize"}


class NotAirable(Exception):
    """A recording that cannot be aired; the text says why."""


class TagHead(NamedTuple):
    """A tag without its body: *size* is the body's, *timestamp* is in milliseconds, of 32 bits."""

    kind: int
    size: int
    timestamp: int

    @property
    def whole(self) -> int:
        """Bytes from this tag to the next."""
        return TAG_HEAD_BYTES + self.size + TAIL_BYTES


def check_head(data: bytes) -> None:
    """Raise NotAirable unless *data* begins as an FLV file does."""
    if not data:
        raise NotAirable(sentence("the file is empty"))
    if data[:3] != b"FLV":
        raise NotAirable(sentence("the file is no FLV: it does not begin with FLV"))
    if len(data) < HEAD_BYTES:
        raise NotAirable(sentence("the file ends inside its header"))
    if int.from_bytes(data[5:9], "big") != HEAD_BYTES - TAIL_BYTES:
        raise NotAirable(sentence("the file is no FLV of version 1: its header has another length"))


def tag_head(data: bytes, at: int) -> TagHead | None:
    """The head of the tag at *at*; None if no tag can begin there, or *data* ends inside it."""
    if len(data) < at + TAG_HEAD_BYTES or (kind := data[at]) not in (SOUND, PICTURE, SCRIPT):
        return None
    size = int.from_bytes(data[at + 1 : at + 4], "big")
    timestamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
    return TagHead(kind, size, timestamp)


def is_keyframe(kind: int, body: bytes) -> bool:
    """Whether decoding can begin at this picture; *body* may be cut off after `LOOK_BYTES`."""
    if kind != PICTURE or len(body) < 2 or body[0] >> 4 & 7 != 1:
        return False
    if body[0] & 0x80:
        return body[0] & 0x0F in (_CODED, _CODED_X)
    return body[0] & 0x0F not in (_AVC, _HEVC) or body[1] == _CODED


def is_header(kind: int, body: bytes) -> bool:
    """Whether the tag is a decoder's configuration, which must be sent before the tags that need it."""
    if len(body) < 2:
        return False
    if kind == PICTURE:
        if body[0] & 0x80:
            return body[0] & 0x0F == _SEQUENCE_START
        return body[0] & 0x0F in (_AVC, _HEVC) and body[1] == _SEQUENCE_START
    if kind == SOUND:
        if body[0] >> 4 == _ENHANCED_SOUND:
            return body[0] & 0x0F == _SEQUENCE_START
        return body[0] >> 4 == _AAC and body[1] == _SEQUENCE_START
    return False


def needs_header(kind: int, body: bytes) -> bool:
    """Whether the tag can only be decoded after a header."""
    if kind == PICTURE:
        return bool(body[0] & 0x80) or body[0] & 0x0F in (_AVC, _HEVC)
    return kind == SOUND and body[0] >> 4 in (_AAC, _ENHANCED_SOUND)


def codec_fault(kind: int, body: bytes) -> str | None:
    """Why the pictures of this tag cannot be aired; None if they can."""
    if kind != PICTURE:
        return None
    if body[0] & 0x80:
        fourcc = bytes(body[1:5])
        name = repr(fourcc.decode("latin-1"))
        return None if fourcc in _ENHANCED else sentence("the pictures are of the unknown kind {kind}", kind=name)
    codec = body[0] & 0x0F
    return None if codec in _PICTURES else sentence("the pictures are of the unknown kind {kind}", kind=codec)


def metadata(body: bytes) -> bytes | None:
    """The file's metadata as a data message; None if *body* holds something else, or cannot be read.

    Fields that describe the file (duration, size, index of keyframes) do not hold for a live stream, and are left out.
    """
    try:
        name, *values = amf0.decode(body)
    except (NotRtmp, ValueError):
        return None
    fields = next((value for value in values if isinstance(value, Mapping)), None)
    if name != "onMetaData" or fields is None:
        return None
    named = amf0.Named({key: value for key, value in fields.items() if key not in _OWN_KEYS})
    return amf0.encode("@setDataFrame", "onMetaData", named)


class Unwrap:
    """Turns timestamps of 32 bits into timestamps that do not wrap."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def __call__(self, timestamp: int) -> int:
        """The timestamp nearest to the last one; it may be a little before it."""
        step = (timestamp - self.last + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        self.last += step
        return self.last
