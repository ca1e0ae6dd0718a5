"""What to do with a transcoding result or a passed deadline: the table of the design, row for row."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lectern import errors
from lectern.decide.placement import Loads, proceed
from lectern.errors import ErrorCode, LecternError, Refuse, TryAgain
from lectern.i18n import Text, joined, labelled, msgid
from lectern.model.facts import Attempt, EcsHost, Order, Rendition, RenditionKey
from lectern.model.plan import Changes
from lectern.model.tables.teacher import RenditionRow
from lectern.rendition_ids import stem
from lectern.settings import TeacherSettings
from lectern.states import Backend, RenditionState, Resolution
from lectern.windows import Windows
from lectern.wire.fields import class_of
from lectern.wire.messages import Booking, TranscodingResult


class Outcome(StrEnum):
    """What a transcoding result, or a passed deadline, leads to: the table's last column."""

    SUCCEED = msgid("status success; waiting classes proceed; list deleted")
    FALL_BACK = msgid("request ECS transcoding")
    FAIL = msgid("status failed; waiting classes refused with 208; list deleted; alarm")
    TIME_OUT = msgid("status timed out; waiting classes refused with 207; list deleted; alarm")
    ALARM = msgid("alarm, change nothing")
    CORRECT = msgid("correct the status of a timed-out rendition")
    IGNORE = msgid("counted, logged, changes nothing")


def stale(result: TranscodingResult, row: Rendition) -> bool:
    """Whether *result* is of an older attempt.

    Our own results carry their attempt. The cloud's do not: a failure from a backend other than the one at work is
    of an attempt that was given up.
    """
    if result.attempt is not None and result.attempt != row.attempt:
        return True
    given_up = row.backend is not None and result.type is not row.backend
    return given_up and not result.success and row.state is RenditionState.TRANSCODING


def outcome(result: TranscodingResult, row: Rendition | None, *, ecs: bool) -> Outcome:
    """The last column of the table for *result*; our own attempt that took longer than it may is timed out.

    Without an ECS transcoder there is nothing to fall back to, so a failure of the OSS transcoder is final.
    """
    if row is None:
        return Outcome.ALARM
    if stale(result, row):
        return Outcome.IGNORE
    match row.state, result.success, result.type:
        case RenditionState.TRANSCODING, True, _:
            return Outcome.SUCCEED
        case RenditionState.TRANSCODING, False, Backend.OSS:
            return Outcome.FALL_BACK if ecs else Outcome.FAIL
        case RenditionState.TRANSCODING, False, _:
            return Outcome.TIME_OUT if result.code == errors.TRANSCODE_TIMED_OUT.number else Outcome.FAIL
        case RenditionState.TIMED_OUT, True, _:
            return Outcome.CORRECT
        case _:
            return Outcome.IGNORE


_STATES = {
    Outcome.SUCCEED: RenditionState.SUCCESS,
    Outcome.CORRECT: RenditionState.SUCCESS,
    Outcome.FAIL: RenditionState.FAILED,
    Outcome.TIME_OUT: RenditionState.TIMED_OUT,
}


UNKNOWN_LIMIT_S = 3600.0
"""Seconds that an ECS attempt may take at most as long as its recording's duration is unknown, and within which a run
must take it up; that deadline is renewed while it waits for a host."""


def total_limit_s(duration_s: float | None) -> float:
    """How long an ECS attempt may take: three times the recording's duration and two minutes.

    One hour while the duration is unknown: it is known once the recording has been fetched.
    """
    return UNKNOWN_LIMIT_S if duration_s is None else 3 * duration_s + 120


def by_record(keys: Iterable[RenditionKey]) -> dict[int, list[Resolution]]:
    """The resolutions of each record together: one ffmpeg run makes them."""
    grouped: dict[int, list[Resolution]] = {}
    for record_id, resolution in keys:
        grouped.setdefault(record_id, []).append(resolution)
    return grouped


@dataclass
class Waiters:
    """The classes that wait for a rendition."""

    orders: Sequence[Order] = ()
    strangers: Sequence[str] = ()
    """The class_ids on its waiting list in Redis that are not booked here: the old program left them."""


