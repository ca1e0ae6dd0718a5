"""A way to a server that tests can shut."""

import asyncio
from contextlib import suppress

from town.ports import HOST, Loopback


class Gate(Loopback):
    """A way to a server of loopback that can be shut: then connections are cut and refused, until it is opened.

    It can also fall silent: connections stay open, new ones are taken, and nothing goes through until it goes on.
    """

    def __init__(self, to_port: int) -> None:
        super().__init__()
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._goes = asyncio.Event()
        self._goes.set()

    async def start(self) -> None:
        """Open it, if it is shut."""
        if self._server is not None:
            return
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        """Shut it."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()

    async def fall_silent(self) -> None:
        """Forward nothing any more; what is sent meanwhile arrives when it goes on."""
        self._goes.clear()

    async def go_on(self) -> None:
        """Forward again."""
        self._goes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = {writer}
        self._open |= mine
        with suppress(OSError):
            there, onward = await asyncio.open_connection(HOST, self._to_port)
            mine.add(onward)
            self._open.add(onward)
            if self._server is not None:  # else it was accepted while the gate was shut
                await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
            onward.transport.abort()
        self._open -= mine
        writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._goes.wait()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
