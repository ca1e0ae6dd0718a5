"""Pages of what was handled without runs: each page becomes one run in the UI, found by its classes."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from lectern.effects.rows.inbox import spell
from lectern.runs.handled import LINES, Handled, Line, summary
from lectern.runs.labels import CLASSES, Label, name_of, tags_of

MANY = 500
"""Number of messages in a page of a flow whose classes are found by another run."""

FIND = {"booking", "settle", "sweep"}
"""Flows whose runs have a tag for every class, however many there are; other flows tag only refused classes."""

FEW = 20
"""Number of tags up to which a run is created with them; more of them cost Prefect less if they are set afterwards."""

FOLLOW = "lectern:tags-follow"
"""The tag of a run whose class tags are set later."""

STEM = re.compile(r"\d+(_\d+P)?")


class Kind(Enum):
    """How a page looks in the UI: type and name of its state."""

    DONE = ("COMPLETED", "Completed")
    REFUSED = ("CANCELLED", "Refused")  # grey, to differ from success and from failures that need a person
    FAILED = ("FAILED", "Failed")
    LATE = ("COMPLETED", "ShownLate")
    BACK = ("COMPLETED", "PutBack")  # its messages wait in the inbox; what handles them later is another run


MARKS = {Kind.REFUSED: ["lectern:refused"], Kind.LATE: ["lectern:shown-late"]}
LEVELS = {Kind.REFUSED: logging.WARNING, Kind.FAILED: logging.ERROR, Kind.LATE: logging.INFO}
"""The level of the line by which the log of such a run ends."""

LATE_WORDS = "handled by a process that ended before it could show it; its log is lost: lectern explain CLASS_ID"
NO = ("refuse", "malformed")
SHOWN = "*; handled * to *"
"""The pattern of the state message of a run that shows finished work, which needs no watching."""


@dataclass
class Entry:
    """One message, or one class that a message or a sweep has decided, and its lines of the table."""

    label: Label
    ids: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def is_refused(self) -> bool:
        """Whether the class is refused, or the message malformed."""
        return any(str(row["decision"]).startswith(NO) for row in self.rows)


@dataclass(eq=False)
class Page:
    """The content of one run."""

    flow: str
    kind: Kind
    began: float
    ended: float
    host: str = ""
    ids: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    table: tuple[str, str] = ("", "")
    lines: list[Line] = field(default_factory=list)
    said: str = ""
    batches: int = 1
    longest_s: float = 0.0
    key: str = field(default_factory=lambda: uuid4().hex)
    run_id: str | None = None
    is_open: bool = False  # its run was created while it was at work
    is_sealed: bool = False  # Prefect was asked to create its run: nothing more can be added
    is_plain: bool = False  # Prefect refused it with its labels
    is_untagged: bool = False  # its run was created, and its tags are to be set
    from_messages: bool = True  # each label comes from a message, and can be read from it again
    title: Label | None = None  # label of the one message that decided all its classes
    work: Handled | None = None  # what was done without a run, and names itself

    @property
    def name(self) -> str:
        """The name of its run in the UI."""
        if not self.ids:
            return self.work.name if self.work else f"{self.flow} {self.host}"
        labels = [] if self.is_plain else [self.title] if self.title else self.labels
        return name_of(self.flow, labels, len(self.ids))

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of its run if no message of the inbox is."""
        return self.work.parameters if self.work else {}

    def has_room(self, entries: int) -> bool:
        """Whether there is room for that many more *entries*."""
        most = CLASSES if self.flow in FIND or self.kind is not Kind.DONE else MANY
        return len(self.labels) + entries <= most

    def add(self, entries: Iterable[Entry]) -> None:
        """Add *entries* to the page."""
        for one in entries:
            self.from_messages &= bool(one.ids)
            self.labels.append(one.label)
            self.ids += one.ids
            self.rows += one.rows

    def message(self) -> str:
        """The message of its run's state, with the times at which the work was really done."""
        what = self.said
        if self.kind is Kind.REFUSED:
            what = _refusals(self.rows)
        elif self.kind is Kind.DONE and self.rows:
            what = summary(self.rows)
        took = self._took()
        if self.batches > 1:
            took += f" in {self.batches} batches, the longest took {self.longest_s:.2f} s"
        return f"{what}; {took}" if self.kind is not Kind.LATE else what

    def _took(self) -> str:
        why = ", without a run because Prefect let none begin" if self.work else ""
        return f"handled {clock(self.began)} to {clock(self.ended)}{why}"

    def log(self) -> list[Line]:
        """Its lines, and at the end why its messages were refused or failed: the UI opens such a run on its log."""
        if self.kind not in LEVELS:
            return self.lines
        return [*self.lines, Line(self.ended, LEVELS[self.kind], self.message())]

    def said_line(self, line: Line) -> dict[str, Any]:
        """A line of its log, in the form of Prefect's API."""
        at = utc(line.at)
        return {
            "name": "lectern",
            "level": line.level,
            "message": line.text,
            "timestamp": at,
            "flow_run_id": self.run_id,
        }

    def state(self) -> dict[str, str]:
        """The state of its run, in the form of Prefect's API."""
        type_, name = self.kind.value
        return {"type": type_, "name": name, "message": self.message()}

    def wordless_state(self) -> dict[str, str]:
        """The state of its run if Prefect refuses what the batch said."""
        return {**self.state(), "message": f"Prefect refuses its message; {self._took()}"}

    @property
    def tags(self) -> list[str]:
        """The tags of its run; a run of more than CLASSES messages has no class tags, as a few would stand for all."""
        if self.is_plain:
            return []
        own = self.work.tags if self.work else ()
        return [*MARKS.get(self.kind, []), *own, *tags_of(self.labels if len(self.labels) <= CLASSES else [])]

    def tags_follow(self) -> bool:
        """Whether most tags are set after its run was created: each makes an event of Prefect's longer."""
        return self.from_messages and len(self.tags) > FEW

    def request(self) -> dict[str, Any]:
        """The run, in the form of Prefect's API."""
        return {
            "name": self.name,
            "parameters": {"inbox_ids": spell(sorted(set(self.ids)))} if self.ids else self.given,
            "tags": [*MARKS.get(self.kind, []), FOLLOW] if self.tags_follow() else self.tags,
            "state": self.state(),
            "idempotency_key": self.key,
            "labels": {"lectern.began": utc(self.began), "lectern.ended": utc(self.ended)},
        }


