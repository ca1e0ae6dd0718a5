"""The runs by which Prefect shows handled messages and work without a run, made of rows of the inbox alone."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from lectern.db.inbox import HandledMessage, format_id_ranges, work_of
from lectern.model.facts import UnrecordedWork
from lectern.model.views import EventView
from lectern.states import Resolution
from lectern.wire.fields import is_name, read_resolution
from lectern.wire.parser import fields_of

CLASSES, TAGS = 80, 90
"""CLASSES is the number of classes that a run has tags for, TAGS that of all its tags: Prefect refuses about 100."""

TAGS_AT_ONCE = 20
"""Number of tags with which a run is created: each makes its creation slower, by a related resource of an event."""

MANY = 500
"""Number of messages in a run of a flow whose classes are found by another run."""

FIND = {"booking", "settle", "sweep"}
"""Flows whose runs have a tag for every class, however many there are; other flows tag only refused classes."""

LATE_S = 60.0
"""Seconds after its handling from which on a message is marked as shown late."""

WITHOUT = "lectern:without-run"
"""The tag of a run that shows work which was done without it."""

SHOWN = "*; handled * to *"
"""The pattern of the state message of a run that shows finished work, which needs no watching."""

FAILED = "failed"
"""In the place of a decision: the message could not be handled."""

_SIZES = frozenset(map(str, Resolution))
_STEM = re.compile(r"\d+_\d+P")
_NO = ("refuse", "malformed")


# -- names and tags ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Label:
    """What a message is about, as far as that can be read and is valid."""

    class_id: str | None = None
    record_id: int | None = None
    resolution: str = ""

    @property
    def name(self) -> str:
        """The name for a person who searches; empty if nothing could be read."""
        return self.class_id or (f"{self.record_id} {self.resolution}" if self.record_id is not None else "")


def label_of(body: str) -> Label:
    """What a message is about; raises nothing, whatever the message holds."""
    fields = fields_of(body)
    class_id, record_id = fields.get("class_id"), fields.get("record_id")
    size = read_resolution(fields.get("video_resolution"))
    is_record = type(record_id) is int and 0 <= record_id < 2**63
    return Label(
        class_id if isinstance(class_id, str) and is_name(class_id) else None,
        record_id if is_record else None,
        size if is_record and isinstance(size, str) and size in _SIZES else "",
    )


def name_of(flow: str, labels: Sequence[Label], number: int) -> str:
    """The name of a run of *number* messages."""
    if number == 1 and labels and labels[0].name:
        return f"{flow} {labels[0].name}"
    return f"{flow} 1 message" if number == 1 else f"{flow} {number} messages"


def tags_of(labels: Sequence[Label]) -> list[str]:
    """The tags of a run: one for each of the first CLASSES classes, then for records as far as TAGS allows."""
    classes = dict.fromkeys(f"class:{one.class_id}" for one in labels[:CLASSES] if one.class_id)
    records = dict.fromkeys(f"record:{one.record_id}" for one in labels[:CLASSES] if one.record_id is not None)
    return [*classes, *records][:TAGS]


# -- what a row says ---------------------------------------------------------------------------------------------------
def summary(table: Sequence[Mapping[str, object]]) -> str:
    """How often a batch made each decision, for people; failed messages are counted elsewhere."""
    counted = Counter(str(row["decision"]) for row in table if row["decision"] != FAILED)
    return ", ".join(f"{number} {what}" for what, number in counted.items()) or "nothing to do"


def is_no_class(name: str) -> bool:
    """Whether *name*, of a line of a run's table, is that of a rendition, or none at all."""
    return _STEM.fullmatch(name) is not None or not is_name(name)


class RecordKind(Enum):
    """How a run looks in the UI: type and name of its state, its own tag, and the level of its reason in its log."""

    DONE = ("COMPLETED", "Completed", None, logging.INFO)
    REFUSED = ("CANCELLED", "Refused", "lectern:refused", logging.WARNING)  # grey: neither success nor a failure
    FAILED = ("FAILED", "Failed", None, logging.ERROR)


class _Entry(NamedTuple):
    """One message, or one class that a message or a work has decided, and its lines of the table."""

    row: HandledMessage
    label: Label
    lines: list[dict[str, Any]]

    @property
    def kind(self) -> RecordKind:
        if any(str(line["decision"]).startswith(_NO) for line in self.lines):
            return RecordKind.REFUSED
        return RecordKind.FAILED if self.row.error is not None else RecordKind.DONE


def _entries(row: HandledMessage, label: Label) -> list[_Entry]:
    """One entry for a row, and one for each other class that it has decided."""
    entries = {label.class_id: _Entry(row, label, [])}
    for line in json.loads(row.said) if row.said else ():
        name = str(line["class"])
        class_id = label.class_id if is_no_class(name) else name
        entries.setdefault(class_id, _Entry(row, Label(class_id), [])).lines.append(line)
    found = list(entries.values())
    return found[1:] if len(found) > 1 and label == Label() and not found[0].lines else found


