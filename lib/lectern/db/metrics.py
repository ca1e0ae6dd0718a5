"""The metrics of a resident process for Prometheus: its rows, counted at each request, and its own counters."""

import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Table, func, select

from lectern import __version__
from lectern.db import account, airings, bookings
from lectern.metrics import SEEN
from lectern.model.facts import Usage
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables import teacher as at_teacher
from lectern.model.tables.shared import MessageTables
from lectern.model.tables.shared import Role as Role  # noqa: PLC0414 (asked for here, too)
from lectern.states import BookingState, FileState, InboxState, RenditionState

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
    rows = CollectorRegistry()
    at = time.time() if now is None else now
    rows.register(_Read([_info(role, name), *_of(role, connection, at, bound), _backups(backup_ages_s or {})]))
    return generate_latest(rows) + generate_latest(SEEN)


def of_process(
    answers: Mapping[str, bool], lease_left_s: float | None, streamers: Mapping[str, int] | None = None
) -> bytes:
    """The metrics that need no rows: whether servers answer, how long a streamer may still push.

    *streamers*: at a teacher, the number of streamers by what their last heartbeats say.
    """
    answered = GaugeMetricFamily("lectern_server_answers", "Whether it answered when asked last.", labels=("server",))
    for server, has in answers.items():
        answered.add_metric([server], has)
    metrics: list[Metric] = [answered]
    if lease_left_s is not None:
        metrics.append(_gauge("lectern_lease_left_seconds", "Until the streamer has to stop pushing.", lease_left_s))
    if streamers is not None:
        known = GaugeMetricFamily(
            "lectern_streamers", "Streamers by what their last heartbeats say.", labels=("state",)
        )
        for state, number in streamers.items():
            known.add_metric([state], number)
        metrics.append(known)
    rows = CollectorRegistry()
    rows.register(_Read(metrics))
    return generate_latest(rows)


