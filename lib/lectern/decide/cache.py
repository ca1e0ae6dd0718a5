"""What a streamer's bounded cache does with new classes: each cites a rendition, reserves room, or is refused."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter

from lectern import errors, formatting
from lectern.decide import readiness
from lectern.decide.bandwidth import Download
from lectern.decide.forecast import Ask, Forecast, will_be_there
from lectern.decide.gaps import LOST_S
from lectern.errors import DOWNLOAD_FAILED, LecternError
from lectern.i18n import Text, msgid
from lectern.model.facts import Airing, Idle, Needed, Usage
from lectern.model.streamer_plan import StreamerChanges
from lectern.settings import StreamerSettings
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.wire.fields import called, revised
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
    for rendition in idle:
        if over_bytes <= 0 and over_num <= 0:
            break
        chosen.append(rendition)
        over_bytes -= rendition.size_bytes
        over_num -= 1
    return tuple(chosen) if over_bytes <= 0 and over_num <= 0 else None


def no_room(stem: str, size_bytes: int, usage: Usage, bound: Bound, idle: Sequence[Idle]) -> str:
    """Why *stem* does not fit even after all evictions: which bound it exceeds, and how full the cache would be."""
    needed = Usage(usage.size_bytes - sum(rendition.size_bytes for rendition in idle), usage.num - len(idle))
    sizes = {"needed": needed.size_bytes, "bytes": bound.max_bytes}
    why = Text("booked classes need {needed:size} of {bytes:size} (MAX_VIDEO_SIZE)", **sizes)
    if size_bytes > bound.max_bytes and bound.by_disk:
        why = Text("it is larger than the {bytes:size} that the disk has room for", bytes=bound.max_bytes)
    elif size_bytes > bound.max_bytes:
        why = Text("it is larger than the whole cache, {bytes:size} (MAX_VIDEO_SIZE)", bytes=bound.max_bytes)
    elif needed.num >= bound.max_num:
        why = Text("booked classes need all places for renditions (MAX_VIDEO_NUM={places})", places=bound.max_num)
    elif bound.by_disk:
        why = Text("booked classes need {needed:size} of {bytes:size} that the disk has room for", **sizes)
    return Text("no room for {stem} ({size_bytes:size}): {why}", stem=stem, size_bytes=size_bytes, why=why)


def next_place(size_bytes: int, bound: Bound, needed: Iterable[Needed]) -> float | None:
    """When (epoch seconds) a new rendition of *size_bytes* first fits, if nothing else is booked.

    *needed* is what booked classes need: a rendition can be evicted when the last of its classes has ended. Both the
    number and the bytes must fit. None if it never fits, or if classes leave room for it even now.
    """
    held: dict[str, tuple[float, int]] = {}
    for need in needed:
        until, size = held.get(need.stem, (need.until, need.size_bytes))
        held[need.stem] = max(until, need.until), max(size, need.size_bytes)
    free_bytes = bound.max_bytes - sum(size for _, size in held.values())
    free_num = bound.max_num - len(held)
    if free_bytes >= size_bytes and free_num >= 1:
        return None
    for until, size in sorted(held.values()):
        free_bytes, free_num = free_bytes + size, free_num + 1
        if free_bytes >= size_bytes and free_num >= 1:
            return until
    return None


def told_when(admissions: Iterable[Admission], bound: Bound, needed: Sequence[Needed], now: float) -> list[Admission]:
    """The same decisions; each refusal also says when there will be room, if that is known.

    *needed* is what all booked classes need, including the classes just admitted.
    """
    told: list[Admission] = []
    for it in admissions:
        at = next_place(it.wanted.size_bytes, bound, needed) if it.admit is Admit.FULL else None
        free = msgid("{reason}; the next place for it is free at {when}")
        told.append(it if at is None else replace(it, why=Text(free, reason=it.why, when=formatting.when(at, now))))
    return told


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
    pinned = {rendition.stem for rendition in batch}
    now_cached = dict(cached)
    now_usage = usage
    now_idle = [rendition for rendition in idle if rendition.stem not in pinned]
    decided: list[Admission] = []
    for rendition in batch:
        state = now_cached.get(rendition.stem)
        if state in (FileState.READY, FileState.DOWNLOADING):
            decided.append(Admission(rendition, Admit.READY if state is FileState.READY else Admit.JOIN))
            continue
        gone = evictions(rendition.size_bytes, now_usage, bound, now_idle)
        if gone is None:
            why = no_room(rendition.stem, rendition.size_bytes, now_usage, bound, now_idle)
            decided.append(Admission(rendition, Admit.FULL, why=why))
            continue
        decided.append(Admission(rendition, Admit.RESERVE, gone))
        now_idle = now_idle[len(gone) :]
        freed = sum(other.size_bytes for other in gone)
        now_usage = Usage(now_usage.size_bytes - freed + rendition.size_bytes, now_usage.num - len(gone) + 1)
        now_cached[rendition.stem] = FileState.DOWNLOADING
    return decided


# What a streamer does with new classes: each cites a cached rendition, reserves room for it, or is refused.


_WAS_READY = frozenset({AiringState.READY, AiringState.ON_AIR, AiringState.AIRED, AiringState.AIRED_WITH_GAPS})


def new_classes(
    changes: StreamerChanges,
    prepares: Sequence[Prepare],
    known: Mapping[str, Airing],
    released: Mapping[str, int],
    barred: Mapping[str, str],
) -> list[Prepare]:
    """The classes that are new here, or that a later placement brings back after they were released, or were changed.

    *released* is the placement up to which each class was released before it came; *barred* are the push URLs that
    this streamer must not push to, each with the reason.
    """
    by_class: dict[str, Prepare] = {}
    for message in prepares:
        before = known.get(message.class_id)
        if message.placement <= released.get(message.class_id, 0) or (before is not None and is_cancelled(before)):
            changes.row(message.class_id, "was released before it came")
        elif before is None or (message.placement > before.placement and not _is_here(before, message)):
            latest = by_class.get(message.class_id, message)
            by_class[message.class_id] = message if message.placement > latest.placement else latest
        else:
            latest_placement = max(message.placement, before.placement)
            _again(changes, changes.become(before, {}, placement=latest_placement))
    for message in by_class.values():
        if (before := known.get(message.class_id)) is not None and before.state in LIVE_AIRINGS:
            changes.move(before, AiringState.CANCELLED)  # its release is on its way
        if message.push_url in barred:
            changes.refuse(message, errors.FORBIDDEN_PUSH_HOST, barred[message.push_url])
    return [message for message in by_class.values() if message.push_url not in barred]


def _is_here(airing: Airing, wanted: Prepare) -> bool:
    """Whether a class that comes back was not released yet, and is as it is booked now: it may have been changed."""
    as_booked = (wanted.stem, wanted.push_url, wanted.start_time, wanted.end_time)
    is_same = (airing.stem, airing.push_url, airing.start_time, airing.end_time) == as_booked
    return is_same and airing.state in LIVE_AIRINGS


def is_cancelled(airing: Airing) -> bool:
    """Whether the platform has cancelled a class: it does not come back, as one that was moved away may."""
    why = airing.code, airing.message or ""
    return airing.state is AiringState.CANCELLED and why == (errors.CANCELLED.number, "")


def _again(changes: StreamerChanges, known: Airing) -> None:
    """Repeat the report that the first prepare of a class got, if it got one; the class stays as it is."""
    code = errors.CODES.get(known.code or 0)
    if known.state in _WAS_READY:
        changes.report("prepared", known, message=msgid("prepared"))
    elif code is not None:
        changes.report("prepared", known, code, known.message or "")
    changes.row(known.class_id, f"again: {known.state}")


def wanted_renditions(
    changes: StreamerChanges, new: Sequence[Prepare], here: Set[str], coming: Mapping[str, Download | LecternError]
) -> list[WantedRendition]:
    """The renditions to ask the cache for; refuses a class that is over, or whose recording cannot be had.

    *here* are the renditions that are cached or being downloaded, *coming* what the origins say of the others.
    """
    renditions: list[WantedRendition] = []
    for message in new:
        there = coming.get(message.stem)
        if message.end_time <= changes.now:
            changes.refuse(message, errors.ENDED, Text("it ended before its rendition was there"))
        elif message.stem in here:
            renditions.append(WantedRendition(message.class_id, message.stem))
        elif isinstance(there, Download):
            renditions.append(WantedRendition(message.class_id, message.stem, there.size_bytes))
        elif there is None:
            changes.refuse(message, DOWNLOAD_FAILED, Text("the origin does not say how large the recording is"))
        else:
            changes.refuse(message, there.code or DOWNLOAD_FAILED, there.message)
    return renditions


def asks(
    changes: StreamerChanges,
    new: Mapping[str, Prepare],
    wanted: Sequence[WantedRendition],
    coming: Mapping[str, Download | LecternError],
    under_way: Mapping[str, Download],
) -> list[Ask]:
    """What is to be forecast: the classes among *wanted* whose renditions are *coming*, or *under_way*.

    A class must have its recording at its start, give or take what a class may lack that was aired whole; or before
    its end, if it was booked after its start, was promised by another streamer, is a revision of a class that needs
    the same recording, or ON_LATE is `slate`.
    """
    found: list[Ask] = []
    for rendition in wanted:
        message, begun = new[rendition.class_id], under_way.get(rendition.stem)
        is_revised = begun is not None and revised(message.class_id) is not None
        download = begun or coming.get(rendition.stem)
        if not isinstance(download, Download):
            continue
        was_placed, is_late = message.placement > 1, message.start_time <= changes.now
        slated = changes.settings.on_late == "slate"
        by_its_end = was_placed or is_late or is_revised or slated
        latest = message.end_time if by_its_end else min(message.start_time + LOST_S, message.end_time)
        download = replace(download, deadline=message.start_time)
        push = Needed(download.stem, download.size_bytes, message.end_time, message.start_time)
        found.append(Ask(message.class_id, download, latest, push, first=was_placed))
    return found


def refuse_late(changes: StreamerChanges, new: Mapping[str, Prepare], asked: Sequence[Ask], forecast: Forecast) -> None:
    """Refuse each class that would come too late, or make another one late, with the times."""
    for ask in asked:
        message, ready_at = new[ask.class_id], forecast.too_late.get(ask.class_id)
        if ready_at is None:
            continue
        its = {"stem": ask.download.stem, "why": _takes(ask.download.left_bytes, changes.settings)}
        if (other := forecast.harmed.get(ask.class_id)) is not None:
            why = Text("{stem} would come before {other}, which would be late for its class: {why}", other=other, **its)
        elif ready_at >= message.end_time or ask.latest == message.end_time:
            left_s = message.end_time - changes.now
            why = Text("{stem} cannot be there before the class ends in {left_s:span}: {why}", left_s=left_s, **its)
        else:
            at = formatting.when(ready_at, changes.now)
            late_s = ready_at - message.start_time
            why = Text(
                "{stem} will be there at {at}, {late_s:span} after the class begins: {why}", at=at, late_s=late_s, **its
            )
        changes.refuse(message, errors.NOT_READY_FOR_START, why)


def _takes(size_bytes: int, settings: StreamerSettings) -> str:
    """How long a download takes at the setting that limits it most."""
    each = "DOWNLOAD_RATE", settings.download_rate, settings.download_rate_bytes
    whole = "HOST_RATE", settings.host_rate, settings.host_rate_bytes
    setting, rate, bytes_a_second = min(each, whole, key=itemgetter(2))
    text = msgid("its download of {size_bytes:size} takes {took_s:span} at {setting} {rate}")
    return Text(text, size_bytes=size_bytes, took_s=size_bytes / bytes_a_second, setting=setting, rate=rate)


CACHED = msgid("cached")


def cite_or_reserve(
    changes: StreamerChanges,
    new: Mapping[str, Prepare],
    admissions: Sequence[Admission],
    urls: Mapping[str, str],
    ready_at: Mapping[str, float],
) -> None:
    """Do what the cache has decided about the classes *new*, by class_id; *urls* have answered, by stem.

    *ready_at* is when the renditions will be there for which classes wait, by class_id.
    """
    for admission in admissions:
        message = new[admission.wanted.class_id]
        if admission.evictions:
            changes.evict(admission.evictions)
        if admission.admit is Admit.FULL:
            changes.refuse(message, errors.DISK_FULL, admission.why)
            continue
        if admission.admit is Admit.RESERVE:
            changes.reserve(message.stem, admission.wanted.size_bytes, urls[message.stem], message.source)
        is_ready = admission.admit is Admit.READY
        changes.admit(message, AiringState.READY if is_ready else AiringState.WAITING)
        said = ""
        if is_ready:
            changes.report("prepared", message, message=CACHED)
        elif (at := ready_at.get(message.class_id)) is not None:
            said = will_be_there(message.stem, at, message.start_time, changes.now)
            if at > message.start_time + LOST_S and message.start_time > changes.now:
                _accept_late(changes, message, said, at)
        changes.note(f"prepare: {admission.admit}", message, said)
        changes.row(message.class_id, admission.admit, said or message.stem)


def _accept_late(changes: StreamerChanges, message: Prepare, said: str, at: float) -> None:
    """Raise an alarm for a class that begins before its recording is there; answer it now if ON_LATE is `slate`."""
    text = readiness.sentence(called(message.class_id), message.stem, message.start_time - changes.now, [said])
    changes.alarm(errors.NOT_READY_FOR_START, text, message, noted=False)
    if changes.settings.on_late == "slate" and message.placement == 1:
        until = formatting.when(at, changes.now)
        answer = Text("accepted; the slate is sent until about {until}", until=until)
        changes.report("prepared", message, message=answer)
