"""What a streamer does with new classes: each cites a cached rendition, reserves room for it, or is refused."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from lectern import errors, words
from lectern.decide import readiness
from lectern.decide.cache import Admission, Admit, Wanted
from lectern.errors import DOWNLOAD_FAILED, ErrorCode, LecternError
from lectern.facts import Airing
from lectern.messages import Prepare
from lectern.settings import StreamerSettings
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.streamer_changes import StreamerChanges
from lectern.wire import called

_WAS_READY = frozenset({AiringState.READY, AiringState.ON_AIR, AiringState.AIRED, AiringState.AIRED_WITH_GAPS})


@dataclass(frozen=True)
class Coming:
    """A recording that is not in the cache: its size, and the bytes of it that are still to be downloaded."""

    size_bytes: int
    left_bytes: int


def fresh(
    changes: StreamerChanges,
    prepares: Sequence[Prepare],
    known: Mapping[str, Airing],
    released: Mapping[str, int],
    barred: Mapping[str, str],
) -> list[Prepare]:
    """The classes that are new here, or that a later placement brings back after they were released.

    *released* is the placement up to which each class was released before it came; *barred* are the push URLs that
    this streamer must not push to, each with the reason.
    """
    found: dict[str, Prepare] = {}
    for one in prepares:
        before = known.get(one.class_id)
        if one.placement <= released.get(one.class_id, 0):
            changes.row(one.class_id, "was released before it came")
        elif before is None or (one.placement > before.placement and before.state not in LIVE_AIRINGS):
            latest = found.get(one.class_id, one)
            found[one.class_id] = one if one.placement > latest.placement else latest
        else:
            if one.placement > before.placement:
                before = changes.become(before, {}, placement=one.placement)
            _again(changes, before)
    for one in found.values():
        if one.push_url in barred:
            changes.refuse(one, errors.FORBIDDEN_PUSH_HOST, barred[one.push_url])
    return [one for one in found.values() if one.push_url not in barred]


def _again(changes: StreamerChanges, known: Airing) -> None:
    """Repeat the report that the first prepare of a class got, if it got one; the class stays as it is."""
    code = errors.CODES.get(known.code or 0)
    if known.state in _WAS_READY:
        changes.report("prepared", known, message="prepared")
    elif code is not None:
        changes.report("prepared", known, code, known.message or "")
    changes.row(known.class_id, f"again: {known.state}")


def wanted(
    changes: StreamerChanges, new: Sequence[Prepare], here: Set[str], coming: Mapping[str, Coming | LecternError]
) -> list[Wanted]:
    """The renditions to ask the cache for; refuses a class whose recording cannot be downloaded before its end.

    *here* are the renditions that are cached or being downloaded.
    """
    found: list[Wanted] = []
    for one in new:
        there = coming.get(one.stem)
        if one.end_time <= changes.now:
            changes.refuse(one, errors.ENDED, "it ended before its rendition was there")
        elif one.stem in here:
            found.append(Wanted(one.class_id, one.stem))
        elif isinstance(there, Coming):
            refusal = _too_late(changes, one, there)
            if refusal is None:
                found.append(Wanted(one.class_id, one.stem, there.size_bytes))
            else:
                changes.refuse(one, *refusal)
        else:
            changes.refuse(one, *_why_not(there))
    return found


def _why_not(found: LecternError | None) -> tuple[ErrorCode, str]:
    if found is None:
        return DOWNLOAD_FAILED, "the origin does not say how large the recording is"
    return found.code or DOWNLOAD_FAILED, found.message


def _too_late(changes: StreamerChanges, one: Prepare, coming: Coming) -> tuple[ErrorCode, str] | None:
    """Why a recording cannot arrive before its class is over, even if no other download comes first; None if it can."""
    now, settings = changes.now, changes.settings
    takes_s = coming.left_bytes / settings.download_rate_bytes
    if now + takes_s < one.end_time:
        return None
    takes = _takes(coming.left_bytes, settings)
    why = f"{one.stem} cannot be there before the class ends in {words.span(one.end_time - now)}: {takes}"
    return errors.NOT_READY_FOR_START, why


def _takes(size_bytes: int, settings: StreamerSettings) -> str:
    took = words.span(size_bytes / settings.download_rate_bytes)
    return f"its download of {words.size(size_bytes)} takes {took} at DOWNLOAD_RATE {settings.download_rate}"


def take(
    changes: StreamerChanges, new: Mapping[str, Prepare], admissions: Sequence[Admission], urls: Mapping[str, str]
) -> None:
    """Do what the cache has decided about the classes *new*, by class_id; *urls* have answered, by stem."""
    for admission in admissions:
        one = new[admission.wanted.class_id]
        changes.evict(admission.evictions)
        if admission.admit is Admit.FULL:
            changes.refuse(one, errors.DISK_FULL, admission.why)
            continue
        if admission.admit is Admit.RESERVE:
            size_bytes = admission.wanted.size_bytes
            changes.reserve(one.stem, size_bytes, urls[one.stem], one.source)
            _warn(changes, one, size_bytes)
        is_ready = admission.admit is Admit.READY
        changes.admit(one, AiringState.READY if is_ready else AiringState.WAITING)
        if is_ready:
            changes.report("prepared", one, message="cached")
        changes.note(f"prepare: {admission.admit}", one)
        changes.row(one.class_id, admission.admit, one.stem)


def _warn(changes: StreamerChanges, one: Prepare, size_bytes: int) -> None:
    """Raise an alarm if a recording cannot arrive before its class begins, even if it is downloaded at once."""
    now, settings = changes.now, changes.settings
    takes_s = size_bytes / settings.download_rate_bytes
    if one.start_time <= now or now + takes_s <= one.start_time:  # a late class is aired from the clock's position on
        return
    said = readiness.sentence(called(one.class_id), one.stem, one.start_time - now, [_takes(size_bytes, settings)])
    changes.alarm(errors.NOT_READY_FOR_START, said, one, noted=False)
