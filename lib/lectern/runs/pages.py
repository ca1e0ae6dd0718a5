"""What was handled without runs, in pages: each will be a run in the UI, found by its classes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from lectern.effects.rows.inbox import spell
from lectern.runs.handled import LINES, Line, summary
from lectern.runs.labels import CLASSES, Label, name_of, tags_of

MANY = 500
"""Number of messages in a page of a flow whose classes are found by another run."""

FIND = {"booking", "settle", "sweep"}
"""Flows in whose runs every class has a tag, however many there are; in other flows only refused classes do."""

FEW = 20
"""Number of tags up to which a run is created with them; more of them cost Prefect less if they are set afterwards."""

FOLLOW = "lectern:tags-follow"
"""The tag of a run whose classes are not among its tags yet."""

STEM = re.compile(r"\d+(_\d+P)?")


class Kind(Enum):
    """How a page looks in the UI: type and name of its state."""

    DONE = ("COMPLETED", "Completed")
    REFUSED = ("CANCELLED", "Refused")  # grey, so that it stands out from what went well and from what needs a person
    FAILED = ("FAILED", "Failed")
    LATE = ("COMPLETED", "ShownLate")


MARKS = {Kind.REFUSED: ["lectern:refused"], Kind.LATE: ["lectern:shown-late"]}
LATE_WORDS = "handled by a process that ended before it could show it; its log is lost: lectern explain CLASS_ID"
NO = ("refuse", "malformed")
SHOWN = "*; handled * to *"
"""The pattern of what the state of a run says that shows what was done before: nobody need watch over it."""


@dataclass
class Entry:
    """One message, or one class that a message or a sweep has decided, and its lines of the table."""

    label: Label
    ids: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def is_refused(self) -> bool:
        """Whether its class is refused."""
        return any(str(row["decision"]).startswith(NO) for row in self.rows)


@dataclass(eq=False)
class Page:
    """What will be one run."""

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
    is_sealed: bool = False  # Prefect was asked for its run: nothing more fits in
    is_plain: bool = False  # Prefect refused it with its labels
    is_untagged: bool = False  # its run was created, and its tags are to be set
    from_messages: bool = True  # each label is a message's own, so that they can be read again
    title: Label | None = None  # of the message by which all its classes were decided

    @property
    def name(self) -> str:
        """Its name in the UI."""
        if not self.ids:
            return f"{self.flow} {self.host}"
        labels = [] if self.is_plain else [self.title] if self.title else self.labels
        return name_of(self.flow, labels, len(self.ids))

    def has_room(self, entries: int) -> bool:
        """Whether *entries* more fit in."""
        most = CLASSES if self.flow in FIND or self.kind is not Kind.DONE else MANY
        return len(self.labels) + entries <= most

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries in."""
        for one in entries:
            self.from_messages &= bool(one.ids)
            self.labels.append(one.label)
            self.ids += one.ids
            self.rows += one.rows

    def message(self) -> str:
        """What its state says, with its true times."""
        what = self.said
        if self.kind is Kind.REFUSED:
            what = _refusals(self.rows)
        elif self.kind is Kind.DONE and self.rows:
            what = summary(self.rows)
        took = f"handled {clock(self.began)} to {clock(self.ended)}"
        if self.batches > 1:
            took += f" in {self.batches} batches, the longest took {self.longest_s:.2f} s"
        return f"{what}; {took}" if self.kind is not Kind.LATE else what

    def said_line(self, line: Line) -> dict[str, Any]:
        """A line of its log, as the API takes it."""
        at = utc(line.at)
        return {
            "name": "lectern",
            "level": line.level,
            "message": line.text,
            "timestamp": at,
            "flow_run_id": self.run_id,
        }

    def state(self) -> dict[str, str]:
        """Its state, as the API takes it."""
        type_, name = self.kind.value
        return {"type": type_, "name": name, "message": self.message()}

    @property
    def tags(self) -> list[str]:
        """What its run is found by; that of many messages is not, because some of its classes would stand for all."""
        if self.is_plain:
            return []
        return [*MARKS.get(self.kind, []), *tags_of(self.labels if len(self.labels) <= CLASSES else [])]

    def tags_follow(self) -> bool:
        """Whether its run is created without most of its tags: for each, Prefect makes an event of the run longer."""
        return self.from_messages and len(self.tags) > FEW

    def request(self) -> dict[str, Any]:
        """The run, as the API takes it."""
        return {
            "name": self.name,
            "parameters": {"inbox_ids": spell(sorted(set(self.ids)))} if self.ids else {},
            "tags": [*MARKS.get(self.kind, []), FOLLOW] if self.tags_follow() else self.tags,
            "state": self.state(),
            "idempotency_key": self.key,
            "labels": {"lectern.began": utc(self.began), "lectern.ended": utc(self.ended)},
        }


def merged(page: Page, other: Page) -> bool:
    """Take *other* into *page* if they are of one kind, and there is room; whether it was taken in."""
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
    """How many were refused with which code; the reason where it is one class."""
    counted = Counter(f"{row['decision']} {row.get('code', '')}".strip() for row in rows)
    said = ", ".join(f"{number} {what}" for what, number in counted.items())
    return f"{said}: {rows[0].get('detail', '')}" if len(rows) == 1 else said


def clock(at: float) -> str:
    """Local time with milliseconds."""
    when = datetime.fromtimestamp(at).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def utc(at: float) -> str:
    """UTC, as a label gives it."""
    return datetime.fromtimestamp(at, UTC).isoformat()
