"""What a batch did that was handled without a run; the recorder shows it as a run afterwards."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

from lectern.effects.rows.inbox import spell
from lectern.facts import Kept

LINES = 500
"""Number of log lines that are kept of a batch; the host's own log has them all."""


class Line(NamedTuple):
    """A line of the log, with its own time (epoch seconds)."""

    at: float
    level: int
    text: str


@dataclass(eq=False)
class Handled:
    """One batch of *flow*: its messages (none for a sweep), and what was done with them.

    It is also work of another kind that was done without a run, which has a *name*, *tags* and parameters (*given*) of
    its own.
    """

    flow: str
    kept: Sequence[Kept] = ()
    name: str = ""
    tags: Sequence[str] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    ended: float | None = None
    message: str = ""
    failed: str | None = None  # the reason if it failed
    undone: frozenset[int] = frozenset()  # ids of messages that were not handled
    silent: bool = False  # undone messages wait for Redis or the database, and are shown once handled
    lines: list[Line] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    table: tuple[str, str] = ("", "")  # key and description of the table of *rows*
    key: str = field(default_factory=lambda: uuid4().hex)
    run_id: str | None = None  # of the run that shows it while it is at work
    is_open: bool = False  # Prefect was asked for that run, and may have made it
    is_refused: bool = False  # Prefect refuses to show it while it is at work

    @property
    def ids(self) -> list[int]:
        """The inbox ids of its messages."""
        return [one.id for one in self.kept]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the flow."""
        return {"inbox_ids": spell(self.ids)} if self.kept else dict(self.given)

    def say(self, line: Line) -> None:
        """Keep a line of the log, unless LINES are kept already."""
        if len(self.lines) < LINES:
            self.lines.append(line)


of_batch: ContextVar[Handled | None] = ContextVar("of_batch", default=None)
"""The batch that is being handled without a run."""

FAILED = "failed"
"""In the place of a decision: the message could not be handled."""


def summary(table: Sequence[Mapping[str, object]]) -> str:
    """How often the batch made each decision, for people; failed messages are counted elsewhere."""
    counted = Counter(str(row["decision"]) for row in table if row["decision"] != FAILED)
    return ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing to do"
