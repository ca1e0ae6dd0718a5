"""A way to a server that tests can shut."""

import asyncio
from contextlib import suppress
from itertools import count

from town.ports import HOST, Loopback


class Gate(Loopback):
    """A way to servers of loopback that can be shut: then connections are cut and refused, until it is opened.

    Each connection goes to the next of the servers that takes it, as a balancer does.
    It can also fall silent: connections stay open, new ones are taken, and nothing goes through until it goes on.
    Or it swallows: connections that are open stay so and carry nothing any more, as when a NAT forgets them.
    """

    def __init__(self, *to_ports: int, port: int | None = None) -> None:
        super().__init__()
        self.port = port or self.port
        self._to_ports, self._turns = to_ports, count()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._goes = asyncio.Event()
        self._goes.set()
        self._swallowed = 0
        self.taken = 0
        """Number of connections so far."""

    async def start(self) -> None:
        """Open it, if it is shut."""
        if self._server is not None:
            return
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()

    async def fall_silent(self) -> None:
        """Forward nothing any more; what is sent meanwhile arrives when it goes on."""
        self._goes.clear()

    async def go_on(self) -> None:
        self._goes.set()

    def swallow(self) -> None:
        """From now on all connections that are open carry nothing; new ones are served."""
        self._swallowed += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        mine, turn = {writer}, next(self._turns)
        self._open |= mine
        for tried in range(len(self._to_ports)):
            with suppress(OSError):
                to_port = self._to_ports[(turn + tried) % len(self._to_ports)]
                there, onward = await asyncio.open_connection(HOST, to_port)
                mine.add(onward)
                self._open.add(onward)
                if self._server is not None:  # else it was accepted while the gate was shut
                    age = self._swallowed
                    await asyncio.gather(self._pump(reader, onward, age), self._pump(there, writer, age))
                onward.transport.abort()
                break
        self._open -= mine
        writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, age: int) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._goes.wait()
                if age == self._swallowed:
                    sink.write(data)
                    await sink.drain()
        if age == self._swallowed:
            sink.transport.abort()
