"""Shows tables and progress of a run, and tables of a host, in the UI; a UI that is away never stops the work."""

import asyncio
import json
import math
import re
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext

from flows.host import log
from flows.prefect_api import asking, best_effort
from lectern import formatting
from lectern.errors import TryAgain

ROWS = 500
PROGRESS_S = 30.0
"""Seconds between two writes of a bar, whose whole per cent must have changed: a write for each class on air every few
seconds fills a Prefect server."""

LOOK_S = 1.0  # seconds from the beginning of work to the first look at how far it is

SHOW_S = 8.0  # seconds that a Prefect server has to take a table: the checks of the classes wait for it
LAST_S = 1.0  # seconds that work waits at its end for the last write of its progress bar; the write itself has SHOW_S


async def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Show *rows* in the calling run, if there is one; an empty table is not shown, a UI that is away is logged."""
    if not rows or FlowRunContext.get() is None:
        return
    async with best_effort(f"show artifact {key}", SHOW_S):
        await acreate_table_artifact(table=list(rows[:ROWS]), key=key, description=description)


def _slug(key: str) -> str:
    """*key* in the form that Prefect requires of an artifact's key."""
    return re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


class ProgressBar:
    """A progress bar in the UI, set from any thread; work that ends before the first look at it gets none."""

    def __init__(self, key: str, description: str) -> None:
        self._key = _slug(key)
        self._description = description
        self._percent = 0.0
        self._artifact: UUID | None = None
        self._shown: tuple[float, str] | None = None
        self._is_away = False
        self._writer: asyncio.Task[None] | None = None

    def set(self, percent: float) -> None:
        """Say how far the work is, in percent."""
        self._percent = min(max(percent, 0.0), 100.0)

    def end(self, description: str) -> None:
        """Say that the work is over, and what came of it."""
        self._percent, self._description = 100.0, description

    async def __aenter__(self) -> "ProgressBar":
        """Begin to write."""
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop writing; work that came to its end is shown at 100 % at once, or a little later by a slow server."""
        assert self._writer is not None  # __aenter__ made it
        self._writer.cancel()
        await asyncio.wait({self._writer}, timeout=LAST_S)

    async def _write(self) -> None:
        if FlowRunContext.get() is None:
            return  # a class that is aired without a run
        try:
            await asyncio.sleep(LOOK_S)
            while True:
                await self._show()
                await asyncio.sleep(PROGRESS_S)
        except asyncio.CancelledError:
            if self._shown is not None and self._percent >= 100.0:
                await self._show()
            raise

    async def _show(self) -> None:
        """Write how far the work is if that is news, or log once that the UI is away."""
        shown = percent, description = float(math.floor(self._percent)), self._description
        if shown == self._shown:
            return
        try:
            async with asking(SHOW_S):
                if self._artifact is None:
                    self._artifact = await acreate_progress_artifact(percent, key=self._key, description=description)
                else:
                    await aupdate_progress_artifact(self._artifact, percent, description=description)
            self._shown, self._is_away = shown, False
        except TryAgain as error:
            if not self._is_away:
                log.warning("prefect: cannot %s: %s", f"show artifact {self._key}", error.message)
            self._is_away = True


class Board:
    """The artifacts of one host.

    Prefect never deletes an artifact that belongs to no run. So each key has one artifact, which is updated, also by
    the next process: a year of updates every 15 seconds leaves one row, and the UI opens on the newest.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._shown: dict[str, object] = {}
        self._ids: dict[str, UUID] = {}

    async def table(self, key: str, lines: list[dict[str, object]], description: str) -> None:
        """Show *lines* under *key*, unless they are shown already."""
        if self._shown.get(key) == lines:
            return
        slug, data = _slug(key), json.dumps(lines)
        said = f"{description}; as of {formatting.moment(time.time())}"
        try:
            async with asking(SHOW_S):
                if key not in self._ids:  # a process before this one may have made it
                    of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[slug]))
                    newest = ArtifactSort.UPDATED_DESC
                    for before in await self._client.read_artifacts(artifact_filter=of_key, sort=newest, limit=1):
                        self._ids[key] = before.id
                if key in self._ids:
                    # Not by the client's own method: it sends all the data once more, as an event.
                    path, more = {"id": self._ids[key]}, {"data": data, "description": said}
                    await self._client.request("PATCH", "/artifacts/{id}", path_params=path, json=more)
                else:
                    wanted: Any = ArtifactCreate(key=slug, type="table", description=said, data=data)
                    self._ids[key] = (await self._client.create_artifact(wanted)).id
            self._shown[key] = lines
        except TryAgain as error:
            if not isinstance(error.__cause__, TimeoutError):
                self._ids.pop(key, None)  # somebody may have deleted it
            log.warning("prefect: cannot %s: %s", f"show artifact {slug}", error.message)
