"""The recorder: shows handled messages in Prefect, afterwards and once; no answer waits for it."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flows.host import Host, log
from flows.prefect_api import AWAY
from flows.resident import groups, questions
from flows.resident.creation import BULK
from flows.resident.runs import ResidentRuns
from flows.resident.showing import Showing
from lectern.effects.rows import inbox
from lectern.errors import TryAgain
from lectern.facts import Kept
from lectern.messages import TAKE_BACK
from lectern.runs import pages, paging
from lectern.runs.handled import Handled
from lectern.runs.pages import Kind, Page
from lectern.timing import backoff_s

ROUND_S = 1.0
GATHER_S = 0.05
"""Seconds between two rounds, and until the first one after a silence: what comes meanwhile is shown together."""

LONG_S = 2.0
"""Seconds after which a batch is shown although it is still at work."""

STORM = 500
"""Number of messages, at work or not shown yet, from which on answers come before showing."""

PATIENCE_S, CALM_S = 30.0, 0.2
"""Most seconds that showing waits for the end of a storm, and seconds without a batch at work that end a storm.

What gathers meanwhile is sent to Prefect in fewer requests, so all of it is shown sooner."""

HELD = 10_000
"""Number of handled messages that are kept whole; beyond it, batches are reduced to what will be shown."""

KEPT = 2000
"""Number of pages that wait in memory while Prefect is away; further ones are shown from the inbox later."""

BACK = 10_000
"""Number of messages without a run that are read at a time, the oldest first."""

NEWEST = 200
SETTLED_S = 10.0
"""Seconds after which Prefect has created the runs that a dead process asked for, if it ever will."""

SAY_EVERY_S = 60.0


class Recorder:
    """Keeps handled batches until runs in Prefect show them."""

    def __init__(self, host: Host[Any], runs: ResidentRuns) -> None:
        self._host = host
        self._runs = runs
        self._at_work: set[Handled] = set()
        self._ended: list[Handled] = []  # ended batches that have no pages yet
        self._pages: deque[Page] = deque()
        self._tables: deque[Page] = deque(maxlen=KEPT)
        self._came = asyncio.Event()
        self._is_behind = True  # the inbox may have messages that no run shows
        self._settled_at = time.monotonic() + SETTLED_S
        self._said_at = -SAY_EVERY_S
        self._telling = asyncio.Lock()
        self._showing = Showing(runs, host.settings.name)

    def look_back(self) -> None:
        """Look through the inbox again: a dead host left handled messages that no run shows; they are shown here."""
        self._is_behind = True
        self._settled_at = time.monotonic() + SETTLED_S
        self._came.set()

    @contextmanager
    def showing(self, batch: Handled) -> Iterator[None]:
        """A context in which *batch* is at work; it is shown after its end, and the next batch does not wait for that.

        A batch that is cut off is dropped: what it has done is shown after the next start.
        """
        self._at_work.add(batch)
        try:
            yield
        finally:
            self._at_work.discard(batch)
        self._ended.append(batch)
        if sum(len(one.kept) for one in self._ended) > HELD:
            self._lay_out()
        self._came.set()

    def _lay_out(self) -> None:
        """Make pages of the batches that have ended; a page is merged into a recent page that has room for it."""
        ended, self._ended = self._ended, []
        for batch in ended:
            try:
                for page in paging.pages_of(batch, self._host.settings.name):
                    if not any(pages.merged(one, page) for one in list(self._pages)[-2 * len(Kind) :]):
                        self._keep(page)
            except Exception:  # noqa: BLE001 (whatever is odd about it, it is handled, and the others are shown)
                log.exception("recorder: a batch of %s cannot be shown", batch.flow)

    def _keep(self, page: Page) -> None:
        if len(self._pages) < KEPT:
            self._pages.append(page)
        elif not self._is_behind:
            self._is_behind = True
            log.warning("recorder: %d runs wait for Prefect; more are shown from the inbox, without their logs", KEPT)

    async def run(self) -> None:
        """Show what was handled, until cancelled."""
        tries = 0
        while True:
            self._host.rounds.come("recorder")
            await self._something()
            try:
                await self.tell()
                tries, pause_s = 0, ROUND_S
            except (TryAgain, *AWAY) as error:
                tries += 1
                pause_s = backoff_s(tries, GATHER_S)
                self._say(error)
            await asyncio.sleep(pause_s)

    async def close(self, within_s: float) -> None:
        """Show what waits, for at most *within_s* seconds; the rest is shown after the next start."""
        try:
            async with asyncio.timeout(within_s):
                await self.tell()
        except (TryAgain, *AWAY) as error:
            log.info("recorder: the rest is shown after the next start: %r", error)

    def _say(self, error: BaseException) -> None:
        if self._pages and time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            why = error.message if isinstance(error, TryAgain) else repr(error)
            log.warning("recorder: %d runs are not shown yet: %s", len(self._pages), why)

    async def _something(self) -> None:
        """Wait until there is something to show; a batch at work is shown, too, after LONG_S seconds."""
        while not (self._ended or self._pages or self._tables or self._is_behind or self._long()):
            self._came.clear()
            try:
                async with asyncio.timeout(LONG_S / 4 if self._at_work else ROUND_S):
                    await self._came.wait()
            except TimeoutError:
                self._host.rounds.come("recorder")
                continue
            await asyncio.sleep(GATHER_S)

    def _long(self) -> list[Handled]:
        new = [one for one in self._at_work if one.run_id is None and not one.is_refused]
        return [one for one in new if time.time() - one.began > LONG_S]

    # -- one round -------------------------------------------------------------------------------------------------

    async def tell(self) -> None:
        """Show all that waits; raises what the client raises if Prefect is away; the next call goes on from there."""
        until = time.monotonic() + PATIENCE_S
        async with self._telling:
            if self._is_behind and not self._pages and time.monotonic() >= self._settled_at:
                await self._look_back()
            for batch in self._long():
                await self._showing.begin(batch)
            while self._ended or self._pages:
                self._host.rounds.note("recorder")
                if self._storms() and time.monotonic() < until:  # the answers come first
                    await asyncio.sleep(GATHER_S)
                    continue
                self._lay_out()
                await self._show([one for one in self._pages if one.flow == self._pages[0].flow][:BULK])
            while self._tables and not self._storms():
                self._host.rounds.note("recorder")
                await self._showing.table(self._tables[0])
                self._tables.popleft()

    def _storms(self) -> bool:
        """Whether many messages are at work, or were a moment ago; a batch that hangs does not count."""
        now = time.time()
        at_work = [one for one in self._at_work if now - one.began < LONG_S]
        ended_at = self._ended[-1].ended or now if self._ended else 0.0
        number = sum(len(one.kept) for one in (*at_work, *self._ended))
        return bool(at_work or now - ended_at < CALM_S) and number >= STORM

    async def _show(self, some: Sequence[Page]) -> None:
        for page in some:
            page.is_sealed = True
        await self._end(some)  # a run that somebody deleted meanwhile is created anew
        if missing := [one for one in some if one.run_id is None]:
            await self._showing.create(missing)
            await self._end(missing)
        shown = [one for one in some if one.run_id is not None]
        await self._showing.tags(shown)
        await self._showing.lines(shown)
        ids = sorted({id_ for page in some if page.kind is not Kind.BACK for id_ in page.ids})
        await self._host.commit(inbox.recorded, self._host.journal, ids, time.time())
        for page in some:
            self._pages.remove(page)
        self._tables.extend(page for page in shown if page.rows and page.table[0])

    async def _end(self, some: Sequence[Page]) -> None:
        for page in some:
            if page.is_open and page.run_id is not None:
                await self._showing.end(page)

    # -- what a process before this one has left --------------------------------------------------------------------

    async def _look_back(self) -> None:
        """Make pages of handled messages that no run shows: their process ended first, or there was no room."""
        asked_at = self._settled_at
        host, flow_of = self._host, groups.of(self._host.settings)
        flows = sorted({flow for flow in flow_of.values() if flow != TAKE_BACK})
        ids = [self._runs.created.deployment(flow) for flow in flows]
        newest = await questions.newest(self._runs.client, ids, NEWEST)
        by_deployment = dict(zip(ids, flows, strict=True))
        named = {
            (by_deployment[run.deployment_id], id_)
            for run in newest
            if run.deployment_id in by_deployment
            for id_ in questions.inbox_ids(run)
        }
        for run in newest:
            if pages.FOLLOW in run.tags:  # its process died before it could set the tags
                await self._showing.tag_left(
                    run, await host.look(inbox.whatever, host.journal, questions.inbox_ids(run))
                )
        self._lay_out()
        busy = {id_ for batch in self._at_work for id_ in batch.ids} | {id_ for page in self._pages for id_ in page.ids}
        left: dict[str, list[Kept]] = {flow: [] for flow in flows}
        shown: list[int] = []
        owner = host.settings.name if host.settings.shared else None
        unrecorded = await host.look(inbox.unrecorded, host.journal, BACK, owner)
        self._is_behind = len(unrecorded) == BACK or self._settled_at != asked_at  # or asked again meanwhile
        for one in unrecorded:
            flow = flow_of.get(one.command, TAKE_BACK)
            if one.id in busy:
                continue
            if flow == TAKE_BACK or (flow, one.id) in named:
                shown.append(one.id)
            else:
                left[flow].append(one)
        await host.commit(inbox.recorded, host.journal, shown, time.time())
        for flow, kept in left.items():
            for page in paging.late(flow, kept):
                self._keep(page)
