"""Packs the due messages of a class into batches, and sends each batch with its mark in the journal."""

import time

from lectern.playout.journal import Mark
from lectern.playout.session import Session
from lectern.playout.track import Track

BATCH_BYTES = 128 * 1024
"""Size from which a batch is full: no further message is added."""


class Batches:
    """Batches of one *track*; `base_ms` is the position in the class at which the session's own time begins."""

    def __init__(self, track: Track) -> None:
        self.base_ms = 0
        self._track = track

    def send(self, session: Session, position_ms: float) -> int:
        """Send one batch, with what is owed to the server; returns the size of its media in bytes. Raises Broken."""
        media: list[bytes] = []
        size, has_header = 0, False
        while size < BATCH_BYTES or self._track.queued:
            item = self._track.peek(position_ms)
            if item is None:
                break
            media.append(session.publisher.media(item.kind, max(0, item.at_ms - self.base_ms), item.body))
            size += len(media[-1])
            has_header = self._track.advance(item) or has_header
        if has_header:
            session.note()
        if media or session.publisher.owed:
            session.batch(media, self._mark)
        return size

    def _mark(self, offset: int, size: int, paid: int) -> Mark:
        return Mark(offset, size, *self._track.place(), self._track.last_ms, paid, time.monotonic())
