"""What a run of messages is called, and by which tags it is found: only what may stand anywhere is taken from them."""

from collections.abc import Sequence

from lectern.body import fields_of
from lectern.facts import Kept
from lectern.states import Resolution
from lectern.wire import is_name, read_resolution

TAGS = 40
"""Number of messages whose tags a run has, and of its tags."""


def labels(flow: str, kept: Sequence[Kept]) -> tuple[str, list[str]]:
    """The name of a run of *flow* that handles *kept*, for the person who searches, and its tags; raises nothing."""
    tags: dict[str, None] = {}
    names: list[str] = []
    for one in kept[:TAGS]:
        class_id, record = class_of(one), _record(one)
        if class_id:
            tags[f"class:{class_id}"] = None
        if record:
            tags[f"record:{record[0]}"] = None
        names += [class_id] if class_id else [f"{record[0]} {record[1]}"] if record else []
    return plain(flow, kept) if len(kept) > 1 or not names else f"{flow} {names[0]}", list(tags)[:TAGS]


def plain(flow: str, kept: Sequence[Kept]) -> str:
    """The name of a run whose messages say nothing that could be its name."""
    return f"{flow} 1 message" if len(kept) == 1 else f"{flow} {len(kept)} messages"


def class_of(kept: Kept) -> str | None:
    """The class that a message is about, where that can be read and may be a name."""
    found = fields_of(kept.body).get("class_id")
    return found if isinstance(found, str) and is_name(found) else None


def _record(kept: Kept) -> tuple[int, str] | None:
    fields = fields_of(kept.body)
    found, size = fields.get("record_id"), read_resolution(fields.get("video_resolution"))
    if type(found) is not int or not 0 <= found < 2**63:
        return None
    return found, size if isinstance(size, str) and size in set(Resolution) else ""
