"""An RTMP receiver: takes what is pushed to it, and keeps each push as FLV with the publisher's timestamps."""

import argparse
import asyncio
import hashlib
import time
from pathlib import Path
from urllib.parse import quote

from town.ports import HOST, Loopback
from town.recordings import Journal, Publish, Take, read_publishes
from town.rtmp_client import Client, NotRtmp

__all__ = ["NotRtmp", "Publish", "RtmpReceiver", "main", "read_publishes"]

_STATE_EVERY_S = 0.2


class RtmpReceiver(Loopback):
    """Records every stream published to it under *root*; while *refuse* is set, closes connections at once."""

    def __init__(self, root: Path, port: int | None = None) -> None:
        super().__init__(port)
        self.root = root
        self.refuse = False
        self.publishes: dict[str, list[Publish]] = {}
        self._journal = Journal(root)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, name: str) -> str:
        """Where the stream *name* is pushed to."""
        return f"rtmp://{HOST}:{self.port}/live/{name}"

    async def start(self) -> None:
        """Listen; what an earlier receiver over the same root took is known, and its open ends are closed."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.publishes.clear()
        for publish in read_publishes(self.root):
            self.publishes.setdefault(publish.name, []).append(publish)
            if publish.ended_at is None:
                self._end(publish, publish.last_media_at or publish.started_at)
        self._server = await asyncio.start_server(self._serve, HOST, self.port, backlog=1024)
        self._tasks.add(asyncio.create_task(self._keep_state()))

    async def stop(self) -> None:
        """Close the port and all connections; the publishes under way end here."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._journal.keep(self.publishes)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Client(self, reader, writer)
        try:
            if not self.refuse:
                await connection.serve()
        except (NotRtmp, asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # this client's connection ends, whatever it was; the others must not notice
        finally:
            connection.end_all()
            writer.transport.abort()
            self._tasks.discard(task)

    def begin(self, name: str, app: str) -> Take:
        """Start the recording of a publish."""
        earlier = self.publishes.setdefault(name, [])
        n = len(earlier) + 1
        # Escaped, so that two names never share a file; a long one is cut, its hash keeps it apart.
        safe = quote(name, safe="")
        if len(safe) > 200:
            safe = f"{safe[:150]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        concurrent = any(other.ended_at is None for other in earlier)
        publish = Publish(name, n, app, f"{safe}.{n}.flv", time.time(), concurrent)
        take = Take(publish, self.root / publish.file)
        earlier.append(publish)
        self._journal.note(publish)
        return take

    def end(self, take: Take) -> None:
        """Close the recording of a publish."""
        take.close()
        self._end(take.publish, time.time())

    def _end(self, publish: Publish, at: float) -> None:
        publish.ended_at = at
        self._journal.note(publish)

    async def _keep_state(self) -> None:
        while True:
            self._journal.keep(self.publishes)
            await asyncio.sleep(_STATE_EVERY_S)


def main() -> None:
    """Receive until SIGTERM; `read_publishes` tells what came, even after SIGKILL."""
    parser = argparse.ArgumentParser(prog="python -m town.rtmp", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the recordings")
    parser.add_argument("--port", type=int, help="a port of 127.0.0.1 (a free one by default)")
    arguments = parser.parse_args()
    RtmpReceiver(arguments.root, arguments.port).run()


if __name__ == "__main__":
    main()
