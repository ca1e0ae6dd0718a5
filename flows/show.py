"""What the UI shows: tables and progress of a run, tables of a host; never in the way of the work."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from flows.host import log
from flows.retry import AWAY
from lectern import words
from lectern.runs.handled import of_batch

ROWS = 500
FIRST_AFTER_S = 1.0
"""Seconds after which work gets a progress bar."""

PROGRESS_EVERY_S = 4.0

SHOW_S = 8.0
"""Seconds that a Prefect server has to take a table: the checks of the classes wait for it."""


async def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Show *rows*; an empty table is not shown, a UI that is away is logged. A batch keeps them for the recorder."""
    if (batch := of_batch.get()) is not None:
        batch.show(key, rows, description)
        return
    if not rows or FlowRunContext.get() is None:
        return
    try:
        await acreate_table_artifact(table=list(rows[:ROWS]), key=key, description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("artifact %s: not shown: %s", key, error)


def _slug(key: str) -> str:
    """*key* as Prefect takes it for that of an artifact."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


class Progress:
    """A progress bar in the UI, set from any thread and written every *every_s* seconds."""

    def __init__(self, key: str, description: str, every_s: float = PROGRESS_EVERY_S) -> None:
        self._key, self._every_s = _slug(key), every_s
        self._description = description
        self._percent = 0.0
        self._writer: asyncio.Task[None] | None = None

    def set(self, percent: float) -> None:
        """Say how far the work is, in percent."""
        self._percent = min(max(percent, 0.0), 100.0)

    def end(self, description: str) -> None:
        """Say that the work is over, and what came of it."""
        self._percent, self._description = 100.0, description

    async def __aenter__(self) -> "Progress":
        """Begin to write."""
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop writing."""
        assert self._writer is not None  # __aenter__ made it
        self._writer.cancel()
        await asyncio.wait({self._writer})

    async def _write(self) -> None:
        if FlowRunContext.get() is None:
            return  # a class that is aired without a run
        began = time.monotonic()
        artifact = None
        try:
            await asyncio.sleep(FIRST_AFTER_S)
            artifact = await acreate_progress_artifact(self._percent, key=self._key, description=self._description)
            while True:
                await asyncio.sleep(self._every_s)
                left = (time.monotonic() - began) * (100 - self._percent) / self._percent if self._percent else None
                eta = f"{self._description}, about {left:.0f} s left" if left is not None else self._description
                await aupdate_progress_artifact(artifact, self._percent, description=eta)
        except asyncio.CancelledError:
            if artifact is not None and self._percent >= 100.0:
                await aupdate_progress_artifact(artifact, 100.0, description=self._description)
            raise
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("artifact %s: not shown: %s", self._key, error)


class Board:
    """The artifacts of one host.

    Prefect never deletes an artifact that belongs to no run. So each key has one artifact, which is updated: a year
    of updates every 15 seconds leaves one row.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._shown: dict[str, object] = {}
        self._ids: dict[str, UUID] = {}

    async def table(self, key: str, lines: list[dict[str, object]], description: str) -> None:
        """Show *lines* under *key*, unless they are shown already."""
        if self._shown.get(key) != lines and await self._put(key, "table", json.dumps(lines), description):
            self._shown[key] = lines

    async def _put(self, key: str, kind: str, data: str, description: str) -> bool:
        slug, said = _slug(key), f"{description}; as of {words.moment(time.time())}"
        try:
            async with asyncio.timeout(SHOW_S):
                if key in self._ids:
                    # Not by the client's own method: it sends all the data once more, as an event.
                    more = {"data": data, "description": said}
                    await self._client.request(
                        "PATCH", "/artifacts/{id}", path_params={"id": self._ids[key]}, json=more
                    )
                else:
                    wanted: Any = ArtifactCreate(key=slug, type=kind, description=said, data=data)
                    self._ids[key] = (await self._client.create_artifact(wanted)).id
        except TimeoutError:
            log.warning("artifact %s: not shown: %s", slug, f"no answer within {SHOW_S:g} s")
            return False
        except AWAY as error:
            self._ids.pop(key, None)  # somebody may have deleted it
            log.warning("artifact %s: not shown: %s", slug, error)
            return False
        return True
