"""What a streamer's bounded cache does with new classes: each cites a rendition, reserves room, or is refused."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum

from lectern import errors, formatting
from lectern.decide import readiness
from lectern.errors import DOWNLOAD_FAILED, ErrorCode, LecternError
from lectern.i18n import Text
from lectern.model.facts import Airing, Idle, Needed, Usage
from lectern.model.streamer_plan import StreamerChanges
from lectern.settings import StreamerSettings
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.wire.fields import called
from lectern.wire.messages import Prepare


class Admit(StrEnum):
    """How a class gets its rendition."""

    READY = "cached already"
    JOIN = "being downloaded already"
    RESERVE = "to be downloaded"
    FULL = "refuse with 316"


@dataclass(frozen=True)
class Bound:
    """The hard bound: used and reserved never exceed it."""

    max_bytes: int
    max_num: int
    by_disk: bool = False  # the free disk, not the setting, limits max_bytes


@dataclass(frozen=True)
class WantedRendition:
    """A class and the rendition that it needs; *size_bytes* is set only if the rendition is not in the cache."""

    class_id: str
    stem: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Admission:
    """What was decided about one class."""

    wanted: WantedRendition
    admit: Admit
    evictions: tuple[Idle, ...] = ()
    why: str = ""  # the reason for a refusal


def evictions(size_bytes: int, usage: Usage, bound: Bound, idle: Sequence[Idle]) -> tuple[Idle, ...] | None:
    """The renditions to evict so that *size_bytes* fit, least recently used first.

    None if they do not fit even then: then nothing is evicted.
    """
    over_bytes = usage.size_bytes + size_bytes - bound.max_bytes
    over_num = usage.num + 1 - bound.max_num
    chosen: list[Idle] = []
    for one in idle:
        if over_bytes <= 0 and over_num <= 0:
            break
        chosen.append(one)
        over_bytes -= one.size_bytes
        over_num -= 1
    return tuple(chosen) if over_bytes <= 0 and over_num <= 0 else None


def no_room(stem: str, size_bytes: int, usage: Usage, bound: Bound, idle: Sequence[Idle]) -> str:
    """Why *stem* does not fit even after all evictions: which bound it exceeds, and how full the cache would be."""
    if size_bytes > bound.max_bytes:
        why = Text("it is larger than the whole cache, {bytes:size} (MAX_VIDEO_SIZE)", bytes=bound.max_bytes)
        if bound.by_disk:
            why = Text("it is larger than the {bytes:size} that the disk has room for", bytes=bound.max_bytes)
        return _no_room(stem, size_bytes, why)
    needed = Usage(usage.size_bytes - sum(one.size_bytes for one in idle), usage.num - len(idle))
    if needed.num >= bound.max_num:
        why = Text.many(
            "booked classes need {needed:,} of {n:,} rendition (MAX_VIDEO_NUM)",
            "booked classes need {needed:,} of {n:,} renditions (MAX_VIDEO_NUM)",
            needed=needed.num,
            n=bound.max_num,
        )
        return _no_room(stem, size_bytes, why)
    sizes = {"needed": needed.size_bytes, "bytes": bound.max_bytes}
    why = Text("booked classes need {needed:size} of {bytes:size} (MAX_VIDEO_SIZE)", **sizes)
    if bound.by_disk:
        why = Text("booked classes need {needed:size} of {bytes:size} that the disk has room for", **sizes)
    return _no_room(stem, size_bytes, why)


def _no_room(stem: str, size_bytes: int, why: Text) -> Text:
    return Text("no room for {stem} ({size_bytes:size}): {why}", stem=stem, size_bytes=size_bytes, why=why)


def next_place(size_bytes: int, bound: Bound, needed: Iterable[Needed]) -> float | None:
    """When (epoch seconds) a new rendition of *size_bytes* first fits, if nothing else is booked.

    *needed* is what booked classes need: a rendition can be evicted when the last of its classes has ended. Both the
    number and the bytes must fit. None if it never fits, or if classes leave room for it even now.
    """
    held: dict[str, tuple[float, int]] = {}
    for one in needed:
        until, size = held.get(one.stem, (one.until, one.size_bytes))
        held[one.stem] = max(until, one.until), max(size, one.size_bytes)
    free_bytes = bound.max_bytes - sum(size for _, size in held.values())
    free_num = bound.max_num - len(held)
    if free_bytes >= size_bytes and free_num >= 1:
        return None
    for until, size in sorted(held.values()):
        free_bytes, free_num = free_bytes + size, free_num + 1
        if free_bytes >= size_bytes and free_num >= 1:
            return until
    return None


def with_next_place(why: str, at: float | None, now: float) -> str:
    """The reason *why* there is no room, followed by *at*, when there will be (epoch seconds), if that is known."""
    return (
        why
        if at is None
        else Text("{reason}; the next place for it is free at {when}", reason=why, when=formatting.when(at, now))
    )


def told_when(admissions: Iterable[Admission], bound: Bound, needed: Sequence[Needed], now: float) -> list[Admission]:
    """The same decisions; each refusal also says when there will be room.

    *needed* is what all booked classes need, including the classes just admitted.
    """
    return [
        replace(one, why=with_next_place(one.why, next_place(one.wanted.size_bytes, bound, needed), now))
        if one.admit is Admit.FULL
        else one
        for one in admissions
    ]


def admit(
    wanted: Iterable[WantedRendition],
    cached: Mapping[str, FileState],
    usage: Usage,
    bound: Bound,
    idle: Sequence[Idle],
) -> list[Admission]:
    """Decide a batch in its order; each class is decided after what the classes before it reserved and evicted.

    What any class of the batch needs is pinned from the start: evicting it for one class only to download it again for
    the next would be pointless.
    """
    batch = list(wanted)
    pinned = {one.stem for one in batch}
    now_cached = dict(cached)
    now_usage = usage
    now_idle = [one for one in idle if one.stem not in pinned]
    decided: list[Admission] = []
    for one in batch:
        state = now_cached.get(one.stem)
        if state in (FileState.READY, FileState.DOWNLOADING):
            decided.append(Admission(one, Admit.READY if state is FileState.READY else Admit.JOIN))
            continue
        gone = evictions(one.size_bytes, now_usage, bound, now_idle)
        if gone is None:
            decided.append(
                Admission(one, Admit.FULL, why=no_room(one.stem, one.size_bytes, now_usage, bound, now_idle))
            )
            continue
        decided.append(Admission(one, Admit.RESERVE, gone))
        now_idle = now_idle[len(gone) :]
        freed = sum(other.size_bytes for other in gone)
        now_usage = Usage(now_usage.size_bytes - freed + one.size_bytes, now_usage.num - len(gone) + 1)
        now_cached[one.stem] = FileState.DOWNLOADING
    return decided


# What a streamer does with new classes: each cites a cached rendition, reserves room for it, or is refused.


_WAS_READY = frozenset({AiringState.READY, AiringState.ON_AIR, AiringState.AIRED, AiringState.AIRED_WITH_GAPS})


@dataclass(frozen=True)
class Coming:
    """A recording that is not in the cache: its size, and the bytes of it that are still to be downloaded."""

    size_bytes: int
    left_bytes: int


def new_classes(
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


def wanted_renditions(
    changes: StreamerChanges, new: Sequence[Prepare], here: Set[str], coming: Mapping[str, Coming | LecternError]
) -> list[WantedRendition]:
    """The renditions to ask the cache for; refuses a class whose recording cannot be downloaded before its end.

    *here* are the renditions that are cached or being downloaded.
    """
    found: list[WantedRendition] = []
    for one in new:
        there = coming.get(one.stem)
        if one.end_time <= changes.now:
            changes.refuse(one, errors.ENDED, Text("it ended before its rendition was there"))
        elif one.stem in here:
            found.append(WantedRendition(one.class_id, one.stem))
        elif isinstance(there, Coming):
            refusal = _too_late(changes, one, there)
            if refusal is None:
                found.append(WantedRendition(one.class_id, one.stem, there.size_bytes))
            else:
                changes.refuse(one, *refusal)
        else:
            changes.refuse(one, *_why_not(there))
    return found


def _why_not(found: LecternError | None) -> tuple[ErrorCode, str]:
    if found is None:
        return DOWNLOAD_FAILED, Text("the origin does not say how large the recording is")
    return found.code or DOWNLOAD_FAILED, found.message


def _too_late(changes: StreamerChanges, one: Prepare, coming: Coming) -> tuple[ErrorCode, str] | None:
    """Why a recording cannot arrive before its class is over, even if no other download comes first; None if it can."""
    now, settings = changes.now, changes.settings
    takes_s = coming.left_bytes / settings.download_rate_bytes
    if now + takes_s < one.end_time:
        return None
    takes = _takes(coming.left_bytes, settings)
    why = Text(
        "{stem} cannot be there before the class ends in {left_s:span}: {why}",
        stem=one.stem,
        left_s=one.end_time - now,
        why=takes,
    )
    return errors.NOT_READY_FOR_START, why


def _takes(size_bytes: int, settings: StreamerSettings) -> str:
    return Text(
        "its download of {size_bytes:size} takes {took_s:span} at DOWNLOAD_RATE {download_rate}",
        size_bytes=size_bytes,
        took_s=size_bytes / settings.download_rate_bytes,
        download_rate=settings.download_rate,
    )


def cite_or_reserve(
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
