"""The recorder: shows handled rows of the inbox as runs in Prefect, afterwards and once; no answer waits for it.

It knows only what the rows say, so after a crash it goes on with its usual work.
"""

import asyncio
import json
import logging
import re
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID, uuid4

import httpx
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler
from sqlalchemy.exc import DBAPIError
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from flows.host import Host, log
from flows.prefect_api import asking
from flows.resident import routing
from flows.resident.prefect import deployments
from flows.resident.prefect.runs import BULK, CUT_OFF, JSON, REFUSES, ResidentRuns
from lectern.db import events, inbox
from lectern.db.inbox import HandledMessage
from lectern.errors import Caught, TryAgain
from lectern.logs import all_alike, without_secrets
from lectern.run_records import TAGS_AT_ONCE, RunRecord, records_of
from lectern.timing import backoff_s
from lectern.wire.messages import TAKE_BACK

ROUND_S = 1.0  # seconds between two rounds: what was handled meanwhile is shown together
STORM, PATIENCE_S, CALM_S = 500, 30.0, 0.5
"""Number of messages that no run shows from which on answers come before showing, most seconds that showing waits for
them, and seconds in which some of them must come or be handled."""

AT_ONCE = 2000  # number of messages that are read at a time, the oldest first
DETAILS_KEPT = 2000  # number of runs whose log and table wait to be sent; those of the oldest beyond it are not
SAY_EVERY_S, KNOWN_S = 60.0, 10.0
"""Seconds between two log lines while Prefect is away, and from the start to the first one: until Prefect knows us."""

SERVER_ERROR = httpx.codes.INTERNAL_SERVER_ERROR
DATABASE_FAILS = re.compile(r"\(\S+\.(Database|Interface|Internal|Operational)?Error\)")
"""How the error of a run begins if Prefect's database failed, as it does on a full disk; or SERVER_ERROR is answered.
Both can also mean a text in the run that Prefect did not foresee, but not if it was asked for without its labels."""


