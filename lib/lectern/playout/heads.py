"""What must precede a file's pictures and sounds: its metadata and headers, once in each session."""

from collections import deque
from typing import NamedTuple

from lectern.playout import flv
from lectern.playout.reel import Reel


class Item(NamedTuple):
    """A message: *at_ms* is its position in the class."""

    kind: int
    at_ms: int
    body: bytes


class Heads:
    """Messages that wait to be sent, and the last of each kind that the session got."""

    def __init__(self) -> None:
        self._queue: deque[Item] = deque()
        self._sent: dict[int, bytes] = {}

    def __bool__(self) -> bool:
        """Whether messages wait; these must be sent together."""
        return bool(self._queue)

    @property
    def first(self) -> Item:
        """The message that has waited longest."""
        return self._queue[0]

    def forget(self) -> None:
        """Forget what was sent, and what waits: a new session has had nothing yet."""
        self._sent.clear()
        self._queue.clear()

    def clear(self) -> None:
        """Drop what waits: its file is not sent any more."""
        self._queue.clear()

    def announce(self, reel: Reel, at_ms: int) -> None:
        """Queue the metadata and headers of *reel*, except those that are in force in the session."""
        needed = {kind: body for kind, (_, body) in reel.headers.items()}
        if reel.metadata is not None:
            needed = {flv.SCRIPT: reel.metadata, **needed}
        for kind, body in needed.items():
            if not self.had(kind, body):
                self._queue.append(Item(kind, at_ms, body))

    def had(self, kind: int, body: bytes) -> bool:
        """Whether this message is in force in the session: the last of its *kind* that was sent."""
        return self._sent.get(kind) == body

    def sent(self, item: Item) -> bool:
        """Note that an item is in the batch; returns whether it is metadata or a header."""
        is_head = item.kind == flv.SCRIPT or flv.is_header(item.kind, item.body)
        if is_head:
            self._sent[item.kind] = item.body
        return is_head

    def next(self) -> None:
        """Remove the message that has waited longest, which is now in the batch."""
        self._queue.popleft()
