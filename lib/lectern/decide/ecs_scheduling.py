"""Which ECS host takes a job, and whether a failed job is retried."""

import math
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from lectern.decide.transcoding import UNKNOWN_LIMIT_S
from lectern.errors import (
    BAD_RECORDING,
    DOWNLOAD_FAILED,
    FORBIDDEN_ORIGIN,
    HALF_A_RECORDING,
    TRANSCODE_FAILED,
    TRANSCODE_TIMED_OUT,
    UPLOAD_FAILED,
    ErrorCode,
    LecternError,
    Refuse,
    TryAgain,
)
from lectern.model.facts import EcsHost, RenditionKey
from lectern.windows import Windows

TRIES = 3
"""Number of attempts after which a rendition is given up, whether on several hosts or on one."""

TAKES_S = UNKNOWN_LIMIT_S
"""Seconds that a job is expected to take at most, as its recording's length is not known before it begins."""

FAILURES = 3
"""Number of failures in a row after which a host is put aside."""


class Blame(StrEnum):
    """What failed."""

    SOURCE = "the source"
    TARGET = "where it is uploaded to"
    CLOCK = "the time"
    ENCODER = "the recording and ffmpeg"
    HOST = "the host"


BLAME: Mapping[ErrorCode, Blame] = {
    DOWNLOAD_FAILED: Blame.SOURCE,
    BAD_RECORDING: Blame.SOURCE,
    HALF_A_RECORDING: Blame.SOURCE,
    FORBIDDEN_ORIGIN: Blame.SOURCE,
    UPLOAD_FAILED: Blame.TARGET,
    TRANSCODE_TIMED_OUT: Blame.CLOCK,
}
"""Who is at fault, by the error's code; with another code, or none, it is the host."""


def blame(error: LecternError) -> Blame:
    """What is at fault. A source that ffmpeg refuses fails for good; after a bad output another host may succeed."""
    if error.code is TRANSCODE_FAILED and isinstance(error, Refuse):
        return Blame.ENCODER
    return Blame.HOST if error.code is None else BLAME.get(error.code, Blame.HOST)


def again(error: LecternError, tries: int) -> bool:
    """Whether the job is retried after its *tries*-th failure, preferably on another host.

    Only a fault of the host, or a passing fault of the source, is retried: an upload that failed for a minute
    would fail on every host.
    """
    if tries >= TRIES:
        return False
    fault = blame(error)
    return fault is Blame.HOST or (fault is Blame.SOURCE and isinstance(error, TryAgain))


def host_for(hosts: Iterable[EcsHost], slots: int, avoid: Collection[str], now: float) -> str | None:
    """The least loaded host with a free slot, for the next job; None if the job must wait for a free slot.

    Hosts that are put aside, and hosts to *avoid*, are taken only if no other is usable.
    """
    listed = list(hosts)
    healthy = [host for host in listed if host.aside_until <= now]
    healthy = healthy or sorted(listed, key=lambda host: host.aside_until)[:1]
    usable = [host for host in healthy if host.name not in avoid] or healthy
    free = [host for host in usable if host.jobs < slots]
    return min(free, key=lambda host: host.jobs).name if free else None


def waits(windows: Windows, start: float, ready_before_s: float, now: float) -> bool:
    """Whether a job waits for the next window, because it will be done in it *ready_before_s* before the *start*.

    If not, it begins at once. *start* is that of its first class, in epoch seconds.
    """
    return not windows.rate_at(now) and windows.ends(TAKES_S, now, 1.0) <= start - ready_before_s


def after_failure(host: EcsHost, now: float, aside_s: float) -> EcsHost:
    """The host after one more failure in a row."""
    failures = host.failures + 1
    return EcsHost(host.name, host.jobs, failures, now + aside_s if failures >= FAILURES else host.aside_until)


def first_start(keys: Iterable[RenditionKey], starts: Mapping[RenditionKey, float]) -> float:
    """When the first class begins that waits for one of *keys* (epoch seconds); infinite if no class waits."""
    return min((starts.get(key, math.inf) for key in keys), default=math.inf)