def settle(
    changes: Changes, result: TranscodingResult, rows: dict[RenditionKey, Rendition], waiters: Waiters, loads: Loads
) -> Outcome:
    """Do what the table says about one result; *rows* are then as the result behind it finds them.

    *loads* are those of the streamers that classes can go to.
    """
    row = rows.get(result.key)
    what = outcome(result, row, ecs=bool(changes.settings.ecs_hosts))
    backend = result.type or (row and row.backend) or "unknown"
    word = "success" if result.success else "failed"  # the wire spells success in several ways
    changes.transcoded.append((str(backend), word))
    its = {"backend": backend, "stem": result.stem, "word": Text(word)}
    why = result.message or Text("{backend} transcoding of {stem}: {word}", **its)
    url = result.transcode_video_url or ""
    match what:
        case Outcome.SUCCEED:
            succeed(changes, result.key, url, waiters, loads)
        case Outcome.CORRECT:
            changes.remake(result.key, RenditionState.TIMED_OUT, RenditionState.SUCCESS, url=url)
        case Outcome.FAIL:
            give_up(changes, result.key, errors.TRANSCODE_FAILED, why, waiters)
        case Outcome.TIME_OUT:
            give_up(changes, result.key, errors.TRANSCODE_TIMED_OUT, why, waiters)
        case Outcome.FALL_BACK:
            changes.fell_back_to_ecs.append(result.key)
        case Outcome.ALARM:
            _unknown(changes, result, waiters.strangers)
    detail = Text("{backend}: {outcome}. {why}", backend=result.type or "?", outcome=what, why=why)
    changes.note(Text("result: {word}", word=word), stem=result.stem, detail=detail)
    changes.row(result.stem, what, detail=result.message or "")
    if row is not None:
        by = Backend.ECS if what is Outcome.FALL_BACK else row.backend
        rows[result.key] = replace(row, state=_STATES.get(what, row.state), backend=by)
    return what


def expire(changes: Changes, late: RenditionRow, url: str | None, waiters: Waiters, loads: Loads) -> None:
    """Settle a rendition whose deadline has passed; its output is at *url*, if at all. For *loads* see `settle`.

    With ON_TRANSCODE_TIMEOUT=ecs our own server tries it, if there is one, and it is not that one which is late.
    """
    settings = changes.settings
    if url is not None:
        what = Outcome.SUCCEED
        succeed(changes, late.key, url, waiters, loads)
    elif late.backend is not Backend.ECS and settings.on_transcode_timeout == "ecs" and settings.ecs_hosts:
        what = Outcome.FALL_BACK
        changes.fell_back_to_ecs.append(late.key)
    else:
        what = Outcome.TIME_OUT
        why = Text("no result of the {backend} transcoding in time", backend=late.backend or "old")
        give_up(changes, late.key, errors.TRANSCODE_TIMED_OUT, why, waiters)
    changes.transcoded.append((str(late.backend), what.name.lower()))
    changes.note(Text("deadline passed: {what}", what=what), stem=late.stem)
    changes.row(late.stem, what)


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
    changed = {class_of(order.class_id) for order in waiters.orders if order.revises is not None}
    what = [why]
    if refused or not changed:
        what.append(Text.many("{n:,} class refused", "{n:,} classes refused", n=len(refused)))
    if changed:
        what.append(Text.many("{n:,} change refused", "{n:,} changes refused", n=len(changed)))
    text = labelled(stem(*key), joined(what))
    changes.alarm(code, text, record_id=key[0], video_resolution=key[1], classes=refused)


def _unknown(changes: Changes, result: TranscodingResult, listed: Sequence[str]) -> None:
    """Raise an alarm for a result whose rendition has no row; its waiting list stays as it is."""
    text = Text("{stem}: a result came, and nobody asked for it", stem=result.stem)
    if listed:
        name = changes.settings.waiting_key.format(record_id=result.record_id, resolution=result.video_resolution)
        waiting = msgid("{result}. Who waits on its list is not answered: type redis-cli LRANGE {list} 0 -1")
        text = Text(waiting, result=text, list=name)
    changes.alarm(errors.UNKNOWN_RENDITION, text, record_id=result.record_id, video_resolution=result.video_resolution)


def _orphans(changes: Changes, key: RenditionKey, waiters: Waiters) -> None:
    """Refuse, with an alarm, the class_ids that the old program left on the waiting list: they are not booked here."""
    code = errors.ORPHANED_WAITER
    for class_id in dict.fromkeys(waiters.strangers):
        text = Text("{class_id} waited for {stem}; its booking is not known here", class_id=class_id, stem=stem(*key))
        changes.answer_class(class_id, code.number, text)
        changes.alarm(code, text, class_id=class_id)
        changes.row(class_id, "refuse", code=code.number, detail=text)


DAY_S = 86_400


