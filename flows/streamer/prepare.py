"""Prepares classes: origins and push hosts are looked at, each class cites or downloads a rendition, or is refused."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows.failures import words
from flows.handling import BatchResult, Delivery, ended, handled, put_off, read
from flows.host import NOWHERE, StreamerHost, current, log
from flows.outbox_publisher import publish_outbox
from flows.playout_link import boot_now
from flows.streamer import bandwidth
from lectern import urls
from lectern.allowlist import PUBLIC, Address, Allowlist
from lectern.db import account, airings, cache, events, forecast
from lectern.decide import cache as decide_cache
from lectern.decide import forecast as decide_forecast
from lectern.decide.airing import AIRED, CODES, RUN_AHEAD_S, STORY
from lectern.decide.bandwidth import Download
from lectern.decide.cache import Admit, Bound, WantedRendition
from lectern.decide.forecast import Forecast
from lectern.decide.gaps import longest
from lectern.decide.leases import WITNESS_S
from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, Caught, LecternError, Refuse, TryAgain
from lectern.i18n import Text
from lectern.model.facts import Cached, Idle, Needed, RemoteFile, Usage
from lectern.model.streamer_plan import AS_RUN_TOLD, StreamerChanges
from lectern.model.tables.streamer import as_runs
from lectern.rendition_ids import HeldStem
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir, disk, origin
from lectern.urls import redact_url
from lectern.wire.messages import Prepare
from lectern.wire.outgoing import Alarm

Asked = Delivery[Prepare]
ProbeResult = RemoteFile | LecternError
PROBES, PROBES_AT_HOST = 128, 16
"""Number of recordings looked at side by side, in all, and at one host: a slow host must not hold up the others."""

THERE = frozenset({FileState.READY, FileState.DOWNLOADING})
NOTHING_COMES = Usage(0, 0), Bound(0, 0), list[Idle]()  # the room of the cache for classes that need none
URLS = 3  # number of URLs of one recording that are tried, the youngest first: each booking brings a newly signed one
PORTION_S = 1.0
"""Seconds after which the classes whose recordings were looked at wait no longer for the others of their batch."""


def prepares(deliveries: Sequence[Asked]) -> Iterator[Prepare]:
    """The messages among *deliveries* that could be parsed."""
    return (delivery.message for delivery in deliveries if isinstance(delivery.message, Prepare))


def with_stems(connection: Connection, deliveries: Sequence[Asked]) -> tuple[list[Asked], dict[str, Cached]]:
    """The same messages, each with its rendition named beside what is cached.

    Returns also those of the renditions that are there, or being downloaded.
    """
    asked = {prepared.named({}).stem for prepared in prepares(deliveries)}
    rows = cache.by_stem(connection, asked)
    held = {stem: HeldStem(row.source, row.url) for stem, row in rows.items() if row.state in THERE}
    resolved: list[Asked] = []
    for delivery in deliveries:
        if isinstance(delivery.message, Prepare):
            message = delivery.message.named(held)
            if message.stem not in held:
                held[message.stem] = HeldStem(message.source, message.video_url)
            resolved.append(Delivery(delivery.kept, message))
        else:
            resolved.append(delivery)
    if others := {prepared.stem for prepared in prepares(resolved)} - asked:
        rows |= cache.by_stem(connection, others)
    return resolved, {stem: row for stem, row in rows.items() if row.state in THERE}


async def as_probed(
    host: StreamerHost, deliveries: Sequence[Asked]
) -> AsyncGenerator[tuple[list[Asked], dict[str, ProbeResult]], None]:
    """The classes in batches, as soon as the size of their recordings is known, with what their origins said.

    So an origin that takes its time holds up no class of another one.
    """
    looks = left = probes(host, deliveries)
    try:
        while left:
            await asyncio.wait(left.values(), timeout=PORTION_S)
            looked = {stem: task.result() for stem, task in left.items() if task.done()}
            left = {stem: task for stem, task in left.items() if stem not in looked}
            if looked:
                yield [it for it in deliveries if isinstance(it.message, Prepare) and it.message.stem in looked], looked
    finally:
        for task in looks.values():
            task.cancel()


async def of_download(host: StreamerHost, row: Cached, came: RemoteFile | None = None) -> RemoteFile:
    """What the origin promises of a recording that is to be downloaded, by its own URL or that of the youngest booking.

    A signed URL may expire, and its origin go away for good, while its download waits for others, or has to go on after
    a break. Raises Refuse with what the origin said to its own URL, and TryAgain: an origin that is away for a moment
    is waited for if the other one has another file than that of which a part *came*, which would be thrown away.
    """
    allowed, timeout_s = Allowlist.listed(host.settings.allowed_origins), host.settings.http_timeout_s
    try:
        return await origin.look(row.url or "", allowed=allowed, timeout_s=timeout_s)
    except (Refuse, TryAgain) as error:
        youngest = await host.read_tx(airings.latest_url, row.stem)
        if youngest in (None, row.url):
            raise
        with suppress(Refuse):
            its = await origin.look(str(youngest), allowed=allowed, timeout_s=timeout_s)
            if came is None or isinstance(error, Refuse) or its.promise == came.promise:
                return its
        raise


def probes(host: StreamerHost, deliveries: Sequence[Asked]) -> dict[str, asyncio.Task[ProbeResult]]:
    """Send one HEAD request per rendition; a failure is returned as its error, and the others go on.

    If classes name the rendition by several URLs, the next one is tried after a failure: a bad URL is its own class's.
    """
    named: defaultdict[str, list[str]] = defaultdict(list)
    for message in prepares(deliveries):
        named[message.stem].insert(0, message.video_url)
    allowed = Allowlist.listed(host.settings.allowed_origins)
    gate = asyncio.Semaphore(PROBES)
    gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PROBES_AT_HOST))

    async def ask(url: str) -> ProbeResult:
        with Caught() as failed:
            async with gates[urlsplit(url).netloc], gate:
                timeout_s, later = host.settings.http_timeout_s, not host.settings.windows.are_always
                return await origin.look(url, allowed=allowed, timeout_s=timeout_s, first_bytes=later)
        if isinstance(failed.error, LecternError):
            return failed.error
        assert failed.error is not None
        why = words(failed.error)
        log.error("%s: cannot be looked at: %s", redact_url(url), why)
        return Refuse("{url}: cannot be looked at: {reason}", DOWNLOAD_FAILED, url=redact_url(url), reason=why)

    async def first(urls: Collection[str]) -> ProbeResult:
        failed: list[ProbeResult] = []
        for url in urls:
            answer = await ask(url)
            if not isinstance(answer, LecternError):
                return replace(answer, url=url)  # not where it was redirected to, which may be valid only once
            failed.append(answer)
        return failed[0]

    return {stem: asyncio.create_task(first([*dict.fromkeys(urls)][:URLS])) for stem, urls in named.items()}


# Which classes the cache takes, by what it holds and what the disk has room for; read in the caller's transaction.


def decided_classes(
    looked: Mapping[str, ProbeResult],
    barred: Mapping[str, str],
    connection: Connection,
    changes: StreamerChanges,
    prepares: Sequence[Prepare],
) -> None:
    """Decide the classes of *prepares*, by what was *looked* up of their recordings; *barred* has bad push URLs."""
    class_ids = [message.class_id for message in prepares]
    known = airings.by_id(connection, class_ids)
    gone = airings.released_before(connection, class_ids)
    for class_id, airing in known.items():
        if airing.state in AIRED:  # its teacher asks again, so the report of its end has not come there
            parts = longest(events.parts_of(connection, [class_id], as_runs).get(class_id, ()), AS_RUN_TOLD)
            story = account.story_events(connection, class_id, STORY)
            changes.report("ended", airing, CODES.get(airing.state), airing.message or "", parts, story)
    admit(connection, changes, decide_cache.new_classes(changes, prepares, known, gone, barred), looked)


def admit(
    connection: Connection, changes: StreamerChanges, new: Sequence[Prepare], looked: Mapping[str, ProbeResult]
) -> None:
    """Decide the classes *new* in their order: each is cited, reserved for, or refused."""
    rows = cache.by_stem(connection, {message.stem for message in new})
    states = {stem: row.state for stem, row in rows.items()}
    here = {stem for stem, state in states.items() if state in THERE}
    origins = _coming(changes, looked, {message.stem for message in new} - here) if looked else {}
    wanted, by_id = decide_cache.wanted_renditions(changes, new, here, origins), {one.class_id: one for one in new}
    under_way: Mapping[str, Download] = {}
    predicted = Forecast()
    if any(states.get(rendition.stem) is not FileState.READY for rendition in wanted):
        under_way = forecast.downloads(connection, changes.settings)
        asks = decide_cache.asks(changes, by_id, wanted, origins, under_way)
        slow = decide_forecast.slowness(changes.checks)
        capacity = forecast.capacity(connection, changes.settings, changes.now, slow)
        predicted = decide_forecast.forecast(asks, list(under_way.values()), capacity, changes.now)
        decide_cache.refuse_late(changes, by_id, asks, predicted)
        wanted = [rendition for rendition in wanted if rendition.class_id not in predicted.too_late]
    coming = [rendition for rendition in wanted if rendition.stem not in here]
    pinned = here & {rendition.stem for rendition in wanted}
    usage, bound, idle = _room(connection, changes, under_way, pinned, coming) if coming else NOTHING_COMES
    admissions = decide_cache.admit(wanted, states, usage, bound, idle)
    if any(admission.admit is Admit.FULL for admission in admissions):
        sizes = {stem: row.size_bytes for stem, row in rows.items()} | {
            it.wanted.stem: it.wanted.size_bytes for it in admissions if it.admit is Admit.RESERVE
        }
        mine = {it.wanted.class_id for it in admissions if it.admit is not Admit.FULL}
        needed = list(airings.needed(connection, changes.now))
        needed += [Needed(it.stem, sizes[it.stem], it.end_time) for it in new if it.class_id in mine]
        admissions = decide_cache.told_when(admissions, bound, needed, changes.now)
    urls = {stem: remote.url for stem, remote in looked.items() if isinstance(remote, RemoteFile)}
    decide_cache.cite_or_reserve(changes, by_id, admissions, urls, predicted.ready_at)
    # A class on air, or a broken one, still cites a recording that was lost and could not be had again.
    if changes.reserved:
        changes.cited.update(airings.citations(connection, changes.reserved))


def _room(
    connection: Connection,
    changes: StreamerChanges,
    under_way: Mapping[str, Download],
    pinned: Collection[str],
    coming: Sequence[WantedRendition],
) -> tuple[Usage, Bound, list[Idle]]:
    """What the cache has, what it may have, and what can be evicted for *coming*; the renditions *pinned* stay.

    On the disk it may have what it has, and what is free and not reserved.
    """
    settings = changes.settings
    usage = cache.used(connection, settings.video_root)
    promised = sum(one.size_bytes - one.came_bytes for one in under_way.values())
    room_bytes = max(0, usage.size_bytes + disk.free_bytes(settings.video_root) - promised)
    by_disk = room_bytes < settings.max_bytes
    bound = Bound(min(settings.max_bytes, room_bytes), settings.max_video_num, by_disk=by_disk)
    size_bytes = sum(rendition.size_bytes for rendition in coming) + max(0, usage.size_bytes - bound.max_bytes)
    num = len(coming) + max(0, usage.num - bound.max_num)
    return usage, bound, cache.idle(connection, but=pinned, size_bytes=size_bytes, num=num)


def _coming(
    changes: StreamerChanges, looked: Mapping[str, ProbeResult], stems: set[str]
) -> dict[str, Download | LecternError]:
    """What the origins say of the recordings that are not here; a recording without a known size is left out."""
    coming: dict[str, Download | LecternError] = {}
    for stem in stems & looked.keys():
        remote = looked[stem]
        if isinstance(remote, LecternError):
            coming[stem] = remote
        elif remote.size_bytes is not None:
            part = cache_dir.part_path(changes.settings.video_root, stem)
            coming[stem] = Download(stem, remote.size_bytes, came_bytes=cache_dir.size_bytes(part))
    return coming


def sized(connection: Connection, changes: StreamerChanges, before: Cached, size_bytes: int) -> None:
    """Make room for a download whose size nobody knew when it was asked for; its place is reserved already.

    Raises Refuse with 316 if the download does not fit.
    """
    wanted = WantedRendition("", before.stem, size_bytes)
    under_way = forecast.downloads(connection, changes.settings)
    usage, bound, idle = _room(connection, changes, under_way, [before.stem], [wanted])
    others = Usage(usage.size_bytes - before.size_bytes, usage.num - 1)
    (found,) = decide_cache.admit([wanted], {}, others, bound, idle)
    if found.admit is Admit.FULL:
        needed = [need for need in airings.needed(connection, changes.now) if need.stem != before.stem]
        raise Refuse(decide_cache.told_when([found], bound, needed, changes.now)[0].why, DISK_FULL)
    changes.evict(found.evictions)
    changes.resize(before, size_bytes)


@flow(name="prepare", persist_result=False, result_storage=NOWHERE)
async def prepare(inbox_ids: str, dry_run: bool = False) -> State[None]:
    """Prepare the classes of *inbox_ids*: cite cached renditions, reserve and download the others."""
    host: StreamerHost = current.get()
    batch = await read(host, inbox_ids, (Prepare,), dry_run=dry_run)
    # The streamer that had a moved class may rely for WITNESS_S on our answer that we are cut off, and go on airing it.
    moved = {it.kept.id for it in batch.came if isinstance(it.message, Prepare) and it.message.placement > 1}
    if moved and (wait_s := host.partitioned_at + WITNESS_S - boot_now()) > 0:
        batch = await put_off(batch, moved, wait_s, "their classes were moved, and may still be aired where they were")
    result = BatchResult[Asked, StreamerChanges]()
    left = batch.came
    # All are named together in each round: two that are looked for under one name would get one recording.
    while left and (unlooked := await _take(host, left, {}, result, dry_run=dry_run)):
        left = []
        async with aclosing(as_probed(host, unlooked)) as portions:
            async for deliveries, looked in portions:
                left += await _take(host, deliveries, looked, result, dry_run=dry_run)
    return await ended("prepare", batch, result, "What became of each class")


async def _take(
    host: StreamerHost,
    deliveries: Sequence[Asked],
    looked: Mapping[str, ProbeResult],
    result: BatchResult[Asked, StreamerChanges],
    *,
    dry_run: bool,
) -> list[Asked]:
    """Decide the classes whose recordings are here, or were *looked* at, and add them to *result*.

    Returns the others, also those whose recording was given another name since it was looked at. Raises TryAgain if the
    disk hangs, once those are decided whose recordings are ready.
    """
    barred = await forbidden_pushes(host, {message.push_url for message in prepares(deliveries)})
    async with host.cache_lock:
        deliveries, here = await host.read_tx(with_stems, deliveries)
        known, mine, unlooked, hangs = here.keys() | looked.keys(), list[Asked](), list[Asked](), None
        for it in deliveries:
            (unlooked if isinstance(it.message, Prepare) and it.message.stem not in known else mine).append(it)
        if not mine:
            return unlooked
        ready = {stem for stem, row in here.items() if row.state is FileState.READY}
        if wait := {it.kept.id for it in mine if isinstance(it.message, Prepare) and it.message.stem not in ready}:
            try:
                await disk_answers(host)
            except TryAgain as error:
                hangs, mine = error, [it for it in mine if it.kept.id not in wait]
                if not mine or dry_run:
                    raise
        portion = await handled(host, mine, partial(decided_classes, looked, barred), dry_run=dry_run)
        result.done += portion.done
        result.failed += portion.failed
        if dry_run:
            return unlooked
        if evicted := [gone.stem for changes in portion.done for gone in changes.evicted]:
            await remove_files(host, evicted)
    await publish_outbox(host)
    for changes in portion.done:
        follow(host, changes)
    if hangs is not None:
        raise hangs
    return unlooked


async def disk_answers(host: StreamerHost) -> None:
    """Raise TryAgain if the disk hangs: a transaction that then looks for room would keep all others waiting."""
    with suppress(OSError):  # that it answers with an error is said to those who need room
        await bandwidth.looked(host, lambda _: disk.free_bytes(host.settings.video_root))


async def remove_files(host: StreamerHost, stems: Collection[str]) -> None:
    """Unlink evicted files, then forget their rows; a file that cannot be unlinked is retried by the sweeper."""
    await host.write_tx(cache.forget, await cache_dir.in_thread(_unlinked, host.settings.video_root, stems))


def _unlinked(root: Path, stems: Collection[str]) -> list[str]:
    done = []
    for stem in stems:
        try:
            if (part := cache_dir.part_path(root, stem)).exists():  # of a download that a process before this one began
                cache_dir.remove(part)
            cache_dir.remove(cache_dir.rendition_path(root, stem))
        except OSError as error:
            log.error("%s: its file cannot be deleted, it is tried again: %s", stem, error)
        else:
            done.append(stem)
    return done


def follow(host: StreamerHost, changes: StreamerChanges) -> None:
    """Log the alarms of what was committed; wake who begins downloads, and who plans broadcasts.

    Both look by themselves every few seconds, at all classes: a storm of classes for tomorrow need not wake them.
    """
    for message in changes.sends:
        if isinstance(message.message, Alarm):
            log.warning("%s", message.message.message)
    if changes.reserved:
        host.unfetched.set()
    soon = time.time() + host.settings.broadcast_lead_s + RUN_AHEAD_S
    if any(begins < soon for begins in changes.ready):
        host.unplanned.set()
        host.playout.wanted.set()
    elif any(state is AiringState.WAITING and wanted.start_time < soon for wanted, state in changes.admitted):
        host.playout.wanted.set()  # it begins with the slate


PUSH_SETTING = "ALLOWED_PUSH_HOSTS"
LOOK_UP_S = 1.0  # seconds that a class waits for a name server; if the server does not answer, the class is not refused
_ADDRESSES_KEPT_S = 60.0
_SERVERS_KEPT = 1_000
_LOOK_UPS = 4

Server = tuple[str, int]

# Threads of their own: a name server that hangs is not to keep the threads that write the database.
_lookups = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="push-hosts")
_known_servers: dict[Server, tuple[float, list[Address]]] = {}


async def push_allowlist(host: StreamerHost) -> Allowlist:
    """The hosts that the setting lists. If it lists none, servers that classes were pushed to before stay allowed."""
    listed = Allowlist.listed(host.settings.allowed_push_hosts, PUSH_SETTING)
    return listed if host.settings.allowed_push_hosts else listed.and_also(await _taken_before(host))


async def forbidden_pushes(host: StreamerHost, push_urls: Collection[str]) -> dict[str, str]:
    """Why some of *push_urls* are forbidden, and which setting would allow them; shows no secret of a URL."""
    listed = Allowlist.listed(host.settings.allowed_push_hosts, PUSH_SETTING)
    servers = {url: (its.host, its.port) for url in push_urls for its in [urls.push(url)]}
    unlisted = {server for server in servers.values() if listed.of_server(*server) is not None}
    if not unlisted:  # of what is listed by its name no address matters
        return {}
    addresses = await _server_addresses(unlisted)
    bad = {server: where for server, found in addresses.items() if (where := listed.forbidden(*server, found))}
    old = await _taken_before(host) if bad and not host.settings.allowed_push_hosts else frozenset()
    for server in bad.keys() & old:
        if host.alarmed_at.take(f"{PUSH_SETTING} lacks {server}", math.inf):  # once
            text = f"{PUSH_SETTING}={_with_server(host, server)}"
            log.warning(
                "%s: is no public host, and taken because classes were pushed to it before: set %s", server[0], text
            )
    return {
        url: Text(
            "{host}: {address} is no allowed push host; to push there, set {setting}={value}",
            host=server[0],
            address=bad[server],
            setting=PUSH_SETTING,
            value=_with_server(host, server),
        )
        for url, server in servers.items()
        if server in bad and server not in old
    }


def _with_server(host: StreamerHost, server: Server) -> str:
    return f"{host.settings.allowed_push_hosts or PUBLIC},{server[0]}"


async def _server_addresses(servers: Collection[Server]) -> dict[Server, list[Address]]:
    """The addresses of those servers that could be looked up in time; each is remembered for a minute."""
    now, loop = time.monotonic(), asyncio.get_running_loop()
    fresh = {
        server: known[1]
        for server in servers
        if (known := _known_servers.get(server)) is not None and now - known[0] < _ADDRESSES_KEPT_S
    }
    asked = {server: loop.run_in_executor(_lookups, _addresses, *server) for server in servers if server not in fresh}
    if asked:
        await asyncio.wait(asked.values(), timeout=LOOK_UP_S)
    if len(_known_servers) > _SERVERS_KEPT:
        _known_servers.clear()
    for server, answer in asked.items():
        if answer.done() and (addresses := answer.result()):
            fresh[server] = addresses
            _known_servers[server] = (now, addresses)
    return fresh


def _addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host; none if its name cannot be looked up, which the connection will report."""
    try:
        return origin.addresses(host, port)
    except (origin.NoSuchHost, TryAgain):
        return []


async def _taken_before(host: StreamerHost) -> frozenset[Server]:
    """The servers of the classes that were taken before this process began; read once."""
    if host.pushed_to is None:
        servers: set[Server] = set()
        for url in await host.read_tx(airings.push_urls):
            with suppress(ValueError):  # an older release may have taken it
                its = urls.push(url)
                servers.add((its.host, its.port))
        host.pushed_to = frozenset(servers)
    return host.pushed_to
