"""Asks the origins how large the recordings to be downloaded are, before their classes are taken."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from sqlalchemy import Connection

from flows.handling import Came
from flows.host import Streamer, log
from flows.trouble import words
from lectern.effects.files import origin
from lectern.effects.files.origin import RemoteFile
from lectern.effects.rows import airings, cache
from lectern.errors import DOWNLOAD_FAILED, Caught, LecternError, Refuse
from lectern.facts import Cached
from lectern.messages import Prepare
from lectern.places import Places
from lectern.shown import shown
from lectern.states import FileState
from lectern.stems import Held

Asked = Came[Prepare]
Looked = RemoteFile | LecternError
LOOKS, LOOKS_AT_HOST = 128, 16
"""Number of recordings looked at side by side, in all, and at one host: a slow host must not hold up the others."""

URLS = 3
"""Number of URLs of one recording that are tried, the youngest first: each booking signs its URL anew."""

PORTION_S = 1.0
"""Seconds after which the classes whose recordings were looked at wait no longer for the others of their batch."""


def prepares(came: Sequence[Asked]) -> Iterator[Prepare]:
    """The messages among *came* that could be parsed."""
    return (one.message for one in came if isinstance(one.message, Prepare))


def named(connection: Connection, came: Sequence[Asked]) -> tuple[list[Asked], set[str]]:
    """The same messages, each with its rendition named beside what is cached.

    Returns also which of the renditions are there, or being downloaded.
    """
    asked = {one.beside({}) for one in prepares(came)}
    held = _held(connection, asked)
    here = set(held)
    found: list[Asked] = []
    for one in came:
        if isinstance(one.message, Prepare):
            message = one.message.named(held)
            held.setdefault(message.stem, Held(message.source, message.video_url))
            found.append(Came(one.kept, message))
        else:
            found.append(one)
    others = {one.stem for one in prepares(found)} - asked
    return found, here | _held(connection, others).keys() if others else here


def _held(connection: Connection, stems: Collection[str]) -> dict[str, Held]:
    """The source and URL of those renditions among *stems* that are there or being downloaded."""
    rows = cache.by_stem(connection, stems)
    there = (FileState.READY, FileState.DOWNLOADING)
    return {stem: Held(row.source, row.url) for stem, row in rows.items() if row.state in there}


async def as_looked(
    host: Streamer, came: Sequence[Asked], here: Collection[str]
) -> AsyncGenerator[tuple[list[Asked], dict[str, Looked]], None]:
    """The classes in portions, as soon as the size of their recordings is known; first those whose rendition is *here*.

    So an origin that takes its time holds up no class of another one.
    """
    looks = _looks(host, came, here)
    try:
        first = [one for one in came if not isinstance(one.message, Prepare) or one.message.stem not in looks]
        if first:
            yield first, {}
        left = dict(looks)
        while left:
            await asyncio.wait(left.values(), timeout=PORTION_S)
            looked = {stem: task.result() for stem, task in left.items() if task.done()}
            left = {stem: task for stem, task in left.items() if stem not in looked}
            if looked:
                yield [one for one in came if isinstance(one.message, Prepare) and one.message.stem in looked], looked
    finally:
        for task in looks.values():
            task.cancel()


async def look(host: Streamer, came: Sequence[Asked], here: Collection[str]) -> dict[str, Looked]:
    """Ask the origins how large each recording is that must be downloaded; each answer has the URL that was asked."""
    looks = _looks(host, came, here)
    return dict(zip(looks, await asyncio.gather(*looks.values()), strict=True))


async def of_download(host: Streamer, row: Cached) -> RemoteFile:
    """What the origin promises of a recording that is to be downloaded, by its own URL or that of the youngest booking.

    A signed URL may expire while its download waits for others, or has to go on after a break. Raises Refuse with what
    the origin said to its own URL, and TryAgain.
    """
    allowed = Places.listed(host.settings.allowed_origins)
    try:
        return await origin.look(row.url or "", allowed=allowed, timeout_s=host.settings.http_timeout_s)
    except Refuse as refusal:
        youngest = await host.look(airings.latest_url, row.stem)
        if youngest in (None, row.url):
            raise
        try:
            return await origin.look(str(youngest), allowed=allowed, timeout_s=host.settings.http_timeout_s)
        except Refuse:
            raise refusal from None


def _looks(host: Streamer, came: Sequence[Asked], here: Collection[str]) -> dict[str, asyncio.Task[Looked]]:
    """Send one HEAD request per rendition; a failure is returned as its error, and the others go on.

    If classes name the rendition by several URLs, the next one is tried after a failure: a bad URL is its own class's.
    """
    named: defaultdict[str, list[str]] = defaultdict(list)
    for one in prepares(came):
        if one.stem not in here:
            named[one.stem].insert(0, one.video_url)
    allowed = Places.listed(host.settings.allowed_origins)
    gate = asyncio.Semaphore(LOOKS)
    gates: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOOKS_AT_HOST))

    async def ask(url: str) -> Looked:
        with Caught() as failed:
            async with gates[urlsplit(url).netloc], gate:
                return await origin.look(url, allowed=allowed, timeout_s=host.settings.http_timeout_s)
        if isinstance(failed.error, LecternError):
            return failed.error
        assert failed.error is not None
        why = words(failed.error)
        log.error("%s: cannot be looked at: %s", shown(url), why)
        return Refuse(f"{shown(url)}: cannot be looked at: {why}", DOWNLOAD_FAILED)

    async def first(urls: Collection[str]) -> Looked:
        failed: list[Looked] = []
        for url in urls:
            found = await ask(url)
            if not isinstance(found, LecternError):
                return replace(found, url=url)  # not where it was redirected to, which may be valid only once
            failed.append(found)
        return failed[0]

    return {stem: asyncio.create_task(first([*dict.fromkeys(urls)][:URLS])) for stem, urls in named.items()}
