"""Whether a class is ready for its start, what is wrong with its recording, and what follows if that is lost."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TypeVar

from lectern import errors
from lectern.decide.gaps import Stretch, both, merged
from lectern.errors import ErrorCode
from lectern.i18n import Text, joined, msgid
from lectern.model.facts import Airing, Cached, Samples
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import AiringState
from lectern.wire.fields import called

K = TypeVar("K", bound=Hashable)

CHECKS_S = (3600.0, 900.0, 300.0)
"""Seconds before the start at which a class is checked."""

LOOK_EVERY_S = 15.0
"""Seconds between two looks at the classes that are about to begin."""

LATE_AFTER_S = 30.0
"""Seconds that a class which was just booked has to get ready before it is called late."""

MAX_SKEW_S = 2.0
"""Seconds of difference from the shared clock from which a host begins its classes at the wrong second."""


@dataclass(frozen=True)
class Seen:
    """What was found of a class on its streamer."""

    state_ready: bool
    num_cite: int
    wanted_bytes: int
    found_bytes: int | None  # None if there is no file
    unreadable: str | None  # why the file cannot be read just now, which says nothing of it
    damaged: str | None  # why the file is not the recording that was downloaded
    unreachable: str | None  # why the push URL cannot be reached
    skew_s: float | None  # how far this host's clock is off; None if Redis did not answer
    lease: bool  # this streamer holds its lease, so it may push


def checks_due(starts: Mapping[K, float], now: float, done: Mapping[K, float]) -> dict[K, float]:
    """Which of `CHECKS_S` is due for each class, by its start; *done* has the last check made of each."""
    due: dict[K, float] = {}
    for key, start in starts.items():
        check = min((before_s for before_s in CHECKS_S if start - now <= before_s), default=math.inf)
        if start >= now and check < done.get(key, math.inf):
            due[key] = check
    return due


def reds(seen: Seen, late: str | None = None) -> list[str]:
    """Why the class is not ready, one reason each; empty if it is ready. *late* is a forecast that it will not be."""
    reasons: list[str] = []
    if not seen.state_ready:
        reasons += [Text("its rendition is not there yet"), *([late] if late else [])]
    elif seen.found_bytes is None:
        reasons.append(Text("its file is gone"))
    elif seen.found_bytes != seen.wanted_bytes:
        its = {"found_bytes": seen.found_bytes, "wanted_bytes": seen.wanted_bytes}
        reasons.append(Text("its file has {found_bytes} bytes, not {wanted_bytes}", **its))
    elif seen.unreadable:
        reasons.append(Text("its file cannot be read: {unreadable}", unreadable=seen.unreadable))
    elif seen.damaged:
        reasons.append(Text("its file is damaged: {damaged}", damaged=seen.damaged))
    if seen.num_cite < 1:
        reasons.append(Text("nothing pins its rendition"))
    if seen.unreachable:
        reasons.append(Text("its push URL cannot be reached: {unreachable}", unreachable=seen.unreachable))
    if seen.skew_s is not None and abs(seen.skew_s) > MAX_SKEW_S:
        reasons.append(Text("this host's clock is off by {skew_s:.1f} s", skew_s=seen.skew_s))
    if not seen.lease:
        reasons.append(Text("this streamer holds no lease: it does not reach Redis or its teacher"))
    return reasons


def lost_file(seen: Seen) -> str | None:
    """Why the file that a class needs must be downloaded again; None if it need not."""
    if not seen.state_ready:
        return None
    if seen.found_bytes is None:
        return Text("it is not on the disk")
    if seen.found_bytes != seen.wanted_bytes:
        its = {"found_bytes": seen.found_bytes, "wanted_bytes": seen.wanted_bytes}
        return Text("it has {found_bytes} bytes, not {wanted_bytes}", **its)
    return seen.damaged


def sentence(class_id: str, stem: str, left_s: float, why: Sequence[str]) -> str:
    """The text of the alarm for a class that is not ready, because of *why*."""
    its = {"class_id": class_id, "stem": stem, "why": joined(why)}
    if left_s < 0:
        late = msgid("{class_id} should have begun {late_s:minutes} ago and is not ready with {stem}: {why}")
        return Text(late, late_s=-left_s, **its)
    return Text("{class_id} begins in {left_s:minutes} and is not ready with {stem}: {why}", left_s=left_s, **its)


# Where a recording is black, frozen or silent, or has a hole, and whether it is too quiet or loud. It is reported
# before the class.


BLACK_S, FROZEN_S, SILENT_S = 10.0, 30.0, 60.0
"""Seconds after which a black picture, a still picture without sound, and silence are reported."""

DARK = 40
"""Brightness (0 to 255; black is 16) up to which a picture is black in all its parts; text on black exceeds it."""

SILENCE, QUIET, LOUD = -60.0, -36.0, -6.0
"""In LUFS: a second that is never louder than SILENCE is silent; a recording below QUIET or above LOUD is reported."""

SLACK_S = 2.0
"""Seconds by which a silence may be too short: its first and last second count as sound, being silent in part."""

GAP_S = 2.0
"""Seconds around a key frame that count as showing the same: what lies between two key frames is not looked at."""

WITHIN_S = 2 * GAP_S
"""Seconds by which a fault may exceed another one at each end that it is a part of."""

NAMED = 5
"""Number of places that a warning names; it only counts the others."""


def dead_air_faults(samples: Samples) -> list[Text]:
    """What is wrong with the recording, in time order, as people read it: ``black from 10:05 to 10:31``."""
    black = _long(_black(samples), BLACK_S)
    silent = _silent(samples)
    least_s = FROZEN_S - SLACK_S
    frozen = _long(both(_long(_frozen(samples), least_s), _long(silent, least_s)), least_s)
    hushed = _long(silent, SILENT_S - SLACK_S)
    places: dict[str, Sequence[Stretch]] = {
        msgid("nothing recorded from {begins_s:position} to {ends_s:position}"): samples.holes,
        msgid("black from {begins_s:position} to {ends_s:position}"): black,
        msgid("frozen and silent from {begins_s:position} to {ends_s:position}"): _not_within(frozen, black),
        msgid("silent from {begins_s:position} to {ends_s:position}"): _not_within(hushed, frozen),
    }
    faults = sorted((stretch, text) for text, stretches in places.items() for stretch in stretches)
    return [Text(text, begins_s=begins_s, ends_s=ends_s) for (begins_s, ends_s), text in faults]


def dead_air_warning(samples: Samples) -> str:
    """All faults in a sentence, with the loudness if that is wrong; empty if nothing is wrong."""
    faults = dead_air_faults(samples)
    texts = faults[:NAMED]
    texts += [Text("{more:,} more places", more=len(faults) - NAMED)] if len(faults) > NAMED else []
    loudness = samples.loudness
    if loudness is not None and SILENCE < loudness < QUIET:
        texts.append(Text("very quiet ({loudness:.0f} LUFS)", loudness=loudness))
    elif loudness is not None and loudness > LOUD:
        texts.append(Text("very loud ({loudness:.0f} LUFS)", loudness=loudness))
    return joined(texts)


def _black(samples: Samples) -> list[Stretch]:
    times = [at_s for at_s, _, _ in samples.pictures]
    shown = groupby(range(len(times)), key=lambda at: samples.pictures[at][1] <= DARK)
    stretches = [list(group) for is_dark, group in shown if is_dark]
    return [_widened(times, stretch[0], stretch[-1], samples.duration_s) for stretch in stretches]


def _frozen(samples: Samples) -> list[Stretch]:
    """Stretches that show one picture; one key frame alone is widened to less than is told."""
    times = [at_s for at_s, _, _ in samples.pictures]
    begins = [at for at, (_, _, is_same) in enumerate(samples.pictures) if not is_same]
    shown = pairwise([*begins, len(times)])
    return [_widened(times, first, beyond - 1, samples.duration_s) for first, beyond in shown]


def _silent(samples: Samples) -> list[Stretch]:
    if not samples.sounds:
        return [(0.0, samples.duration_s)]
    return merged((second, second + 1.0) for second, loudest in samples.sounds if loudest <= SILENCE)


def _widened(times: Sequence[float], first: int, last: int, duration_s: float) -> Stretch:
    """The stretch from key frame *first* to *last*, widened towards the key frames beside it by up to GAP_S."""
    before = times[first - 1] if first else 0.0
    after = times[last + 1] if last + 1 < len(times) else max(duration_s, times[last])
    return max(before, times[first] - GAP_S), min(after, times[last] + GAP_S)


def _long(stretches: Iterable[Stretch], least_s: float) -> list[Stretch]:
    return [stretch for stretch in stretches if stretch[1] - stretch[0] >= least_s]


def _not_within(stretches: Iterable[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    """Those of *stretches* that do not lie inside one of *others*, give or take WITHIN_S at their ends."""
    return [
        stretch
        for stretch in stretches
        if not any(other[0] - WITHIN_S <= stretch[0] and stretch[1] <= other[1] + WITHIN_S for other in others)
    ]


def fetch_again(changes: StreamerChanges, row: Cached, url: str | None, citing: Sequence[Airing], why: str) -> None:
    """Forget the file of *row*, which is lost as *why* says; reserve a download if classes need it.

    *citing* are the live classes that cite it: they wait for the download, or are refused if nobody knows a URL. A
    class on air goes on, with the slate.
    """
    needing = [airing for airing in citing if airing.state is not AiringState.WAITING]
    changes.lose(row)
    changes.note("its file is lost", detail=why, stem=row.stem)
    if needing and url:
        changes.reserve(row.stem, row.size_bytes, url, row.source)
        changes.cited[row.stem] += len(needing)
    waiting = [airing for airing in citing if airing.state in {AiringState.WAITING, AiringState.ON_AIR}]
    for airing in needing:
        if airing.state is not AiringState.READY:
            continue  # a broken class is not aired again
        waiting.append(changes.move(airing, AiringState.WAITING))
        if url:
            _alarm(changes, airing, Text("its file is lost: {reason}; it is downloaded again", reason=why))
    if needing and not url:
        text = Text("{stem}: {reason}, and no URL is known", stem=row.stem, reason=why)
        refuse_waiting(changes, waiting, errors.DOWNLOAD_FAILED, text)


def refuse_waiting(changes: StreamerChanges, waiting: Sequence[Airing], code: ErrorCode, why: str) -> None:
    """Refuse all classes that wait for a rendition that cannot be had; an alarm for each that was promised.

    A class on air is not refused: it goes on with the slate, and raises an alarm.
    """
    alarm_on_air(changes, [airing for airing in waiting if airing.state is AiringState.ON_AIR], why)
    for airing in waiting:
        if airing.state is AiringState.ON_AIR:
            continue
        after = changes.move(airing, AiringState.REFUSED, code, why)
        changes.report("prepared", after, code, why)
        if airing.lost:
            _alarm(changes, airing, Text("its file is lost and cannot be had again: {reason}", reason=why))


def alarm_on_air(changes: StreamerChanges, classes: Sequence[Airing], why: str) -> None:
    """Raise an alarm for each of *classes*, which go on with the slate."""
    for airing in classes:
        text = Text("{class_id}: its recording cannot be had again: {reason}", class_id=airing.class_id, reason=why)
        changes.alarm(errors.NO_RECORDING, text, airing)


def _alarm(changes: StreamerChanges, airing: Airing, why: str) -> None:
    text = sentence(called(airing.class_id), airing.stem, airing.start_time - changes.now, [why])
    changes.alarm(errors.NOT_READY_FOR_START, text, airing)
