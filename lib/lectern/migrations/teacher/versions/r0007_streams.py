"""The stream of each class, by which two that would be pushed to it at the same time are found."""

from alembic import op
from pydantic_core import from_json
from sqlalchemy import Column, Text, text

from lectern import urls
from lectern.migrations.steps import ensure

revision = "teacher_0007"
down_revision = "teacher_0006"

_LIVE = """
SELECT class_id, payload FROM order_list
WHERE stream IS NULL AND state NOT IN ('refused', 'cancelled', 'aired', 'broken')
"""


def upgrade() -> None:
    """Create what is missing, and fill in the streams of the live classes."""
    ensure("order_list", Column("stream", Text, index=True))
    named = text("UPDATE order_list SET stream = :stream WHERE class_id = :class_id")
    for class_id, payload in op.get_bind().execute(text(_LIVE)).all():
        if (stream := _stream(payload)) is not None:
            op.get_bind().execute(named, {"stream": stream, "class_id": class_id})


def _stream(payload: str) -> str | None:
    """The stream of a booking; None if its push URL is invalid, which an older version accepted."""
    try:
        return urls.push(from_json(payload)["push_url"]).stream
    except (ValueError, KeyError, TypeError):
        return None
