"""Classes that a streamer does not have, or has no more: released before they came, taken away."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from lectern.effects.rows.many import among, these
from lectern.model.tables.streamer import classes
from lectern.states import AiringState

ANY_PLACEMENT = 2**31 - 1
_RELEASED = select(classes.c.class_id, classes.c.placement).where(among(classes.c.class_id), classes.c.video_id == "")


def note_released(connection: Connection, class_id: str, placement: int | None, now: float) -> None:
    """Note that an unknown class was released, up to *placement*; None means any placement."""
    connection.execute(delete(classes).where(classes.c.class_id == class_id))
    connection.execute(
        insert(classes).values(
            class_id=class_id,
            video_id="",
            state=AiringState.CANCELLED,
            updated_at=now,
            released_at=now,
            placement=ANY_PLACEMENT if placement is None else placement,
        )
    )


def released_before(connection: Connection, class_ids: Sequence[str]) -> dict[str, int]:
    """The classes among *class_ids* that were released before they came, each with its highest released placement."""
    return {row.class_id: row.placement for row in connection.execute(_RELEASED, these(class_ids))}


def taken_away(connection: Connection, class_id: str) -> None:
    """Note that the teacher has moved the class or given it up, so that it is no longer waited for here."""
    connection.execute(update(classes).where(classes.c.class_id == class_id).values(lost_at=None))
