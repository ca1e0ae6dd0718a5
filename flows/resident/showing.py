"""Pages become runs through Prefect's API: many in one request, each in its final state."""

import asyncio
import json
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun

from flows.host import log
from flows.resident import questions
from flows.resident.creation import JSON, REFUSES
from flows.resident.runs import ResidentRuns
from lectern.facts import Kept
from lectern.runs import paging
from lectern.runs.handled import Handled
from lectern.runs.labels import label_of, tags_of
from lectern.runs.pages import FOLLOW, Page

ASK_S = 30.0
LINES_AT_ONCE = 500


class Showing:
    """Shows pages as runs; a method raises what Prefect's client raises if Prefect is away, and does nothing twice."""

    def __init__(self, runs: ResidentRuns, host: str) -> None:
        self._runs = runs
        self._host = host

    async def create(self, some: Sequence[Page]) -> list[Page]:
        """Create the runs of pages of one flow; returns the pages that Prefect refuses even without their labels."""
        try:
            async with asyncio.timeout(ASK_S):
                found = await self._runs.created.bulk(some[0].flow, [one.request() for one in some])
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                raise self._runs.created.failed("recorder", error) from error
            if error.response.status_code not in REFUSES:
                raise
            found = [str(error)]
        ids = [one for one in found if isinstance(one, UUID)]
        if len(ids) == len(some):
            for page, run_id in zip(some, ids, strict=True):
                page.run_id, page.is_untagged = str(run_id), page.tags_follow()
            return []
        if len(some) > 1:  # it was one transaction: the ids reported for the others do not hold either
            return [refused for page in some for refused in await self.create([page])]
        (page,) = some
        if not page.is_plain:
            page.is_plain = True
            return await self.create(some)
        log.error("%s: its run cannot be shown: %s", page.name, found[0])
        return [page]

    async def tags(self, some: Sequence[Page]) -> None:
        """Add their tags to the runs that were created without them; a person may have given others meanwhile."""
        untagged = {UUID(str(page.run_id)): page for page in some if page.is_untagged}
        for run in await questions.among(self._runs.client, list(untagged)) if untagged else ():
            await self._tag(str(run.id), {*run.tags, *untagged[run.id].tags} - {FOLLOW})
        for page in untagged.values():
            page.is_untagged = False

    async def tag_left(self, run: FlowRun, kept: Sequence[Kept]) -> None:
        """Set the tags of a run that a process which died had created without them, by its messages."""
        await self._tag(str(run.id), {*run.tags, *tags_of([label_of(one) for one in kept])} - {FOLLOW})

    async def _tag(self, run_id: str, tags: Collection[str]) -> None:
        try:
            await self._ask("PATCH", f"/flow_runs/{run_id}", {"tags": sorted(tags)})
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return  # somebody has deleted it
            if error.response.status_code not in REFUSES:
                raise
            log.warning("recorder: run %s is not found by its classes: %s", run_id, error)

    async def begin(self, batch: Handled) -> None:
        """Show a batch that is still at work; `end` sets its final state."""
        batch.is_open = True
        found: UUID | str
        try:
            async with asyncio.timeout(ASK_S):
                (found,) = await self._runs.created.bulk(batch.flow, [paging.at_work(batch, self._host)])
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in REFUSES:
                raise
            found = str(error)
        if isinstance(found, UUID):
            batch.run_id = str(found)
            self._runs.shown.add(found)
        batch.is_refused = batch.run_id is None

    async def end(self, page: Page) -> None:
        """Set the final state of a batch that was shown at work; if its run was deleted, the page has none any more.

        A state that Prefect refuses is set without its message; if that is refused, too, the run stays as it is.
        """
        run_id = UUID(page.run_id)
        for state in (page.state(), page.wordless_state()):
            try:
                await self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
                break
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.NOT_FOUND:
                    page.run_id = None
                    break
                if error.response.status_code not in REFUSES:
                    raise
                log.error("%s: its run cannot be shown: %s", page.name, error)
        page.is_open = False
        self._runs.shown.discard(run_id)

    async def lines(self, some: Sequence[Page]) -> None:
        """Send the pages' log lines, with their own times; a refusal by Prefect is logged."""
        lines = [page.said_line(line) for page in some for line in page.log()]
        for first in range(0, len(lines), LINES_AT_ONCE):
            try:
                await self._ask("POST", "/logs/", lines[first : first + LINES_AT_ONCE])
            except httpx.HTTPStatusError as error:
                if not error.response.is_client_error and error.response.status_code not in REFUSES:
                    raise
                log.warning("recorder: log lines of %d runs are not shown: %s", len(some), error)
        for page in some:
            page.lines = []

    async def table(self, page: Page) -> None:
        """Send a page's table; a refusal by Prefect is logged."""
        key, description = page.table
        data = json.dumps(page.rows, default=str)
        wanted = {"key": key, "type": "table", "description": description, "data": data, "flow_run_id": page.run_id}
        try:
            await self._ask("POST", "/artifacts/", wanted)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in REFUSES:
                raise
            log.warning("artifact %s: not shown: %s", key, error)

    async def _ask(self, method: Any, path: Any, body: object) -> None:  # noqa: ANN401 (Prefect's literals)
        content = json.dumps(body, default=str).encode(errors="replace")
        async with asyncio.timeout(ASK_S):
            response = await self._runs.client.request(method, path, content=content, headers=JSON)
            response.raise_for_status()
