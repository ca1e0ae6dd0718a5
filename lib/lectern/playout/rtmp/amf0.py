"""AMF0: the encoding of the values in RTMP's commands and metadata."""

import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lectern.playout.rtmp import NotRtmp
from lectern.playout.sentences import sentence

Value: TypeAlias = "float | bool | str | Mapping[str, Value] | Sequence[Value] | None"

MAX_DEPTH = 16
MAX_VALUES = 100_000
"""Greatest number of values in one message; the index that some programs put into metadata has two a keyframe."""

_NUMBER, _BOOLEAN, _STRING, _OBJECT = 0, 1, 2, 3
_NULL, _UNDEFINED, _REFERENCE, _ECMA_ARRAY, _END, _ARRAY, _DATE, _LONG_STRING = 5, 6, 7, 8, 9, 10, 11, 12
_NO_MORE = b"\0\0\x09"


class Named(dict[str, Value]):
    """A mapping that is written as an ECMA array, which is what metadata are."""


def encode(*values: Value) -> bytes:
    """The bytes of *values*, one after another."""
    return b"".join(map(_encoded, values))


def _encoded(value: Value) -> bytes:
    if value is None:
        return bytes([_NULL])
    if isinstance(value, bool):
        return bytes([_BOOLEAN, value])
    if isinstance(value, (int, float)):
        return struct.pack(">Bd", _NUMBER, value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        if len(text) > 0xFFFF:
            return struct.pack(">BI", _LONG_STRING, len(text)) + text
        return struct.pack(">BH", _STRING, len(text)) + text
    if isinstance(value, Mapping):
        head = struct.pack(">BI", _ECMA_ARRAY, len(value)) if isinstance(value, Named) else bytes([_OBJECT])
        return head + b"".join(_name(name) + _encoded(each) for name, each in value.items()) + _NO_MORE
    return struct.pack(">BI", _ARRAY, len(value)) + b"".join(map(_encoded, value))


def _name(name: str) -> bytes:
    text = name.encode("utf-8", "surrogateescape")
    return struct.pack(">H", len(text)) + text


def decode(data: bytes, most: int = MAX_VALUES) -> list[Value]:
    """The values that *data* holds; raises NotRtmp if they cannot be read, or are more than *most*."""
    reader = _Reader(data, most)
    values = []
    try:
        while reader.at < len(data):
            values.append(reader.value(0))
    except (struct.error, IndexError) as error:
        raise NotRtmp(sentence("values (AMF0) that end in the middle")) from error
    return values


class _Reader:
    """Reads values one after another, and counts them."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self.at, self._left = data, 0, most

    def value(self, depth: int) -> Value:
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise NotRtmp(sentence("values (AMF0) that are nested too deep, or too many"))
        (kind,) = self._take(">B")
        if kind == _NUMBER:
            return float(self._take(">d")[0])
        if kind == _BOOLEAN:
            return bool(self._take(">B")[0])
        if kind in (_STRING, _LONG_STRING):
            return self._text(">H" if kind == _STRING else ">I")
        if kind in (_NULL, _UNDEFINED):
            return None
        if kind in (_OBJECT, _ECMA_ARRAY):
            if kind == _ECMA_ARRAY:
                self._take(">I")  # the number of fields, which many programs get wrong: the end mark decides
            return self._fields(depth)
        if kind == _ARRAY:
            return [self.value(depth + 1) for _ in range(self._take(">I")[0])]
        if kind == _DATE:
            return float(self._take(">dh")[0])
        raise NotRtmp(sentence("a value (AMF0) of the unknown kind {kind}", kind=kind))

    def _fields(self, depth: int) -> Value:
        fields: Named = Named()
        while True:
            name = self._text(">H")
            if not name and self._data[self.at] == _END:
                self.at += 1
                return fields
            fields[name] = self.value(depth + 1)

    def _text(self, form: str) -> str:
        (size,) = self._take(form)
        if self.at + size > len(self._data):
            raise NotRtmp(sentence("values (AMF0) that end in the middle"))
        text = self._data[self.at : self.at + size]
        self.at += size
        return text.decode("utf-8", "surrogateescape")

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self.at)
        self.at += struct.calcsize(form)
        return values
