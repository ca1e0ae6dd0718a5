"""The names and tags of a run of messages, made only of those parts of a message that are valid names."""

from collections.abc import Sequence
from dataclasses import dataclass

from lectern.commands import fields_of
from lectern.facts import Kept
from lectern.states import Resolution
from lectern.wire import is_name, read_resolution

_SIZES = frozenset(map(str, Resolution))
CLASSES = 80
TAGS = 90
"""CLASSES is the number of classes that a run has tags for, TAGS that of all its tags: Prefect refuses about 100."""


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


def label_of(kept: Kept) -> Label:
    """What a message is about; raises nothing, whatever the message holds."""
    fields = fields_of(kept.body)
    class_id, record_id = fields.get("class_id"), fields.get("record_id")
    size = read_resolution(fields.get("video_resolution"))
    is_record = type(record_id) is int and 0 <= record_id < 2**63
    return Label(
        class_id if isinstance(class_id, str) and is_name(class_id) else None,
        record_id if is_record else None,
        size if is_record and isinstance(size, str) and size in _SIZES else "",
    )


def class_of(kept: Kept) -> str | None:
    """The class_id of a message; None if it cannot be read or is no valid name."""
    return label_of(kept).class_id


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