def merged(page: Page, other: Page) -> bool:
    """Add *other* to *page* if they are of one kind and there is room; returns whether it was added."""
    alike = (page.flow, page.kind) == (other.flow, other.kind) and page.kind in (Kind.DONE, Kind.REFUSED)
    if not alike or not page.ids or not other.ids or page.is_sealed or page.is_open or other.is_open:
        return False
    if not page.has_room(len(other.labels)) or len(page.lines) + len(other.lines) > LINES:
        return False
    page.labels += other.labels
    page.ids += other.ids
    page.rows += other.rows
    page.from_messages &= other.from_messages
    page.lines += other.lines
    page.began, page.ended = min(page.began, other.began), max(page.ended, other.ended)
    page.batches += other.batches
    page.longest_s = max(page.longest_s, other.longest_s)
    page.table = page.table if page.table[0] else other.table
    return True


def _refusals(rows: Sequence[dict[str, Any]]) -> str:
    """How many were refused with which code; with the reason if it is only one."""
    counted = Counter(f"{row['decision']} {row.get('code', '')}".strip() for row in rows)
    said = ", ".join(f"{number} {what}" for what, number in counted.items())
    return f"{said}: {rows[0].get('detail', '')}" if len(rows) == 1 else said


def clock(at: float) -> str:
    """*at* (epoch seconds) as local date and time with milliseconds."""
    when = datetime.fromtimestamp(at).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def utc(at: float) -> str:
    """*at* (epoch seconds) as a label's value: ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat()
