"""The JSON Schema of all messages that cross lectern's border, for the authors of the other programs."""

import json
import sys
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from lectern.wire.messages import Message
from lectern.wire.outgoing import Alarm, CancelResult, ChangeResult, ClassEvent, OrderResult
from lectern.wire.parser import PUBLISHED

SENT = tuple(dict.fromkeys(PUBLISHED.values()))
"""What the platform and the transcoders send to lectern."""

READ = (OrderResult, ChangeResult, CancelResult, ClassEvent, Alarm)
"""What the platform reads. Messages between teacher and streamers are internal, so the schema leaves them out."""


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: object) -> bool:
        return False  # it would be the field's name once more


def schema() -> dict[str, Any]:
    """The schema document: a message is any one of the kinds, told apart by its ``cmd``."""
    kinds: tuple[type[Message], ...] = SENT + READ
    _, found = models_json_schema([(kind, "validation") for kind in kinds], schema_generator=_Untitled)
    for kind in kinds:
        found["$defs"][kind.__name__].setdefault("required", []).insert(0, "cmd")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of lectern",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": found["$defs"],
    }


@cache
def text() -> str:
    """The document as ``make schema`` prints it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
