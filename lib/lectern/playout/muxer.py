"""What a session is sent of one recording: its sequence headers first, then its tags by the class's clock."""

import math
from collections import deque
from typing import Any, NamedTuple

from lectern.playout import flv
from lectern.playout.demuxer import Demuxer
from lectern.playout.session import Mark, Place


class Item(NamedTuple):
    """A message: *at_ms* is its position in the class."""

    kind: int
    at_ms: int
    body: bytes
    is_header: bool
    """Whether it must be sent before those that need it: metadata count, too."""


RECORDING, SLATE = 0, 1
NAMES = "recording", "slate"
"""The names of the sources in an as-run."""

TAGS = 500
"""Greatest number of tags in a turn, sent or passed over: the other classes have their turn."""


class Muxer:
    """The demuxer whose tags are sent now, and how its times lie in the class."""

    def __init__(self) -> None:
        self.source = RECORDING
        self.demuxer: Demuxer | None = None
        self.last_ms = 0
        """Position in the class of the last message sent."""
        self.shift_ms = 0
        """Where in the class the demuxer's file begins."""
        self.before_ms = math.inf
        """Position in the class from which another demuxer takes over."""
        self.tags_left = TAGS
        """Number of tags that may still be taken in this turn."""
        self.queue: deque[Item] = deque()
        """Messages that wait, and must be sent together."""
        self._from_ms, self._awaits_key = 0, False
        self._sent: dict[int, bytes] = {}  # the last header or metadata of each kind that the session got

    def peek(self, position_ms: float) -> Item | None:
        """The next message to send if it is due, else None."""
        if self.queue:
            return self.queue[0]
        demuxer = self.demuxer
        if position_ms >= self.before_ms:
            position_ms = self.before_ms - 1
        while demuxer is not None and self.tags_left > 0 and (tag := demuxer.peek()) is not None:
            at_ms = tag.time_ms + self.shift_ms
            if at_ms > position_ms or demuxer.is_elsewhere:  # the place to begin in another file is not known yet
                return None
            if tag.is_header:
                is_wanted = self._sent.get(tag.kind) != tag.body
            else:
                is_awaited = tag.kind != flv.PICTURE or not self._awaits_key or flv.is_keyframe(tag.kind, tag.body)
                is_wanted = at_ms >= self._from_ms and is_awaited
            if is_wanted:
                return Item(tag.kind, at_ms, tag.body, tag.is_header)
            demuxer.advance()
            self.tags_left -= 1
        return None

    def advance(self, item: Item) -> bool:
        """The item that was seen last is in the batch; returns whether it changes what `save` gives."""
        if item.is_header:
            self._sent[item.kind] = item.body
        if self.queue:
            self.queue.popleft()
            return True
        assert self.demuxer is not None
        self.demuxer.advance()
        self.tags_left -= 1
        self.last_ms = item.at_ms
        if item.kind == flv.PICTURE and not item.is_header:
            self._awaits_key = False
        return item.is_header

    def behind_ms(self, position_ms: float) -> float:
        """Milliseconds by which the next message is late; 0 if none is due."""
        item = self.peek(position_ms)
        return position_ms - item.at_ms if item is not None else 0.0

    def put(self, demuxer: Demuxer, source: int, shift_ms: int = 0) -> None:
        """Send the tags of *demuxer* from now on; the caller announces its headers."""
        self.drop()
        self.demuxer, self.source, self.shift_ms = demuxer, source, shift_ms
        self._from_ms, self._awaits_key = 0, False

    def drop(self) -> None:
        """Send no tags for now."""
        if self.demuxer is not None:
            self.demuxer.close()
            self.demuxer = None
        self.queue.clear()

    def skip_to(self, position_ms: int) -> None:
        """Send nothing before *position_ms*, then no picture before the next keyframe."""
        self._from_ms, self._awaits_key = position_ms, True

    def forget(self) -> None:
        """Forget the headers that were sent: a new session begins."""
        self._sent.clear()
        self.queue.clear()

    def announce(self, position_ms: float) -> None:
        """Queue the demuxer's metadata and headers before its tags, unless the session has them."""
        if self.demuxer is not None:
            metadata = {} if self.demuxer.metadata is None else {flv.SCRIPT: self.demuxer.metadata}
            needed = {**metadata, **{kind: body for kind, (_, body) in self.demuxer.headers.items()}}
            missing = [kind for kind, body in needed.items() if self._sent.get(kind) != body]
            self.queue += [Item(kind, int(position_ms), needed[kind], is_header=True) for kind in missing]

    def resume(self, demuxer: Demuxer, mark: Mark) -> None:
        """Go on after the batch of *mark*."""
        self.demuxer, self.source, self.shift_ms = demuxer, mark.source, mark.shift_ms
        self._from_ms, self._awaits_key, self.last_ms = mark.from_ms, mark.awaits_key, mark.last_ms

    def place(self) -> Place:
        """The fields *source* to *last_ms* of a journal's mark, for the next batch."""
        demuxer = self.demuxer
        if demuxer is None:  # nothing is sent now: the next worker begins at the clock's position
            return RECORDING, 0, flv.HEAD_BYTES, 0, self.last_ms + 1, True, 0, self.last_ms
        # The wrap may be one tag ahead of the place; that is near enough to know how often the 32 bits have wrapped.
        lies = self.shift_ms, self._from_ms, self._awaits_key
        return self.source, demuxer.fingerprint, demuxer.place, *lies, demuxer.wrap, self.last_ms

    def save(self) -> dict[str, Any]:
        """Which file is sent, and the offsets of its headers in force, for `resume`."""
        demuxer = self.demuxer
        headers = {kind: begins for kind, (begins, _) in demuxer.headers.items()} if demuxer else {}
        return {"file": demuxer.fingerprint if demuxer and demuxer.knows_headers else 0, "headers": headers}


BATCH_BYTES = 128 * 1024
"""Size from which a batch is full: no further message is added."""
