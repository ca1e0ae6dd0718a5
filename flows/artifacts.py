"""What the UI shows of a run: tables and progress; never in the way of the work."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from flows.host import log

ROWS = 500
FIRST_AFTER_S = 1.0
"""Work that is over sooner shows no bar."""

PROGRESS_EVERY_S = 4.0


async def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Show *rows*; an empty table is not shown, a UI that is away is logged."""
    if not rows:
        return
    try:
        await acreate_table_artifact(table=list(rows[:ROWS]), key=key, description=description)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("artifact %s: not shown: %s", key, error)


class Progress:
    """A progress bar in the UI, set from any thread, written every 4 s."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key.lower().replace("_", "-")
        self._description = description
        self._percent = 0.0
        self._writer: asyncio.Task[None] | None = None

    def set(self, percent: float) -> None:
        """Say how far the work is, in percent."""
        self._percent = min(max(percent, 0.0), 100.0)

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
                await asyncio.sleep(PROGRESS_EVERY_S)
                left = (time.monotonic() - began) * (100 - self._percent) / self._percent if self._percent else None
                eta = f"{self._description}, about {left:.0f} s left" if left is not None else self._description
                await aupdate_progress_artifact(artifact, self._percent, description=eta)
        except asyncio.CancelledError:
            if artifact is not None and self._percent >= 100.0:
                await aupdate_progress_artifact(artifact, 100.0, description=self._description)
            raise
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("artifact %s: not shown: %s", self._key, error)
