"""The next transcoding of a rendition: its source URL, backend and deadline; or the reason to refuse it."""

from dataclasses import dataclass

from lectern import errors
from lectern.decide.transcode import UNKNOWN_LIMIT_S
from lectern.errors import Refuse
from lectern.facts import Attempt, Rendition, RenditionKey
from lectern.messages import Booking
from lectern.settings import TeacherSettings
from lectern.states import Backend, Resolution
from lectern.stems import stem

DAY_S = 86_400


@dataclass(frozen=True)
class Limits:
    """The settings that the choice of an attempt depends on."""

    max_attempts_a_day: int
    transcoding_time_out_s: float  # bounds an OSS attempt
    ecs_time_out_s: float  # bounds an ECS attempt until its recording's duration is known
    oss: bool  # an OSS transcoder is set up
    ecs: bool  # an ECS transcoder is set up

    @classmethod
    def of(cls, settings: TeacherSettings) -> "Limits":
        """The limits that *settings* set."""
        return cls(
            settings.max_attempts_a_day,
            settings.transcoding_time_out_s,
            UNKNOWN_LIMIT_S,
            oss=settings.oss_transcode_url is not None,
            ecs=bool(settings.ecs_hosts),
        )


def next_attempt(
    booking: Booking, key: RenditionKey, row: Rendition | None, limits: Limits, now: float
) -> Attempt | Refuse:
    """The next transcoding of a rendition that nobody transcodes now, from *booking*'s URLs; or why it is refused."""
    record_id, resolution = key
    thing = stem(record_id, resolution)
    source_url = source(booking, resolution)
    if source_url is None or not (limits.oss or limits.ecs):
        why = "the booking names no source" if source_url is None else "neither OSS nor ECS transcoding is set up"
        return Refuse(f"{thing}: {why}", errors.NO_TRANSCODER)
    same_day = row is not None and abs(now - row.attempts_since) < DAY_S  # in the future if the clock was set back
    spent = row.attempts_today if row and same_day else 0
    if spent >= limits.max_attempts_a_day:
        return Refuse(f"{thing} failed {spent} times today", errors.ATTEMPTS_SPENT)
    backend = Backend.OSS if limits.oss else Backend.ECS
    return Attempt(
        record_id=record_id,
        resolution=resolution,
        attempt=(row.attempt if row else 0) + 1,
        attempts_today=spent + 1,
        attempts_since=row.attempts_since if row and same_day else now,
        backend=backend,
        deadline=now + (limits.transcoding_time_out_s if backend is Backend.OSS else limits.ecs_time_out_s),
        source_url=source_url,
    )


def source(booking: Booking, wanted: Resolution) -> str | None:
    """The URL to transcode from: the smallest resolution that is at least *wanted*, else the largest there is.

    ``video_url`` is the original and states no resolution; it is taken before a listed URL that is too small.
    """
    order = list(Resolution)
    listed = booking.urls
    enough = [one for one in order[order.index(wanted) :] if one in listed]
    if enough:
        return listed[enough[0]]
    if booking.video_url is not None:
        return booking.video_url
    return next((listed[one] for one in reversed(order) if one in listed), None)