class Recorder:
    """Shows what is handled, and was not shown yet."""

    def __init__(self, host: Host[Any], runs: ResidentRuns) -> None:
        self._host = host
        self._runs = runs
        self._flows = routing.of(host.settings)
        self._details: deque[RunRecord] = deque(maxlen=DETAILS_KEPT)  # runs without their log and table
        self._progress: list[int] = []  # of the storm, when it was last looked at
        self._said_at = time.monotonic() - SAY_EVERY_S + KNOWN_S

    async def run(self) -> None:
        """Show what was handled, until cancelled."""
        tries = 0
        while True:  # not left to `Supervisor`: a host without Prefect is well, and says so once a minute
            self._host.watchdog.beat("recorder")
            try:
                await self.tell()
                tries, pause_s = 0, ROUND_S
            except TryAgain as error:
                tries += 1
                pause_s = backoff_s(tries)
                if time.monotonic() - self._said_at >= SAY_EVERY_S:
                    self._said_at = time.monotonic()
                    log.warning("recorder: handled messages are not shown yet: %s", error.message)
            await asyncio.sleep(pause_s)

    async def close(self, within_s: float) -> None:
        """Show what waits, for at most *within_s* seconds; the rest is shown after the next start."""
        try:
            async with asyncio.timeout(within_s):
                await self.tell()
        except (TryAgain, TimeoutError, DBAPIError) as error:
            log.info("recorder: the rest is shown after the next start: %r", error)

    async def tell(self) -> None:
        """Show all that waits; raises TryAgain if Prefect is away; the next call goes on from there."""
        until = time.monotonic() + PATIENCE_S
        owner = self._host.settings.name if self._host.settings.shared else None
        while True:
            await self._calm(until)
            self._host.watchdog.note("recorder")
            if rows := await self._host.read_tx(inbox.unrecorded, AT_ONCE, owner):
                for key, handled in (await self._keyed(rows)).items():
                    await self._show(key, handled)
            elif self._details:
                with Caught(TryAgain, DBAPIError) as failed:
                    await self._detail(self._details[0])
                record = self._details.popleft()
                if failed.error is not None:  # it is shown, and the others have theirs
                    log.error("recorder: the log of %s cannot be shown", record.name, exc_info=failed.error)
            else:
                return

    async def _calm(self, until: float) -> None:
        """Wait for the end of a storm, at most *until*: what gathers meanwhile costs Prefect fewer requests.

        Its messages are handled about as quickly as they come, so it is not known by how many of them wait.
        """
        while time.monotonic() < until:
            number, *progress = await self._host.read_tx(inbox.unsettled)
            if number < STORM or progress == self._progress:
                return
            self._progress = progress
            self._host.watchdog.note("recorder")
            await asyncio.sleep(CALM_S)

    async def _keyed(self, rows: Sequence[HandledMessage]) -> dict[str, list[HandledMessage]]:
        """Group *rows* by their key; those of one flow that have none get one now, before Prefect is asked.

        So after a crash it is asked for the same runs again, whatever was handled since.
        """
        rows_by_key: dict[str, list[HandledMessage]] = {}
        keys: dict[str, str] = {}
        for row in rows:
            group = f"work {row.id}" if row.command in inbox.WORKS else self._flow(row)
            key = row.run_key or keys.setdefault(group, uuid4().hex)
            rows_by_key.setdefault(key, []).append(row)
        new = {key: [row.id for row in rows_by_key[key]] for key in keys.values()}
        if new:
            await self._host.write_tx(inbox.give_keys, new)
        return rows_by_key

    def _flow(self, row: HandledMessage) -> str:
        work = inbox.work_of(row)
        return work.flow if work is not None else self._flows.get(row.command, TAKE_BACK)

    # -- one group -------------------------------------------------------------------------------------------------

    async def _show(self, key: str, rows: Sequence[HandledMessage]) -> None:
        flow, records = rows[0].command, []
        with Caught() as failed:
            flow = self._flow(rows[0])
            if flow in deployments.of(self._host.settings):  # releases and leases are no runs
                records = records_of(flow, rows, key, time.time())
        if failed.error is not None:  # they are handled, and the others are shown
            log.error("recorder: a batch of %s cannot be shown", flow, exc_info=failed.error)
        for first in range(0, len(records), BULK):
            self._host.watchdog.note("recorder")
            await self._create(records[first : first + BULK])
        for record in records:
            if record.work is not None and record.run_id is not None:  # Prefect may have created it before
                body = {"state": record.state(), "force": True}
                path = f"/flow_runs/{record.run_id}/set_state"
                await self._ask(path, body, f"the end of {record.name}", may_wait=True)
            if record.run_id is not None and len(record.tags) > TAGS_AT_ONCE:
                tags = [*record.tags, *self._runs.created.tags, self._host.settings.queue]  # they replace the first
                path = f"/flow_runs/{record.run_id}"
                await self._ask(path, {"tags": tags}, f"a tag of {record.name}", method="PATCH", may_wait=True)
        await self._host.write_tx(inbox.recorded, [row.id for row in rows], time.time())
        self._details.extend(record for record in records if record.run_id is not None)

    async def _create(self, records: Sequence[RunRecord]) -> None:
        """Create runs of one flow in one request; each that Prefect refuses is asked for alone, then without labels."""
        answers: list[UUID | str]
        is_bare = len(records) == 1 and records[0].is_plain  # if it fails for no reason of its own, it waits
        async with asking():
            try:
                answers = await self._runs.created.bulk(records[0].flow, [record.request() for record in records])
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.NOT_FOUND:
                    raise self._runs.created.failed("recorder", error) from error
                status = error.response.status_code
                if status not in REFUSES or (status == SERVER_ERROR and is_bare):
                    raise
                answers = [str(error)]
        if all(isinstance(answer, UUID) for answer in answers):
            for record, run_id in zip(records, answers, strict=True):
                record.run_id = str(run_id)
        elif len(records) > 1:  # it was one transaction: the ids reported for the others do not hold either
            for record in records:
                await self._create([record])
        elif not records[0].is_plain:
            records[0].is_plain = True
            await self._create(records)
        elif DATABASE_FAILS.match(why := str(answers[0])):
            raise TryAgain("{what}: Prefect does not take the run: {error}", what=records[0].name, error=why)
        else:
            log.error("%s: its run cannot be shown: %s", records[0].name, why)

    async def _detail(self, record: RunRecord) -> None:
        past = await self._host.read_tx(events.between, record.classes, record.began, record.ended)
        if lines := record.log(past):
            await self._ask("/logs/", lines, f"the log of {record.name}")
        if record.lines:
            table = {"key": f"{record.flow}-batch", "type": "table", "description": "What became of each"}
            data = json.dumps(record.lines)
            await self._ask("/artifacts/", {**table, "data": data, "flow_run_id": record.run_id}, record.name)

    async def _ask(
        self,
        path: Any,  # noqa: ANN401 (a pattern of the client's)
        body: object,
        what: str,
        *,
        method: Literal["POST", "PATCH"] = "POST",
        may_wait: bool = False,
    ) -> None:
        """Ask Prefect once; a refusal is logged, and holds up nothing else; so is an error of it, if it may not wait.

        Raises TryAgain if Prefect is away.
        """
        content = json.dumps(body, default=str).encode(errors="replace")
        self._host.watchdog.note("recorder")
        async with asking():
            try:
                (await self._runs.client.request(method, path, content=content, headers=JSON)).raise_for_status()
            except httpx.HTTPStatusError as error:
                if not error.response.is_client_error and (may_wait or error.response.status_code != SERVER_ERROR):
                    raise
                log.warning("recorder: %s is not shown: %s", what, error)


# -- the log of a run in the UI ----------------------------------------------------------------------------------------
def set_up() -> None:
    """Pass the lines of runs on to Prefect, whose thread sends them in batches."""
    all_alike()

    def say_retry(details: RetryDetails) -> None:  # the library's own line lacks subject and reason
        log.warning("%s; it is tried again in %.1f s", details.caused_by, details.wait_for)

    set_on_retry_hooks([say_retry])
    logging.getLogger("prefect.flow_runs").addFilter(lambda record: CUT_OFF not in record.getMessage())
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(without_secrets)
    logger = logging.getLogger("lectern")
    if any(isinstance(handler, APILogHandler) for handler in logger.handlers):
        return
    handler = APILogHandler()
    handler.addFilter(lambda _: FlowRunContext.get() is not None)
    handler.addFilter(without_secrets)
    logger.addHandler(handler)
