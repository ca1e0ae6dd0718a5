"""A download that grows is synced to the disk now and then, so that a power cut costs no more than what came since."""

import asyncio
from pathlib import Path

from flows.host import log
from lectern.effects.files import store
from lectern.effects.files.origin import RemoteFile

SYNC_BYTES = 64 * 1024**2


class Growing:
    """A download under way."""

    def __init__(self, part: Path, remote: RemoteFile) -> None:
        self._part, self._remote = part, remote
        self._synced_bytes: int | None = None
        self._syncing: asyncio.Future[None] | None = None

    def reached(self, size_bytes: int) -> None:
        """Note that the download has *size_bytes* now."""
        if self._synced_bytes is None:
            self._synced_bytes = size_bytes
        busy = self._syncing is not None and not self._syncing.done()
        if not busy and size_bytes - self._synced_bytes >= SYNC_BYTES:
            self._synced_bytes = size_bytes
            self._syncing = asyncio.ensure_future(asyncio.to_thread(store.write_origin, self._part, self._remote))

    async def close(self) -> None:
        """Wait for the sync under way; if it failed, only less of the download is safe from a power cut."""
        if self._syncing is not None:
            await asyncio.wait({self._syncing})
            if (error := self._syncing.exception()) is not None:
                log.warning("%s: could not be synced: %s", self._part, error)
