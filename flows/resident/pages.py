"""What was handled without runs, in pages: each will be a run in the UI, found by its classes."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import uuid4

from flows.batch import summary
from flows.handled import LINES, Handled, Line
from flows.labels import CLASSES, Label, label_of, name_of, tags_of
from lectern.effects.rows.inbox import spell
from lectern.facts import Kept
from lectern.wire import is_name

MANY = 500
"""Number of messages in a page of a flow whose classes are found by another run."""

FIND = {"booking", "settle", "sweep"}
"""Flows whose every class has a tag, however many there are; of the others those have one that are refused."""

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
    title: Label | None = None  # of the message by which all its classes were decided

    @property
    def name(self) -> str:
        """Its name in the UI."""
        if not self.ids:
            return f"{self.flow} {self.host}"
        labels = [] if self.is_plain else [self.title] if self.title else self.labels
        return name_of(self.flow, labels, len(self.ids))

    def has_room(self, entries: int) -> bool:
        """Whether so many entries more fit in."""
        most = CLASSES if self.flow in FIND or self.kind is not Kind.DONE else MANY
        return len(self.labels) + entries <= most

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries in."""
        for one in entries:
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
        took = f"handled {_clock(self.began)} to {_clock(self.ended)}"
        if self.batches > 1:
            took += f" in {self.batches} batches, the longest took {self.longest_s:.2f} s"
        return f"{what}; {took}" if self.kind is not Kind.LATE else what

    def said_line(self, line: Line) -> dict[str, Any]:
        """A line of its log, as the API takes it."""
        at = _utc(line.at)
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

    def request(self) -> dict[str, Any]:
        """The run, as the API takes it."""
        return {
            "name": self.name,
            "parameters": {"inbox_ids": spell(sorted(set(self.ids)))} if self.ids else {},
            "tags": [] if self.is_plain else [*MARKS.get(self.kind, []), *tags_of(self.labels)],
            "state": self.state(),
            "idempotency_key": self.key,
            "labels": {"lectern.began": _utc(self.began), "lectern.ended": _utc(self.ended)},
        }


def late(flow: str, kept: Sequence[Kept]) -> list[Page]:
    """Pages of messages that another process has handled."""
    now = time.time()
    pages: list[Page] = []
    for first in range(0, len(kept), CLASSES):
        some = kept[first : first + CLASSES]
        page = Page(flow, Kind.LATE, now, now, said=f"{len(some)} messages {LATE_WORDS}")
        page.add(Entry(label_of(one), [one.id]) for one in some)
        pages.append(page)
    return pages


def at_work(batch: Handled, host: str) -> dict[str, Any]:
    """The run of a batch that is at work for long."""
    labels = [label_of(one) for one in batch.kept[:CLASSES]]
    name = name_of(batch.flow, labels, len(batch.kept)) if batch.kept else f"{batch.flow} {host}"
    return {
        "name": name,
        "parameters": batch.parameters,
        "tags": tags_of(labels),
        "state": {"type": "RUNNING", "name": "Running", "message": f"at work since {_clock(batch.began)}"},
        "idempotency_key": batch.key,
        "labels": {"lectern.began": _utc(batch.began)},
    }


def pages_of(batch: Handled, host: str) -> list[Page]:
    """A batch that has ended, in pages of one kind each; what waits for Redis or the database is in none."""
    sorted_: dict[Kind, list[Entry]] = {}
    for one in _entries(batch):
        if batch.undone.issuperset(one.ids) and one.ids:
            if not batch.silent:
                sorted_.setdefault(Kind.FAILED, []).append(one)
        else:
            all_failed = batch.failed is not None and not batch.undone
            kind = Kind.FAILED if all_failed else Kind.REFUSED if one.is_refused() else Kind.DONE
            sorted_.setdefault(kind, []).append(one)
    if not sorted_ and not batch.kept and not batch.silent:  # a sweep that had nothing to list
        sorted_[Kind.FAILED if batch.failed else Kind.DONE] = []
    pages = [page for kind, entries in sorted_.items() for page in _filled(batch, kind, entries, host)]
    if pages:
        _share_lines(batch, pages)
        if batch.run_id is not None or batch.is_open:
            pages[0].key, pages[0].run_id, pages[0].is_open = batch.key, batch.run_id, True
    return pages


def _filled(batch: Handled, kind: Kind, entries: list[Entry], host: str) -> list[Page]:
    assert batch.ended is not None  # it has ended
    pages: list[Page] = []
    for first in range(0, max(1, len(entries)), CLASSES):
        page = Page(batch.flow, kind, batch.began, batch.ended, host, table=batch.table)
        page.said = (batch.failed or batch.message) if kind is Kind.FAILED else batch.message
        page.longest_s = batch.ended - batch.began
        page.add(entries[first : first + CLASSES])
        if not page.ids:  # classes that a message of another name has decided
            page.ids = batch.ids
            page.title = label_of(batch.kept[0]) if len(batch.kept) == 1 else None
        pages.append(page)
    return pages


def _entries(batch: Handled) -> list[Entry]:
    """One entry a class or message; a line of the table that names neither goes with a message that has no name."""
    entries = [Entry(label_of(one), [one.id]) for one in batch.kept]
    by_name: dict[str, Entry] = {f"inbox {one.ids[0]}": one for one in entries}
    for one in entries:
        if one.label.class_id:
            by_name.setdefault(one.label.class_id, one)
    nameless = [one for one in entries if not one.label.class_id]
    for row in batch.rows:
        name = str(row["class"])
        found = by_name.get(name)
        if found is None and nameless and (STEM.fullmatch(name) or not is_name(name)):
            found = nameless.pop(0)
        if found is None:
            found = by_name[name] = Entry(Label() if STEM.fullmatch(name) or not is_name(name) else Label(name))
            entries.append(found)
        found.rows.append(row)
    return entries


def _share_lines(batch: Handled, pages: Sequence[Page]) -> None:
    """Each line of the log goes to the page of the class or message that it begins with."""
    place = {label.class_id: page for page in pages for label in page.labels if label.class_id}
    place |= {f"inbox {id_}": page for page in pages for id_ in page.ids}
    other = next((page for page in pages if page.kind is Kind.FAILED), pages[0])
    for line in batch.lines:
        page = place.get(line.text.partition(":")[0], other)
        if len(page.lines) < LINES:
            page.lines.append(line)


def merged(page: Page, other: Page) -> bool:
    """Take *other* into *page* where they are of one kind, and there is room; whether it was taken in."""
    alike = (page.flow, page.kind) == (other.flow, other.kind) and page.kind in (Kind.DONE, Kind.REFUSED)
    if not alike or not page.ids or not other.ids or page.is_sealed or page.is_open or other.is_open:
        return False
    if not page.has_room(len(other.labels)) or len(page.lines) + len(other.lines) > LINES:
        return False
    page.labels += other.labels
    page.ids += other.ids
    page.rows += other.rows
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


def _clock(at: float) -> str:
    when = datetime.fromtimestamp(at).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
