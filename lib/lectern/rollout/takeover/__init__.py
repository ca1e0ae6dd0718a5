"""The step `adopt` of the window, by role: takes over what the old program left; and its undoing."""

import time

from lectern.db.engine import transaction
from lectern.i18n import Text
from lectern.rollout import redis_keys
from lectern.rollout.backup import opened, store
from lectern.rollout.result import punctuated
from lectern.rollout.spec import Spec
from lectern.rollout.takeover import old_files, streamer, teacher
from lectern.rollout.takeover.streamer import MOVES, StreamerAdoption
from lectern.rollout.takeover.teacher import OldLists


def planned(wanted: Spec) -> tuple[list[str], list[str]]:
    """What `adopt` would do, and why it may not, in sentences; reads only, also before the keys have new names."""
    if wanted.role == "teacher":
        rules = redis_keys.rules(wanted)
        order_key = wanted.order_key and teacher.before(wanted.order_key, rules)
        with redis_keys.opened(wanted, lambda: Text("Nothing was changed.")) as client:
            lists = OldLists(client, teacher.before(wanted.waiting_key, rules), order_key, time.time())
            with store.of(wanted).reading() as connection:
                return lists.planned(connection), []
    with store.of(wanted).reading() as connection:
        plan = StreamerAdoption(connection, wanted, time.time())
    return punctuated(plan.said), punctuated(plan.refusals)


def adopt(wanted: Spec) -> list[str]:
    """Take over the old program's bookings, files and waiting lists; returns what was done."""
    with opened(store.of(wanted).url) as engine:
        if wanted.role == "streamer":
            return punctuated(streamer.adopt(engine, wanted, time.time()))
        # As the new program will read it: from .env, else from the JSON config, which has milliseconds.
        config_s = int(wanted.config.get("transcoding_time_out", 120_000)) / 1000
        time_out_s = float(wanted.env.get("TRANSCODING_TIME_OUT_S", config_s))
        with redis_keys.opened(wanted, lambda: Text("Nothing was adopted.")) as client:
            lists = OldLists(client, wanted.waiting_key, wanted.order_key, time.time())
            with transaction(engine) as connection:
                return lists.adopt(connection, wanted.name, time_out_s)


def undo(wanted: Spec) -> list[str]:
    """Move a streamer's files back to their old places, and keep the rows; returns sentences about it."""
    if wanted.role == "teacher":
        return []
    return punctuated(old_files.undo_moves(wanted.backup_dir / MOVES))