class _Read(Collector):
    """A collector of metrics that were read a moment ago."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self._metrics


def _info(role: Role, name: str) -> Metric:
    metric = InfoMetricFamily("lectern", "Which version serves which role.")
    metric.add_metric([], {"version": __version__, "role": role, "name": name})
    return metric


def _of(role: Role, connection: Connection, now: float, bound: Usage) -> Iterator[Metric]:
    if role == "teacher":
        yield from _bookings(connection, now)
        yield from _renditions(connection, now)
        yield from _messages(connection, at_teacher.journal, now)
    else:
        yield from _cache(connection, bound)
        yield from _airings(connection, now)
        yield from _messages(connection, at_streamer.journal, now)


def _backups(ages_s: Mapping[str, float]) -> Metric:
    metric = GaugeMetricFamily(
        "lectern_backup_age_seconds",
        "How old the newest proved backup is, on this host and off it; +Inf if there is none.",
        labels=("where",),
    )
    for where, age_s in ages_s.items():
        metric.add_metric([where], age_s)
    return metric


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(name, what, value=value)


def _bookings(connection: Connection, now: float) -> Iterator[Metric]:
    orders = at_teacher.orders
    by_code = GaugeMetricFamily("lectern_bookings", COUNTED, labels=("state", "code"))
    for (state, code), number in bookings.counts(connection, now).items():
        by_code.add_metric([state, str(code)], number)
    yield by_code
    waiting = orders.c.state == BookingState.WAITING
    oldest = select(func.count(), func.min(orders.c.received_at), func.min(orders.c.start_time)).where(waiting)
    number, since, start = connection.execute(oldest).one()
    yield _gauge("lectern_waiting_classes", "Classes that wait for a rendition.", number)
    yield _gauge("lectern_waiting_oldest_seconds", "How long the oldest one waits.", _age(since, now))
    slack = GaugeMetricFamily("lectern_waiting_slack_seconds", "Until the first waiting class begins.")
    if start is not None:
        slack.add_metric([], start - now)
    yield slack
    unanswered = orders.c.answered_at.is_(None) & (orders.c.state == BookingState.PLACED)
    late = connection.execute(select(func.min(orders.c.updated_at)).where(unanswered)).scalar_one()
    yield _gauge("lectern_placed_oldest_seconds", "How long the oldest placed class is unanswered.", _age(late, now))


def _renditions(connection: Connection, now: float) -> Iterator[Metric]:
    videos = at_teacher.videos
    yield _counted(connection, videos, "status", "lectern_renditions", "Renditions by status.")
    deadline = select(func.min(videos.c.deadline)).where(videos.c.status == RenditionState.TRANSCODING)
    earliest = connection.execute(deadline).scalar_one()
    slack = GaugeMetricFamily("lectern_rendition_slack_seconds", "Until the first deadline of a transcoding.")
    if earliest is not None:
        slack.add_metric([], earliest - now)
    yield slack


def _cache(connection: Connection, bound: Usage) -> Iterator[Metric]:
    files = at_streamer.files
    size = func.coalesce(func.sum(files.c.size_bytes), 0)
    ready = func.coalesce(files.c.state, FileState.READY) == FileState.READY
    pinned = ready & (func.coalesce(files.c.num_cite, 0) > 0)
    of_bytes = GaugeMetricFamily("lectern_cache_bytes", "Bytes of the cache.", labels=("kind",))
    for kind, which in (("used", ready), ("reserved", files.c.state == FileState.DOWNLOADING), ("pinned", pinned)):
        of_bytes.add_metric([kind], connection.execute(select(size).where(which)).scalar_one())
    of_bytes.add_metric(["bound"], bound.size_bytes)
    yield of_bytes
    yield _counted(connection, files, "state", "lectern_cache_renditions", "Renditions in the cache, by state.")
    number = select(func.count()).where(pinned)
    of_number = GaugeMetricFamily("lectern_cache_places", "Places of the cache for renditions.", labels=("kind",))
    of_number.add_metric(["pinned"], connection.execute(number).scalar_one())
    of_number.add_metric(["bound"], bound.num)
    yield of_number


def _airings(connection: Connection, now: float) -> Iterator[Metric]:
    classes = at_streamer.classes
    yield _counted(connection, classes, "state", "lectern_classes", "Classes of this streamer, by state.")
    # Not in SQL: an old program wrote some times as text.
    live = [airing for airing in airings.live(connection) if airing.end_time > now]
    due = [airing for airing in live if airing.start_time <= now]
    # By the last event of each class: after a cut, the row of a class still says *on air*.
    pushed = sum(sending.on_air for sending in account.sendings(connection, due).values())
    yield _gauge("lectern_pushes_on_air", "Classes that a receiver takes now.", pushed)
    yield _gauge("lectern_classes_not_on_air", "Classes that should be on air and are not.", len(due) - pushed)
    starts = [airing.start_time for airing in live if airing.start_time > now]
    following = GaugeMetricFamily("lectern_next_class_seconds", "Until the next class begins.")
    if starts:
        following.add_metric([], min(starts) - now)
    yield following


def _messages(connection: Connection, journal: MessageTables, now: float) -> Iterator[Metric]:
    yield _incidents(connection, journal)
    inbox, outbox = journal.inbox, journal.outbox
    new = select(func.count(), func.min(inbox.c.received_at)).where(inbox.c.state == InboxState.NEW)
    number, since = connection.execute(new).one()
    yield _gauge("lectern_inbox_messages", "Messages that are not handled.", number)
    yield _gauge("lectern_inbox_lag_seconds", "How long the oldest of them lies here.", _age(since, now))
    dead = select(func.count()).where(inbox.c.state == InboxState.DEAD)
    yield _gauge(
        "lectern_dead_letters",
        "Messages of the last week that could not be read.",
        connection.execute(dead).scalar_one(),
    )
    unsent = select(func.min(outbox.c.created_at)).where(outbox.c.sent_at.is_(None))
    lag = _age(connection.execute(unsent).scalar_one(), now)
    yield _gauge("lectern_outbox_lag_seconds", "How long the oldest unsent message lies here.", lag)


def _incidents(connection: Connection, journal: MessageTables) -> Metric:
    table = journal.incidents
    metric = GaugeMetricFamily("lectern_incidents", "Alarms that are not over, by code.", labels=("code",))
    counted = select(table.c.code, func.count()).where(table.c.resolved_at.is_(None)).group_by(table.c.code)
    for code, number in connection.execute(counted):
        metric.add_metric([str(code)], number)
    return metric


def _counted(connection: Connection, table: Table, column: str, name: str, what: str) -> Metric:
    metric = GaugeMetricFamily(name, what, labels=(column,))
    for value, number in connection.execute(select(table.c[column], func.count()).group_by(table.c[column])):
        metric.add_metric([str(value or "unknown")], number)
    return metric


def _age(since: float | None, now: float) -> float:
    return 0.0 if since is None else max(now - since, 0.0)