# -- runs --------------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class RunRecord:
    """One run that shows what was done."""

    flow: str
    kind: RecordKind
    key: str
    entries: Sequence[_Entry]
    work: UnrecordedWork | None = None
    is_late: bool = False
    run_id: str | None = None
    is_plain: bool = False  # Prefect refused it with its labels
    labels: list[Label] = field(init=False)
    lines: list[dict[str, Any]] = field(init=False)
    began: float = field(init=False)
    ended: float = field(init=False)

    def __post_init__(self) -> None:
        times = [one.row.handled_at for one in self.entries]
        self.labels = [one.label for one in self.entries]
        self.lines = [line for one in self.entries for line in one.lines]
        self.began, self.ended = self.work.began if self.work else min(times), max(times)

    @property
    def ids(self) -> list[int]:
        """Its rows in the inbox."""
        return sorted({one.row.id for one in self.entries})

    @property
    def name(self) -> str:
        """Its name in the UI."""
        if self.work is not None:
            return self.work.name
        return name_of(self.flow, [] if self.is_plain else [label_of(self.entries[0].row.body)], len(self.ids))

    @property
    def tags(self) -> list[str]:
        """Its tags; a run of more than CLASSES messages has no class tags, as a few would stand for all."""
        if self.is_plain:
            return []
        marks = [self.kind.value[2], "lectern:shown-late" if self.is_late else None]
        classes = tags_of(self.labels if len(self.labels) <= CLASSES else [])
        return list(dict.fromkeys([*(one for one in marks if one), *(self.work.tags if self.work else ()), *classes]))

    @property
    def classes(self) -> set[str]:
        """The classes that its tags name."""
        return {tag.removeprefix("class:") for tag in self.tags if tag.startswith("class:")}

    def state(self) -> dict[str, str]:
        """Its state, in the form of Prefect's API, with the times at which the work was really done."""
        type_, name, *_ = self.kind.value
        why = ", without a run because Prefect let none begin" if WITHOUT in self.tags else ""
        took = f"handled {clock(self.began)} to {clock(self.ended)}{why}"
        what = ascii(self._what())[1:-1] if self.is_plain else self._what()  # no character of it may be refused again
        return {"type": type_, "name": name, "message": f"{what}; {took}"}

    def _what(self) -> str:
        if self.kind is RecordKind.REFUSED:
            counted = Counter(f"{line['decision']} {line.get('code', '')}".strip() for line in self.lines)
            refused = ", ".join(f"{number} {what}" for what, number in counted.items())
            return f"{refused}: {self.lines[0].get('detail', '')}" if len(self.lines) == 1 else refused
        if self.kind is RecordKind.FAILED:
            return next(one.row.error for one in self.entries if one.row.error is not None)
        return self.work.message if self.work else summary(self.lines) if self.lines else "done"

    def request(self) -> dict[str, Any]:
        """The run, in the form of Prefect's API."""
        return {
            "name": self.name,
            "parameters": dict(self.work.parameters) if self.work else {"inbox_ids": format_id_ranges(self.ids)},
            "tags": self.tags if len(self.tags) <= TAGS_AT_ONCE else [],
            "state": self.state(),
            "idempotency_key": self.key,
            "labels": {"lectern.began": _utc(self.began), "lectern.ended": _utc(self.ended)},
        }

    def log(self, events: Sequence[EventView]) -> list[dict[str, Any]]:
        """Its log: why it was refused or failed, because the UI opens such a run on its log, then its *events*."""
        reason = [] if self.kind is RecordKind.DONE else [(self.began, self.kind.value[3], self.state()["message"])]
        told = [
            (one.at, logging.INFO, f"{one.class_id}: {one.what}{one.detail and ': '}{one.detail}") for one in events
        ]
        return [
            {"name": "lectern", "level": level, "message": text, "timestamp": _utc(at), "flow_run_id": self.run_id}
            for at, level, text in [*reason, *told]
        ]


def records_of(flow: str, rows: Sequence[HandledMessage], key: str, now: float) -> list[RunRecord]:
    """The runs that show *rows*, which share *key*; the same rows make the same runs, also after a crash."""
    work = work_of(rows[0])
    sorted_: dict[RecordKind, list[_Entry]] = defaultdict(list)
    for row in rows:
        for entry in _entries(row, label_of(row.body)):
            sorted_[entry.kind].append(entry)
    records: list[RunRecord] = []
    for kind, entries in sorted_.items():
        most = CLASSES if flow in FIND or kind is not RecordKind.DONE else MANY
        for some in (entries[first : first + most] for first in range(0, len(entries), most)):
            its = f"{key}-{len(records)}" if records else key
            is_late = now - min(one.row.handled_at for one in some) > LATE_S
            records.append(RunRecord(flow, kind, its, some, work, is_late))
    return records


def clock(at: float) -> str:
    """*at* (epoch seconds) as local date and time with milliseconds."""
    when = datetime.fromtimestamp(at).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
