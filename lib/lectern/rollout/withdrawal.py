"""A streamer goes back to the old program: its teacher leaves its classes there, and no other classes are aired."""

import time

from sqlalchemy import Connection, text

from lectern.effects.redis import rekey, withdrawn
from lectern.effects.rows import schema
from lectern.effects.rows.old_times import epoch
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import LecternError
from lectern.migrations.look import shape
from lectern.rollout import redis_keys
from lectern.rollout.backup import store
from lectern.rollout.host.supervisor import wait_for
from lectern.rollout.takeover import old_tables
from lectern.rollout.wanted import Wanted
from lectern.rollout.wording import shown, some
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.words import counted

READ_S = 10.0
"""Seconds to wait until a teacher has read it; a living teacher takes one or two."""


def withdraw(wanted: Wanted) -> list[str]:
    """Tell the teacher, and delete from ``task_list`` what the old program must not air; returns sentences.

    Done before the old program starts: otherwise the teacher would miss the streamer after a minute and move its
    classes, and both streamers would push them. Raises LecternError if Redis or the database fails.
    """
    said = _close(wanted)
    if _was_leased(wanted):
        key, name = _names(wanted)
        told = "the teacher cannot be told that the old program has this streamer; it would move its classes to others."
        with redis_keys.opened(wanted) as client, rekey.in_words(lambda: told):
            withdrawn.say(client, key, name)
    return said


def confirmed(wanted: Wanted) -> list[str]:
    """Wait until a teacher has read the withdrawal; returns that, or what follows if none has, in sentences."""
    if not _was_leased(wanted):
        return []
    key, name = _names(wanted)
    try:
        with redis_keys.opened(wanted) as client, rekey.in_words(lambda: ""):
            wait_for(lambda: withdrawn.is_read(client, key, name) or None, READ_S, lambda: "")
    except LecternError:
        said = f"No teacher has read yet that {name} is back at the old program. Roll the teachers back, too"
        return [f"{said}; one of an older release of lectern would move its classes to others after a minute."]
    return [f"The teacher leaves {name} its classes, and moves them to nobody."]


def _names(wanted: Wanted) -> tuple[str, str]:
    default = str(StreamerSettings.model_fields["streamers_key"].default)
    return wanted.env.get("STREAMERS_KEY", default), wanted.env.get("STREAMER_NAME", wanted.name)


def _was_leased(wanted: Wanted) -> bool:
    """Whether a teacher of ours has given it classes, or may have."""
    with store.of(wanted).reading() as connection:
        if shape(connection, "lease_list") is None:
            return False
        return bool(connection.execute(text("SELECT count(*) FROM lease_list")).scalar_one())


def _close(wanted: Wanted) -> list[str]:
    """Delete from ``task_list`` the classes that were cancelled or moved to another streamer; returns sentences.

    A refused class stays: the old program may have its recording, and a needless push harms less than a missing class.
    """
    found = store.of(wanted)
    with store.opened(found) as engine, schema.in_words(engine), transaction(engine) as connection:
        gone = _not_its_own(connection, time.time())
        if gone:
            connection.execute(
                text("DELETE FROM task_list WHERE class_id = :class_id"), [{"class_id": one} for one in gone]
            )
    if not gone:
        return []
    named = some([shown(one) for one in gone])
    return [
        f"{counted(len(gone), 'class', 'classes')} taken out of task_list, as cancelled or moved meanwhile: {named}."
    ]


def _not_its_own(connection: Connection, now: float) -> list[str]:
    known = old_tables.classes(connection)
    over = {one.class_id for one in known.values() if one.state == AiringState.CANCELLED}
    return [
        one.class_id for one in old_tables.tasks(connection) if one.class_id in over and (epoch(one.end) or 0) > now
    ]
