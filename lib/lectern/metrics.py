"""Counts and times of a process's own work, for Prometheus; metrics of its rows are in `db.metrics`."""

import math
from collections.abc import Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from lectern.states import Backend

disable_created_metrics()  # type: ignore[no-untyped-call]  # nothing here asks when a counter was made
SEEN = CollectorRegistry()
"""The registry of all metrics in this module."""

ProcessCollector(namespace="lectern", registry=SEEN)

ANSWER_SECONDS = Histogram(
    "lectern_answer_seconds",
    "From the arrival of a booking to its first answer.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800),
    registry=SEEN,
)
TRANSCODES = Counter(
    "lectern_transcodes", "Transcodings that ended, by backend and outcome.", ("backend", "outcome"), registry=SEEN
)
for _backend in Backend:  # an increase is seen only in a series that was there before
    for _outcome in ("failed", "time_out"):
        TRANSCODES.labels(_backend, _outcome)
ALARMS = Counter("lectern_alarms", "Alarms that were sent, by code.", ("code",), registry=SEEN)
EVICTIONS = Counter("lectern_evictions", "Renditions that were evicted from the cache.", registry=SEEN)
DOWNLOAD_BYTES = Counter("lectern_download_bytes", "Bytes of renditions that were downloaded.", registry=SEEN)
BANDWIDTH = Gauge(
    "lectern_bandwidth_bytes",
    "Bytes a second: what pushes need, what downloads may take, and the bound, if there is one.",
    ("use",),
    registry=SEEN,
)
FORECAST = Gauge(
    "lectern_forecast_left_seconds",
    "Seconds before its start at which the recording of the tightest class will be there; below 0: after it.",
    registry=SEEN,
)
FORECAST.set(math.nan)  # none waits
HEARD_AT = Gauge(
    "lectern_channels_heard_timestamp_seconds",
    "When the subscription to the channels last heard its own beat; 0 if there is none.",
    registry=SEEN,
)
DEAF = Counter(
    "lectern_deaf_subscriptions",
    "Subscriptions that no longer heard their own beat, and were made anew.",
    registry=SEEN,
)
RECONNECTS = Counter("lectern_push_reconnects", "Pushes that were taken up again within a class.", registry=SEEN)
MISSING = Histogram(
    "lectern_class_missing_seconds",
    "Seconds of each class that ended on air in which its recording was not sent.",
    buckets=(0.5, 1, 2, 5, 15, 60, 300, 1800),
    registry=SEEN,
)


def playout_exposition(status: Mapping[str, Any] | None) -> bytes:
    """The metrics of a playout's *status* in Prometheus' text format; None if the playout does not answer.

    Its counters begin at 0 with each worker.
    """
    registry = CollectorRegistry()
    Gauge("lectern_playout_up", "Whether the playout answers.", registry=registry).set(status is not None)
    if status is None:
        return generate_latest(registry)
    worker, classes = status["worker"], status["classes"]
    left_s = status["lease_until"] - status["boot_now"]
    sessions = sum(one["state"] == "on_air" for each in classes for one in each["pushes"])
    behind_s = max((each["behind_s"] for each in classes), default=0.0)
    for name, what, value in (
        ("lease_left_seconds", "Until the lease ends, without which nothing is sent.", max(left_s, 0.0)),
        ("classes_on_air", "Classes of which a receiver takes media.", worker["classes_on_air"]),
        ("sessions", "RTMP sessions of which a receiver takes media.", sessions),
        ("lateness_seconds", "How late the playout itself was at worst, in the last minute.", worker["lateness_s"]),
        ("behind_seconds", "How far the class that is furthest behind is behind the clock.", behind_s),
        ("slate_seconds", "Seconds of slate that the known classes have had.", worker["slate_s"]),
    ):
        gauge = Gauge(f"lectern_playout_{name}", what, registry=registry)
        gauge.set(value if math.isfinite(value) else 0.0)
    broke = "Sessions that broke off, or could not be made."
    Counter("lectern_playout_bytes", "Bytes of media that were sent.", registry=registry).inc(worker["bytes"])
    Counter("lectern_playout_reconnects", broke, registry=registry).inc(worker["reconnects"])
    return generate_latest(registry)
