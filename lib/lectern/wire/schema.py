"""The JSON Schema of all messages that cross lectern's border, for the authors of the other programs."""

import json
import sys
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from lectern.wire.messages import Message
from lectern.wire.outgoing import Alarm, CancelResult, ChangeResult, ClassEvent, OrderResult
from lectern.wire.parser import PUBLISHED

SENT = tuple(dict.fromkeys(PUBLISHED.values()))
"""What the platform and the transcoders send to lectern."""

READ = (OrderResult, ChangeResult, CancelResult, ClassEvent, Alarm)
"""What the platform reads. Messages between teacher and streamers are internal, so the schema leaves them out."""


def schema() -> dict[str, Any]:
    """The schema document: a message is any one of the kinds, told apart by its ``cmd``."""
    kinds: tuple[type[Message], ...] = SENT + READ
    _, found = models_json_schema([(kind, "validation") for kind in kinds])
    for kind in kinds:
        found["$defs"][kind.__name__].setdefault("required", []).insert(0, "cmd")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of lectern",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": _plain(found["$defs"]),
    }


def _plain(found: object) -> object:
    """The schema *found* without titles and null defaults."""
    if isinstance(found, list):
        return [_plain(one) for one in found]
    if not isinstance(found, dict):
        return found
    kept = {
        key: _plain(one)
        for key, one in found.items()
        if not (key == "title" and isinstance(one, str)) and not (key == "default" and one is None)
    }
    if "const" in kept:
        kept.pop("default", None)
    return kept


@cache
def text() -> str:
    """The document as ``make schema`` prints it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
