"""A rollout that only changes settings which need no restart: the program reads them anew, and nothing is stopped."""

from collections.abc import Iterable

from lectern import health
from lectern.errors import LecternError
from lectern.i18n import Text, labelled
from lectern.rollout import installed
from lectern.rollout.host import release_link
from lectern.rollout.host.supervisord import Health, Supervisord
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.settings import files
from lectern.rollout.spec import HOW_NOT_WHAT, Spec
from lectern.settings import Change, Cost

_SETTINGS = {"env", "config"}
_OF_THE_OLD_PROGRAM = {"rekey", "order_key", "record_patterns", "old_video_roots"}
"""Fields that only a rollout onto the old program reads."""
_NEITHER = {*HOW_NOT_WHAT, *_SETTINGS, *_OF_THE_OLD_PROGRAM, "again"}


def is_due(wanted: Spec, journal: RolloutJournal) -> bool:
    """Whether nothing has to be stopped for *wanted*; a window that was begun stays what it was.

    A program that does not answer is not asked: it is started anew.
    """
    if journal.state(wanted.id) == "half":
        return was(wanted, journal)
    behind = journal.behind(wanted.id)
    if behind is None or not _differ_in_settings(wanted, behind):
        return False
    return all(change.cost is not Cost.RESTART for change in changes(wanted)) and is_answered(wanted)


def was(wanted: Spec, journal: RolloutJournal) -> bool:
    """Whether the last window of *wanted* stopped nothing."""
    return any(note.step == "window" and "reload" in note.detail for note in journal.round(wanted.id)[:1])


def changes(wanted: Spec) -> list[Change]:
    """The settings that the program would find changed; raises Misuse if they are wrong, now or as wanted."""
    return files.in_use(wanted, wanted.current / release_link.SETTINGS).changes(files.as_wanted(wanted))


def is_answered(wanted: Spec) -> bool:
    """Whether the program that is wanted answers, ready or not."""
    return Health(wanted, Supervisord(wanted.supervisorctl)).is_ours()


def ask(wanted: Spec) -> list[str]:
    """Have the program read its settings anew: a sentence for each change. Raises Misuse, TryAgain as `health` does."""
    answer = health.reloaded(wanted.health_url.removesuffix("/health"), wanted.program)
    return sentences(wanted, health.sentences(answer) or [Text("no setting has changed")])


def sentences(wanted: Spec, lines: Iterable[str]) -> list[str]:
    """Each of *lines*, as a sentence about the program."""
    return [Text("{sentence}.", sentence=labelled(wanted.program, line)) for line in lines]


def _differ_in_settings(wanted: Spec, behind: str) -> bool:
    """Whether *wanted* is the rollout *behind*, but for its settings, which can all be read."""
    try:
        before = installed.stored(wanted.backups_dir / behind)
        changes(wanted)
    except LecternError:
        return False  # what is wrong is the preflight's business
    return before.model_dump(exclude=_NEITHER) == wanted.model_dump(exclude=_NEITHER)
