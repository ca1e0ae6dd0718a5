"""What a streamer does when its teacher tells it to replace a class by the class's prepared revision."""

from dataclasses import replace

from lectern.amendments import Amend
from lectern.facts import Airing
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.streamer_changes import StreamerChanges


def amend(changes: StreamerChanges, asked: Amend, one: Airing | None, revision: Airing | None) -> dict[str, Airing]:
    """Give the class the content of its revision; if the class is over or was moved away, cancel the revision.

    Returns what was changed, the class and the revision, by their ids.
    """
    if revision is None or revision.state not in LIVE_AIRINGS:
        changes.row(asked.class_id, "its revision is not here", asked.revision)
        return {}
    if one is None or one.state not in LIVE_AIRINGS or one.placement != asked.placement:
        changes.row(asked.class_id, "is over or elsewhere, its revision goes", asked.revision)
        return {revision.class_id: changes.move(revision, AiringState.CANCELLED)}
    after = changes.amend(one, revision)
    changes.note("changed", after)
    changes.row(one.class_id, "changed", asked.revision)
    return {one.class_id: after, revision.class_id: replace(revision, state=AiringState.CANCELLED)}
