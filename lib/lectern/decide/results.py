"""What the end of a transcoding means for the classes that wait for it: they proceed, or are refused."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from lectern import errors, words
from lectern.changes import Changes
from lectern.decide.transcode import Outcome, Overdue, Settled
from lectern.decide.verdicts import Loads, proceed
from lectern.errors import ErrorCode
from lectern.facts import Order, Rendition, RenditionKey
from lectern.states import Backend, RenditionState
from lectern.stems import stem
from lectern.wire import class_of

ENDS = frozenset({Outcome.SUCCEED, Outcome.FAIL, Outcome.TIME_OUT})
"""The outcomes that empty the waiting list of a rendition."""


@dataclass
class Waiters:
    """The classes that wait for a rendition."""

    orders: Sequence[Order] = ()
    listed: Sequence[str] = ()
    """The class_ids on its waiting list in Redis, including those of the old program."""

    known: Collection[str] = field(default_factory=frozenset)
    """Those of *listed* that are booked here."""


@dataclass(frozen=True)
class Ahead:
    """The streamers that classes can go to, and the deadline (epoch seconds) of an attempt that falls back to ECS."""

    loads: Loads
    ecs_deadline: float


def apply(changes: Changes, one: Settled, row: Rendition | None, waiters: Waiters, ahead: Ahead) -> None:
    """Do what the table says about one result."""
    backend = one.result.type or (row and row.backend) or "unknown"
    word = "success" if one.result.success else "failed"  # the wire spells success in several ways
    changes.transcoded.append((str(backend), word))
    why = one.result.message or f"{one.result.type or 'the'} transcoding of {one.stem}: {word}"
    url = one.result.transcode_video_url or ""
    match one.outcome:
        case Outcome.SUCCEED if row is not None:
            succeed(changes, one.key, url, waiters, ahead.loads)
        case Outcome.CORRECT if row is not None:
            changes.remake(one.key, row.state, RenditionState.SUCCESS, url=url)
        case Outcome.FAIL if row is not None:
            give_up(changes, one.key, errors.TRANSCODE_FAILED, why, waiters)
        case Outcome.TIME_OUT if row is not None:
            give_up(changes, one.key, errors.TRANSCODE_TIMED_OUT, why, waiters)
        case Outcome.FALL_BACK:
            changes.fallen.append((one.key, ahead.ecs_deadline))
        case Outcome.ALARM:
            _unknown(changes, one, waiters.listed)
    detail = f"{one.result.type or 'no type'}: {one.outcome}. {why}"
    changes.note(f"result: {word}", stem=one.stem, detail=detail)
    changes.row(one.stem, one.outcome, detail=one.result.message or "")


@dataclass(frozen=True)
class Late:
    """A rendition whose deadline has passed, and whether its output was found."""

    key: RenditionKey
    backend: Backend | None
    what: Overdue
    url: str | None = None


def expire(changes: Changes, one: Late, waiters: Waiters, ahead: Ahead) -> None:
    """Do what was decided about a rendition whose deadline has passed."""
    changes.transcoded.append((str(one.backend), one.what.name.lower()))
    match one.what:
        case Overdue.SUCCEED:
            succeed(changes, one.key, one.url or "", waiters, ahead.loads)
        case Overdue.FALL_BACK:
            changes.fallen.append((one.key, ahead.ecs_deadline))
        case Overdue.TIME_OUT:
            why = f"no result of the {one.backend or 'old'} transcoding in time"
            give_up(changes, one.key, errors.TRANSCODE_TIMED_OUT, why, waiters)
    changes.note(f"deadline passed: {one.what}", stem=stem(*one.key))
    changes.row(stem(*one.key), one.what)


def succeed(changes: Changes, key: RenditionKey, url: str, waiters: Waiters, loads: Loads) -> None:
    """Let every waiting class proceed with *url*: the rendition was made."""
    changes.remake(key, RenditionState.TRANSCODING, RenditionState.SUCCESS, url=url)
    proceed(changes, [(order, url) for order in waiters.orders], loads)
    _orphans(changes, key, waiters)


def give_up(changes: Changes, key: RenditionKey, code: ErrorCode, why: str, waiters: Waiters) -> None:
    """Refuse every waiting class with *code*, and raise one alarm for all: the rendition will not be made.

    A class whose change waits is not refused, but its change: the class stays as it was.
    """
    state = RenditionState.TIMED_OUT if code is errors.TRANSCODE_TIMED_OUT else RenditionState.FAILED
    changes.remake(key, RenditionState.TRANSCODING, state, reason=why)
    for order in waiters.orders:
        changes.refuse(order, code, why)
    _orphans(changes, key, waiters)
    refused = [order.class_id for order in waiters.orders if order.revises is None]
    kept = {class_of(order.class_id) for order in waiters.orders if order.revises is not None}
    what = [f"{words.counted(len(refused), 'class', 'classes')} refused"] if refused or not kept else []
    what += [f"{words.counted(len(kept), 'change', 'changes')} refused"] if kept else []
    said = f"{stem(*key)}: {why}; {'; '.join(what)}"
    changes.alarm(code, said, record_id=key[0], resolution=key[1], classes=refused)


def _unknown(changes: Changes, one: Settled, listed: Sequence[str]) -> None:
    """Raise an alarm for a result whose rendition has no row; its waiting list stays as it is."""
    said = f"{one.stem}: a result came, and nobody asked for it"
    if listed:
        name = changes.settings.waiting_key.format(record_id=one.key[0], resolution=one.key[1])
        classes = "1 class waits" if len(listed) == 1 else f"{len(listed):,} classes wait"
        said += f". {classes} on the list {name}, and nobody answers: type redis-cli LRANGE {name} 0 -1"
    changes.alarm(errors.UNKNOWN_RENDITION, said, record_id=one.key[0], resolution=one.key[1])


def _orphans(changes: Changes, key: RenditionKey, waiters: Waiters) -> None:
    """Refuse, with an alarm, the class_ids that the old program left on the waiting list: they are not booked here."""
    known = {order.class_id for order in waiters.orders} | set(waiters.known)
    code = errors.ORPHANED_WAITER
    for class_id in dict.fromkeys(one for one in waiters.listed if one not in known):
        said = f"{class_id} waited for {stem(*key)}; its booking is not known here"
        changes.answer_class(class_id, code.number, said)
        changes.alarm(code, said, class_id=class_id)
        changes.row(class_id, "refuse", code=code.number, detail=said)
