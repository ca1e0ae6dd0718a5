"""The metrics of a resident process for Prometheus: its rows, counted at each request, and its own counters."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Table, func, select

from lectern import __version__
from lectern.db import account, airings, bookings, cache, outbox
from lectern.metrics import SEEN
from lectern.model.facts import Usage
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables import teacher as at_teacher
from lectern.states import AiringState, BookingState, FileState, InboxState, RenditionState, Role

_gauge = GaugeMetricFamily  # of one value, or of none if it is None
NO_BOUND = Usage(0, 0)
COUNTED = "Bookings by state and code: those that are not over, and those that came within a day."


def exposition(
    role: Role,
    name: str,
    connection: Connection,
    bound: Usage = NO_BOUND,
    backup_ages_s: Mapping[str, float] | None = None,
    now: float | None = None,
) -> bytes:
    """All metrics of a host in Prometheus' text format; *connection* reads its database.

    *backup_ages_s* is the age of its newest backup by where it is.
    """
    at = time.time() if now is None else now
    what = "How old the newest proved backup is, on this host and off it; +Inf if there is none."
    backups = _gauges("lectern_backup_age_seconds", what, "where", backup_ages_s or {})
    info = InfoMetricFamily("lectern", "Which version serves which role.")
    info.add_metric([], {"version": __version__, "role": role, "name": name})
    rows = [*_bookings(connection, at), *_renditions(connection, at)] if role == "teacher" else []
    rows += [*_cache(connection, bound), *_airings(connection, at)] if role == "streamer" else []
    rows += _messages(connection, at)
    return generate_latest(_Read([info, *rows, backups])) + generate_latest(SEEN)


def of_process(
    answers: Mapping[str, bool], lease_left_s: float | None, streamers: Mapping[str, int] | None = None
) -> bytes:
    """The metrics that need no rows: whether servers answer, how long a streamer may still push.

    *streamers*: at a teacher, the number of streamers by what their last heartbeats say.
    """
    metrics = [_gauges("lectern_server_answers", "Whether it answered when asked last.", "server", answers)]
    if lease_left_s is not None:
        metrics.append(_gauge("lectern_lease_left_seconds", "Until the streamer has to stop pushing.", lease_left_s))
    if streamers is not None:
        metrics.append(_gauges("lectern_streamers", "Streamers by what their last heartbeats say.", "state", streamers))
    return generate_latest(_Read(metrics))


class _Read(list[Metric], Collector):
    def collect(self) -> Iterable[Metric]:
        return self


def _gauges(name: str, what: str, label: str, values: Mapping[Any, float]) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=(label,))
    for of, value in values.items():
        metric.add_metric([str(of)], value)
    return metric


def _bookings(connection: Connection, now: float) -> Iterator[Metric]:
    orders = at_teacher.orders
    by_code = GaugeMetricFamily("lectern_bookings", COUNTED, labels=("state", "code"))
    for (state, code), number in bookings.counts(connection, now).items():
        by_code.add_metric([state, str(code)], number)
    yield by_code
    waiting = (orders.c.state == BookingState.WAITING) & at_teacher.IS_CLASS  # a class whose change waits goes on
    oldest = select(func.count(), func.min(orders.c.received_at), func.min(orders.c.start_time)).where(waiting)
    number, since, start = connection.execute(oldest).one()
    yield _gauge("lectern_waiting_classes", "Classes that wait for a rendition.", number)
    yield _gauge("lectern_waiting_oldest_seconds", "How long the oldest one waits.", _age(since, now))
    slack_s = None if start is None else start - now
    yield _gauge("lectern_waiting_slack_seconds", "Until the first waiting class begins.", slack_s)
    unanswered = orders.c.promised_at.is_(None) & (orders.c.state == BookingState.PLACED)
    late = connection.execute(select(func.min(orders.c.received_at)).where(unanswered)).scalar_one()
    yield _gauge("lectern_placed_oldest_seconds", "How long the oldest placed class is unanswered.", _age(late, now))


def _renditions(connection: Connection, now: float) -> Iterator[Metric]:
    videos = at_teacher.videos
    yield _counted(connection, videos, "status", "lectern_renditions", "Renditions by status.")
    deadline = select(func.min(videos.c.deadline)).where(videos.c.status == RenditionState.TRANSCODING)
    earliest = connection.execute(deadline).scalar_one()
    slack_s = None if earliest is None else earliest - now
    yield _gauge("lectern_rendition_slack_seconds", "Until the first deadline of a transcoding.", slack_s)


def _cache(connection: Connection, bound: Usage) -> Iterator[Metric]:
    files = at_streamer.files
    size = func.coalesce(func.sum(files.c.size_bytes), 0)
    pinned = cache.HERE & (func.coalesce(files.c.num_cite, 0) > 0)
    kinds = {"used": cache.HERE, "reserved": files.c.state == FileState.DOWNLOADING, "pinned": pinned}
    sums = {kind: connection.execute(select(size).where(which)).scalar_one() for kind, which in kinds.items()}
    yield _gauges("lectern_cache_bytes", "Bytes of the cache.", "kind", {**sums, "bound": bound.size_bytes})
    yield _counted(connection, files, "state", "lectern_cache_renditions", "Renditions in the cache, by state.")
    number = connection.execute(select(func.count()).where(pinned)).scalar_one()
    places = {"pinned": number, "bound": bound.num}
    yield _gauges("lectern_cache_places", "Places of the cache for renditions.", "kind", places)


def _airings(connection: Connection, now: float) -> Iterator[Metric]:
    classes = at_streamer.classes
    yield _counted(connection, classes, "state", "lectern_classes", "Classes of this streamer, by state.")
    # Not in SQL: an old program wrote some times as text.
    live = [airing for airing in airings.live(connection) if airing.end_time > now]
    due = [airing for airing in live if airing.start_time <= now]
    # By the last event of each class: after a cut, the row of a class still says *on air*.
    taken = [airing.class_id for airing in due if airing.state is AiringState.ON_AIR]
    pushed = len(account.pushed(connection, taken))
    yield _gauge("lectern_pushes_on_air", "Classes that a receiver takes now.", pushed)
    yield _gauge("lectern_classes_not_on_air", "Classes that should be on air and are not.", len(due) - pushed)
    starts = [airing.start_time for airing in live if airing.start_time > now]
    next_s = min(starts) - now if starts else None
    yield _gauge("lectern_next_class_seconds", "Until the next class begins.", next_s)


def _messages(connection: Connection, now: float) -> Iterator[Metric]:
    inbox, table = at_teacher.journal.inbox, at_teacher.journal.incidents
    counted = select(table.c.code, func.count()).where(table.c.resolved_at.is_(None)).group_by(table.c.code)
    incidents = {str(code): number for code, number in connection.execute(counted)}
    yield _gauges("lectern_incidents", "Alarms that are not over, by code.", "code", incidents)
    new = select(func.count(), func.min(inbox.c.received_at)).where(inbox.c.state == InboxState.NEW)
    number, since = connection.execute(new).one()
    yield _gauge("lectern_inbox_messages", "Messages that are not handled.", number)
    yield _gauge("lectern_inbox_lag_seconds", "How long the oldest of them lies here.", _age(since, now))
    dead = connection.execute(select(func.count()).where(inbox.c.state == InboxState.DEAD)).scalar_one()
    yield _gauge("lectern_dead_letters", "Messages of the last week that could not be read.", dead)
    lag_s = _age(outbox.oldest_unsent(connection), now)
    yield _gauge("lectern_outbox_lag_seconds", "How long the oldest unsent message lies here.", lag_s)


def _counted(connection: Connection, table: Table, column: str, name: str, what: str) -> Metric:
    counted = connection.execute(select(table.c[column], func.count()).group_by(table.c[column]))
    return _gauges(name, what, column, {value or "unknown": number for value, number in counted})


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(now - since, 0.0)