def next_attempt(
    booking: Booking, key: RenditionKey, row: Rendition | RenditionRow | None, settings: TeacherSettings, now: float
) -> Attempt | Refuse:
    """The next transcoding of a rendition that nobody transcodes now, from *booking*'s URLs; or why it is refused."""
    record_id, resolution = key
    thing = stem(record_id, resolution)
    source_url = source(booking, resolution)
    has_oss = settings.oss_transcode_url is not None
    if source_url is None or not (has_oss or settings.ecs_hosts):
        why = Text("neither OSS nor ECS transcoding is set up")
        if source_url is None:
            why = Text("the booking names no source")
        return Refuse(labelled(thing, why), errors.NO_TRANSCODER)
    same_day = row is not None and abs(now - row.attempts_since) < DAY_S  # in the future if the clock was set back
    spent = row.attempts_today if row and same_day else 0
    if spent >= settings.max_attempts_a_day:
        return Refuse("{thing} failed {spent} times today", errors.ATTEMPTS_SPENT, thing=thing, spent=spent)
    return Attempt(
        record_id=record_id,
        resolution=resolution,
        attempt=(row.attempt if row else 0) + 1,
        attempts_today=spent + 1,
        attempts_since=row.attempts_since if row and same_day else now,
        backend=Backend.OSS if has_oss else Backend.ECS,
        deadline=now + (settings.transcoding_time_out_s if has_oss else UNKNOWN_LIMIT_S),
        source_url=source_url,
    )


def source(booking: Booking, wanted: Resolution) -> str | None:
    """The URL to transcode from: the smallest resolution that is at least *wanted*, else the largest there is.

    ``video_url`` is the original and states no resolution; it is taken before a listed URL that is too small.
    """
    order = list(Resolution)
    listed = booking.urls
    enough = [resolution for resolution in order[order.index(wanted) :] if resolution in listed]
    if enough:
        return listed[enough[0]]
    if booking.video_url is not None:
        return booking.video_url
    return next((listed[resolution] for resolution in reversed(order) if resolution in listed), None)


TRIES = 3
"""Number of attempts after which a rendition is given up, whether on several hosts or on one."""

FAILURES = 3
"""Number of failures in a row after which a host is put aside."""


_OF_SOURCE = frozenset({errors.DOWNLOAD_FAILED, errors.BAD_RECORDING, errors.HALF_A_RECORDING, errors.FORBIDDEN_ORIGIN})
_OF_NO_HOST = _OF_SOURCE | {errors.UPLOAD_FAILED, errors.TRANSCODE_TIMED_OUT}
"""The codes of errors that the source has caused, and of all that are no fault of the host."""


def is_of_host(error: LecternError) -> bool:
    """Whether the host is at fault. What ffmpeg refuses fails for good; after a bad output another host may succeed."""
    is_refused = error.code is errors.TRANSCODE_FAILED and isinstance(error, Refuse)
    return not is_refused and error.code not in _OF_NO_HOST


def again(error: LecternError, tries: int) -> bool:
    """Whether the job is retried after its *tries*-th failure, preferably on another host.

    Only a fault of the host, or a passing fault of the source, is retried: an upload that failed for a minute
    would fail on every host.
    """
    is_passing = error.code in _OF_SOURCE and isinstance(error, TryAgain)
    return tries < TRIES and (is_of_host(error) or is_passing)


def has_time(start: float, ready_before_s: float, now: float) -> bool:
    """Whether a job whose first class begins at *start* (epoch seconds) may wait for a host to come back."""
    return now + ready_before_s < start < math.inf


def host_for(
    hosts: Iterable[EcsHost], slots: int, avoid: Collection[str], now: float, *, may_wait: bool = False
) -> str | None:
    """The least loaded host with a free slot, for the next job; None if the job must wait for a free slot.

    Hosts to *avoid* are taken only if no other is usable, and hosts that are put aside only if the job may not wait.
    """
    listed = list(hosts)
    healthy = [host for host in listed if host.aside_until <= now]
    if not healthy and not may_wait:
        healthy = sorted(listed, key=lambda host: host.aside_until)[:1]
    usable = [host for host in healthy if host.name not in avoid] or healthy
    free = [host for host in usable if host.jobs < slots]
    return min(free, key=lambda host: host.jobs).name if free else None


def waits(windows: Windows, start: float, ready_before_s: float, now: float) -> bool:
    """Whether a job waits for the next window, because it will be done in it *ready_before_s* before the *start*.

    If not, it begins at once. *start* is that of its first class, in epoch seconds.
    """
    return not windows.rate_at(now) and windows.ends(UNKNOWN_LIMIT_S, now, 1.0) <= start - ready_before_s


def after_failure(host: EcsHost, now: float, aside_s: float) -> EcsHost:
    """The host after one more failure in a row."""
    failures = host.failures + 1
    return EcsHost(host.name, host.jobs, failures, now + aside_s if failures >= FAILURES else host.aside_until)


def first_start(keys: Iterable[RenditionKey], starts: Mapping[RenditionKey, float]) -> float:
    """When the first class begins that waits for one of *keys* (epoch seconds); infinite if no class waits."""
    return min((starts.get(key, math.inf) for key in keys), default=math.inf)
