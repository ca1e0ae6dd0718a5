"""Which classes the cache takes: cited, reserved for, or refused; all of it in the caller's transaction."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from flows.host import Host, log
from lectern import errors, outgoing
from lectern.decide import cache as decide
from lectern.decide import readiness
from lectern.decide.cache import Admit, Bound, Wanted
from lectern.effects.files import disk, store
from lectern.effects.files.origin import RemoteFile
from lectern.effects.rows import airings, cache, events, metrics, outbox, released
from lectern.errors import ErrorCode, LecternError, Refuse
from lectern.facts import Event, Idle, Usage
from lectern.messages import Prepare, Report
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState

Streamer = Host[StreamerSettings]
Looked = RemoteFile | LecternError


@dataclass
class Batch:
    """What one run did, and what is to follow the commit."""

    table: list[dict[str, object]] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)  # class_ids to be scheduled
    downloads: list[str] = field(default_factory=list)  # stems
    gone: list[Idle] = field(default_factory=list)  # evicted, their files still there

    def add(self, other: "Batch") -> None:
        """Take in what another portion did."""
        self.table += other.table
        self.ready += other.ready
        self.downloads += other.downloads
        self.gone += other.gone

    def row(self, class_id: str, decision: str, detail: str = "") -> None:
        """One line of the batch's table."""
        self.table.append({"class": class_id, "decision": decision, "detail": detail})


def admit(
    connection: Connection,
    host: Streamer,
    fresh: Sequence[Prepare],
    looked: dict[str, Looked],
    batch: Batch,
    now: float,
) -> None:
    """Decide the classes of *fresh* in their order: each is cited, reserved for, or refused."""
    settings = host.settings
    rows = cache.by_stem(connection, {one.stem for one in fresh})
    states = {stem: row.state for stem, row in rows.items()}
    here = {stem for stem, state in states.items() if state in (FileState.READY, FileState.DOWNLOADING)}
    wanted: list[Wanted] = []
    by_class = {one.class_id: one for one in fresh}
    for one in fresh:
        found = looked.get(one.stem)
        if one.stem in here:
            wanted.append(Wanted(one.class_id, one.stem))
        elif isinstance(found, RemoteFile) and (why := _too_late(settings, one, found.size_bytes, now)) is not None:
            refuse(connection, host, one, errors.NOT_READY_FOR_START, why, batch, now)
        elif isinstance(found, RemoteFile) and found.size_bytes is not None:
            wanted.append(Wanted(one.class_id, one.stem, found.size_bytes))
        else:
            code, why = _why_not(found)
            refuse(connection, host, one, code, why, batch, now)
    usage = cache.usage(connection, settings.video_root)
    bound = _bound(connection, settings, usage)
    need = sum(one.size_bytes for one in wanted) + max(0, usage.size_bytes - bound.max_bytes)
    idle = cache.idle(
        connection,
        but=here & {one.stem for one in wanted},
        size_bytes=need,
        num=len(wanted) + max(0, usage.num - bound.max_num),
    )
    admissions = decide.admit(wanted, states, usage, bound, idle)
    for admission in admissions:
        if not admission.evictions:
            continue
        cache.mark_evicting(connection, settings.video_root, admission.evictions)
        metrics.EVICTIONS.inc(len(admission.evictions))
        batch.gone.extend(admission.evictions)
        events.note(
            connection,
            host.journal,
            settings.name,
            [Event("evicted", stem=gone.stem) for gone in admission.evictions],
            now,
        )
    _cite(connection, host, [(by_class[one.wanted.class_id], one) for one in admissions], batch, now)


def sized(connection: Connection, host: Streamer, before: cache.Cached, size_bytes: int) -> None:
    """Make room for a download whose size nobody knew when it was asked for; its place is reserved already.

    What is evicted for it, the sweeper removes. Raises Refuse with 316 where it does not fit.
    """
    settings = host.settings
    usage = cache.usage(connection, settings.video_root)
    others = Usage(usage.size_bytes - before.size_bytes, usage.num - 1)
    bound = _bound(connection, settings, usage)
    over_bytes = max(0, others.size_bytes + size_bytes - bound.max_bytes)
    idle = cache.idle(connection, but=[before.stem], size_bytes=over_bytes, num=max(0, others.num + 1 - bound.max_num))
    gone = decide.evictions(size_bytes, others, bound, idle)
    if gone is None:
        raise Refuse(decide.no_room(before.stem, size_bytes, others, bound), errors.DISK_FULL)
    cache.mark_evicting(connection, settings.video_root, gone)
    metrics.EVICTIONS.inc(len(gone))
    noted = [Event("evicted", stem=one.stem) for one in gone]
    events.note(connection, host.journal, settings.name, noted, time.time())
    cache.resize(connection, settings.video_root, before, size_bytes)


def _bound(connection: Connection, settings: StreamerSettings, usage: Usage) -> Bound:
    room_bytes = _room_bytes(connection, settings, usage)
    by_disk = room_bytes < settings.max_bytes
    return Bound(min(settings.max_bytes, room_bytes), settings.max_video_num, by_disk=by_disk)


def _room_bytes(connection: Connection, settings: StreamerSettings, usage: Usage) -> int:
    """What the disk has room for in all: what is there, and what is free and not promised to downloads under way."""
    root = settings.video_root
    promised = sum(
        one.size_bytes - store.size_bytes(store.part_path(root, one.stem))
        for one in cache.downloading(connection, math.inf)
    )
    return max(0, usage.size_bytes + disk.free_bytes(root) - promised)


