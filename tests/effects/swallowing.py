"""A way to a server whose open connections can be made to swallow all that is sent, as a lost NAT state does."""

import asyncio
from contextlib import suppress

from town.ports import HOST, Loopback


class Swallower(Loopback):
    """Passes connections on; those that are open when it is told to swallow stay open and carry nothing any more."""

    def __init__(self, to_port: int) -> None:
        super().__init__()
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._age = 0
        self.opened = 0

    async def start(self) -> None:
        """Let connections in."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    def swallow(self) -> None:
        """From now on all connections that are open carry nothing; new ones are served."""
        self._age += 1

    async def stop(self) -> None:
        """End it."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        there, onward = await asyncio.open_connection(HOST, self._to_port)
        self._writers += [writer, onward]
        for source, sink in ((reader, onward), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink, self._age))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, age: int) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if age == self._age:
                    sink.write(data)
                    await sink.drain()
        if age == self._age:
            sink.transport.abort()
