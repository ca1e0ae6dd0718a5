"""The booking path on queues of others: one module a peer, all of them do the same work, one message a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A queue as its documentation recommends it for many short tasks; *workers* are arguments of Python."""

    send: Callable[[Sequence[str]], None]
    workers: Sequence[Sequence[str]]
    ready: str  # what each worker says when it takes tasks
