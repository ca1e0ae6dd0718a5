"""Counts and times of a process's own work, for Prometheus; metrics of its rows are in `rows.metrics`."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

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
ALARMS = Counter("lectern_alarms", "Alarms that were sent, by code.", ("code",), registry=SEEN)
EVICTIONS = Counter("lectern_evictions", "Renditions that were evicted from the cache.", registry=SEEN)
DOWNLOAD_BYTES = Counter("lectern_download_bytes", "Bytes of renditions that were downloaded.", registry=SEEN)
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
