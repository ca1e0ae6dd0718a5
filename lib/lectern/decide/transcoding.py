"""What to do with a transcoding result or a passed deadline: the table of the design, row for row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from lectern.errors import TRANSCODE_TIMED_OUT
from lectern.facts import Rendition, RenditionKey
from lectern.messages import TranscodingResult
from lectern.states import Backend, RenditionState, Resolution
from lectern.stems import stem


class Any_(StrEnum):  # noqa: N801 (typing has the name without the underscore)
    """A column that may hold anything."""

    ANY = "any"


class Row(StrEnum):
    """The rendition's row, if it has no state."""

    NONE = "none"


class Outcome(StrEnum):
    """What a transcoding result leads to: the table's last column."""

    SUCCEED = "status success; waiting classes proceed; list deleted"
    FALL_BACK = "request ECS transcoding"
    FAIL = "status failed; waiting classes refused with 208; list deleted; alarm"
    TIME_OUT = "status timed out; waiting classes refused with 207; list deleted; alarm"
    ALARM = "alarm, change nothing"
    CORRECT = "correct the status of a timed-out rendition"
    IGNORE = "counted, logged, changes nothing"


TABLE: tuple[tuple[bool | Any_, Backend | Any_, RenditionState | Row | Any_, Outcome], ...] = (
    # success?, type, the rendition's row
    (Any_.ANY, Any_.ANY, Row.NONE, Outcome.ALARM),
    (True, Any_.ANY, RenditionState.TRANSCODING, Outcome.SUCCEED),
    (False, Backend.OSS, RenditionState.TRANSCODING, Outcome.FALL_BACK),
    (False, Backend.ECS, RenditionState.TRANSCODING, Outcome.FAIL),
    (True, Any_.ANY, RenditionState.TIMED_OUT, Outcome.CORRECT),
    (Any_.ANY, Any_.ANY, Any_.ANY, Outcome.IGNORE),
)
"""The first row that fits, from the top, decides. Results of older attempts are ignored before: see :func:`stale`."""


def stale(result: TranscodingResult, row: Rendition) -> bool:
    """Whether *result* is of an older attempt.

    Our own results carry their attempt. The cloud's do not: a failure from a backend other than the one at work is
    of an attempt that was given up.
    """
    if result.attempt is not None and result.attempt != row.attempt:
        return True
    given_up = row.backend is not None and result.type is not row.backend
    return given_up and not result.success and row.state is RenditionState.TRANSCODING


def outcome(result: TranscodingResult, row: Rendition | None) -> Outcome:
    """The last column of the table for *result*; our own attempt that took longer than it may is timed out."""
    if row is not None and stale(result, row):
        return Outcome.IGNORE
    found = Row.NONE if row is None else row.state
    for success, type_, state, what in TABLE:
        if success in (Any_.ANY, result.success) and type_ in (Any_.ANY, result.type) and state in (Any_.ANY, found):
            late = what is Outcome.FAIL and result.code == TRANSCODE_TIMED_OUT.number
            return Outcome.TIME_OUT if late else what
    raise AssertionError("the table ends with a row that fits everything")


@dataclass(frozen=True)
class Settled:
    """One transcoding result and what it leads to."""

    result: TranscodingResult
    outcome: Outcome

    @property
    def key(self) -> RenditionKey:
        """The rendition that the result is about."""
        return self.result.record_id, self.result.video_resolution

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(*self.key)


def settle(results: Iterable[TranscodingResult], rows: Mapping[RenditionKey, Rendition], *, ecs: bool) -> list[Settled]:
    """Decide a batch of results in their order, each with what the results before it have changed.

    Without an ECS transcoder there is nothing to fall back to, so a failure of the OSS transcoder is final.
    """
    now: dict[RenditionKey, Rendition] = dict(rows)
    decided: list[Settled] = []
    for result in results:
        key = (result.record_id, result.video_resolution)
        what = outcome(result, now.get(key))
        if what is Outcome.FALL_BACK and not ecs:
            what = Outcome.FAIL
        decided.append(Settled(result, what))
        if key in now:
            now[key] = _after(now[key], what)
    return decided


_STATES = {
    Outcome.SUCCEED: RenditionState.SUCCESS,
    Outcome.CORRECT: RenditionState.SUCCESS,
    Outcome.FAIL: RenditionState.FAILED,
    Outcome.TIME_OUT: RenditionState.TIMED_OUT,
}


def _after(row: Rendition, what: Outcome) -> Rendition:
    if what is Outcome.FALL_BACK:
        return replace(row, state=RenditionState.TRANSCODING, backend=Backend.ECS)
    return replace(row, state=_STATES.get(what, row.state))


class Overdue(StrEnum):
    """What to do with a rendition whose deadline has passed."""

    SUCCEED = "its output is there after all"
    FALL_BACK = "request ECS transcoding"
    TIME_OUT = "status timed out; waiting classes refused with 207; alarm"


def overdue(*, output_there: bool, backend: Backend | None, on_timeout: Literal["refuse", "ecs"], ecs: bool) -> Overdue:
    """What a passed deadline leads to; ``refuse`` is the documented setting, ``ecs`` tries our own server."""
    if output_there:
        return Overdue.SUCCEED
    if backend is not Backend.ECS and on_timeout == "ecs" and ecs:
        return Overdue.FALL_BACK
    return Overdue.TIME_OUT


UNKNOWN_LIMIT_S = 3600.0


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
