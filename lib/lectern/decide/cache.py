"""What a streamer's bounded cache does with a class: cite, reserve and evict, or refuse."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from lectern import words
from lectern.facts import Idle, Needed, Usage
from lectern.states import FileState


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
class Wanted:
    """A class and the rendition that it needs; *size_bytes* is set only if the rendition is not in the cache."""

    class_id: str
    stem: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Admission:
    """What was decided about one class."""

    wanted: Wanted
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
    said = f"no room for {stem} ({words.size(size_bytes)}): "
    if size_bytes > bound.max_bytes:
        whole = words.size(bound.max_bytes)
        than = f"the {whole} that the disk has room for"
        return f"{said}it is larger than {than if bound.by_disk else f'the whole cache, {whole} (MAX_VIDEO_SIZE)'}"
    needed = Usage(usage.size_bytes - sum(one.size_bytes for one in idle), usage.num - len(idle))
    if needed.num >= bound.max_num:
        number = words.counted(bound.max_num, "rendition")
        return f"{said}booked classes need {needed.num:,} of {number} (MAX_VIDEO_NUM)"
    limit = "that the disk has room for" if bound.by_disk else "(MAX_VIDEO_SIZE)"
    return f"{said}booked classes need {words.size(needed.size_bytes)} of {words.size(bound.max_bytes)} {limit}"


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
    return why if at is None else f"{why}; the next place for it is free at {words.when(at, now)}"


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
    wanted: Iterable[Wanted],
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
