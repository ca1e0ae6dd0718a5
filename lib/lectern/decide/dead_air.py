"""Where a recording is black, frozen or silent, or has a hole, and whether it is too quiet or loud.

It is reported before the class.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lectern import words
from lectern.samples import Samples

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

NAMED = 5
"""Number of places that a warning names; it only counts the others."""

Stretch = tuple[float, float]


@dataclass(frozen=True)
class Fault:
    """A place in a recording, in seconds from its beginning."""

    what: str
    begins_s: float
    ends_s: float

    def text(self) -> str:
        """The span as people read it: ``black from 10:05 to 10:31``."""
        return f"{self.what} from {words.position(self.begins_s)} to {words.position(self.ends_s)}"


def faults(found: Samples) -> list[Fault]:
    """What is wrong with the recording, in time order."""
    black = _long(_black(found), BLACK_S)
    silent = _silent(found)
    least_s = FROZEN_S - SLACK_S
    frozen = _long(_both(_long(_frozen(found), least_s), _long(silent, least_s)), least_s)
    told = [Fault("nothing recorded", *one) for one in found.holes]
    told += [Fault("black", *one) for one in black]
    told += [Fault("frozen and silent", *one) for one in frozen if not _within(one, black)]
    told += [Fault("silent", *one) for one in _long(silent, SILENT_S - SLACK_S) if not _within(one, frozen)]
    return sorted(told, key=lambda one: (one.begins_s, one.ends_s))


def warning(found: Samples) -> str:
    """All faults in a sentence, with the loudness if that is wrong; empty if nothing is wrong."""
    places = faults(found)
    said = [one.text() for one in places[:NAMED]]
    said += [f"{len(places) - NAMED:,} more places"] if len(places) > NAMED else []
    loudness = found.loudness
    if loudness is not None and SILENCE < loudness < QUIET:
        said.append(f"very quiet ({loudness:.0f} LUFS)")
    elif loudness is not None and loudness > LOUD:
        said.append(f"very loud ({loudness:.0f} LUFS)")
    return "; ".join(said)


def _black(found: Samples) -> list[Stretch]:
    times = [at_s for at_s, _, _ in found.pictures]
    dark = [lightest <= DARK for _, lightest, _ in found.pictures]
    edges = [at for at in range(1, len(dark)) if dark[at] != dark[at - 1]]
    shown = pairwise([0, *edges, len(dark)])
    return [_widened(times, begin, beyond - 1, found.duration_s) for begin, beyond in shown if any(dark[begin:beyond])]


def _frozen(found: Samples) -> list[Stretch]:
    """Stretches in which at least two key frames show one picture."""
    times = [at_s for at_s, _, _ in found.pictures]
    begins = [at for at, (_, _, is_same) in enumerate(found.pictures) if not is_same]
    shown = pairwise([*begins, len(times)])
    return [_widened(times, first, beyond - 1, found.duration_s) for first, beyond in shown if beyond - first > 1]


def _silent(found: Samples) -> list[Stretch]:
    if not found.sounds:
        return [(0.0, found.duration_s)]
    stretches: list[Stretch] = []
    for second, loudest in found.sounds:
        if loudest > SILENCE:
            continue
        if stretches and second == stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], second + 1.0)
        else:
            stretches.append((second, second + 1.0))
    return stretches


def _widened(times: Sequence[float], first: int, last: int, duration_s: float) -> Stretch:
    """The stretch from key frame *first* to *last*, widened towards the key frames beside it by up to GAP_S."""
    before = times[first - 1] if first else 0.0
    after = times[last + 1] if last + 1 < len(times) else max(duration_s, times[last])
    return max(before, times[first] - GAP_S), min(after, times[last] + GAP_S)


def _both(some: Iterable[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    pairs = ((max(one[0], other[0]), min(one[1], other[1])) for one in some for other in others)
    return [(begin, end) for begin, end in pairs if begin < end]


def _long(stretches: Iterable[Stretch], least_s: float) -> list[Stretch]:
    return [one for one in stretches if one[1] - one[0] >= least_s]


def _within(one: Stretch, others: Iterable[Stretch]) -> bool:
    """Whether *one* lies inside one of *others*, give or take twice GAP_S at its ends."""
    return any(other[0] - 2 * GAP_S <= one[0] and one[1] <= other[1] + 2 * GAP_S for other in others)