def _cite(
    connection: Connection,
    host: Streamer,
    admitted: Sequence[tuple[Prepare, decide.Admission]],
    batch: Batch,
    now: float,
) -> None:
    root, name = host.settings.video_root, host.settings.name
    sites = {stem: store.rendition_path(root, stem) for stem in {one.stem for one, _ in admitted}}
    new: list[tuple[Prepare, AiringState, str]] = []
    reports: list[Outgoing] = []
    for one, admission in admitted:
        site = sites[one.stem]
        if admission.admit is Admit.FULL:
            refuse(connection, host, one, errors.DISK_FULL, admission.why, batch, now)
            continue
        if admission.admit is Admit.RESERVE:
            size_bytes, source = admission.wanted.size_bytes, one.source
            cache.reserve(connection, root, one.stem, size_bytes, one.video_url, site, now, source=source)
            batch.downloads.append(one.stem)
            reports += _warn(host, one, size_bytes, now)
        state = AiringState.WAITING
        if admission.admit is Admit.READY:
            state = AiringState.READY
            reports.append(_outgoing(host, airings.report("prepared", one, name, message="cached")))
            batch.ready.append(one.class_id)
        new.append((one, state, str(site)))
        batch.row(one.class_id, admission.admit, one.stem)
    cited = Counter(one.stem for one, _, _ in new)
    for stem, number in cited.items():
        cache.cite(connection, stem, number, now)
    airings.add_all(connection, new, now)
    outbox.put(connection, host.journal, reports, now)
    noted = [
        Event(f"prepare: {admission.admit}", one.class_id, one.stem)
        for one, admission in admitted
        if admission.admit is not Admit.FULL
    ]
    events.note(connection, host.journal, name, noted, now)


def _too_late(settings: StreamerSettings, one: Prepare, size_bytes: int | None, now: float) -> str | None:
    """Why a recording cannot be there before its class is over, even if no other download is before it."""
    if size_bytes is None:
        return None
    left_bytes = size_bytes - store.size_bytes(store.part_path(settings.video_root, one.stem))
    takes_s = left_bytes / settings.download_rate_bytes
    if now + takes_s < one.end_time:
        return None
    takes = f"its {left_bytes:,} bytes take {takes_s:.0f} s at DOWNLOAD_RATE {settings.download_rate}"
    return f"{one.stem} cannot be there before the class ends in {max(one.end_time - now, 0):.0f} s: {takes}"


def _warn(host: Streamer, one: Prepare, size_bytes: int, now: float) -> list[Outgoing]:
    """An alarm where a recording cannot be there in time at DOWNLOAD_RATE, even if nothing is before it."""
    takes_s = size_bytes / host.settings.download_rate_bytes
    if one.start_time <= now or now + takes_s <= one.start_time:  # a late one is aired from the clock's position on
        return []
    takes = f"its {size_bytes:,} bytes take {takes_s:.0f} s at DOWNLOAD_RATE {host.settings.download_rate}"
    said = readiness.sentence(one.class_id, one.stem, one.start_time - now, [takes])
    log.warning("%s", said)
    code, name = errors.NOT_READY_FOR_START, host.settings.name
    return [host.alarm(outgoing.alarm(code, said, now, name, class_id=one.class_id, record_id=one.record_id))]


def refuse(
    connection: Connection, host: Streamer, one: Prepare, code: ErrorCode, why: str, batch: Batch, now: float
) -> None:
    """Keep the refusal, so that a second delivery gets the same one, and report it."""
    site = store.rendition_path(host.settings.video_root, one.stem)
    airings.add(connection, one, AiringState.REFUSED, str(site), now)
    released.note_refusal(connection, one.class_id, code, why, now)
    report(connection, host, airings.report("prepared", one, host.settings.name, code, why), now)
    events.note(
        connection,
        host.journal,
        host.settings.name,
        [Event("refused", one.class_id, one.stem, f"{code.number}: {why}")],
        now,
    )
    batch.row(one.class_id, f"refuse {code.number}", why)


def report(connection: Connection, host: Streamer, said: Report, now: float) -> None:
    """Put a report for the teacher in the outbox."""
    outbox.put(connection, host.journal, [_outgoing(host, said)], now)


def _outgoing(host: Streamer, said: Report) -> Outgoing:
    return Outgoing(host.settings.report_stream, Kind.STREAM, said, said.class_id)


def _why_not(found: Looked | None) -> tuple[ErrorCode, str]:
    if isinstance(found, LecternError):
        return found.code or errors.DOWNLOAD_FAILED, found.message
    return errors.DOWNLOAD_FAILED, "the origin does not say how large the recording is"


def again(connection: Connection, host: Streamer, known: airings.Airing, batch: Batch, now: float) -> None:
    """A second delivery changes nothing, and is answered as the first."""
    code = errors.CODES.get(known.code or 0)
    if known.state in {AiringState.READY, AiringState.ON_AIR, AiringState.AIRED}:
        report(connection, host, airings.report("prepared", known, host.settings.name, message="prepared"), now)
    elif code is not None:
        report(connection, host, airings.report("prepared", known, host.settings.name, code, known.message or ""), now)
    batch.row(known.class_id, f"again: {known.state}")
