"""Messages between holder and worker: one JSON object a line, with open files beside it; never blocks."""

import json
import os
import socket
from collections import deque
from typing import Any

from lectern.playout.lines import say

_RECEIVE_BYTES = 64 * 1024
_MAX_FILES = 16


class Gone(Exception):
    """The process at the other end has ended."""


class Pipe:
    """One end of a pair of sockets. What does not go at once waits here until `flush`."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self.connection = connection
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._in = b""
        self._files: deque[int] = deque()

    def say(self, what: str, files: tuple[int, ...] = (), **more: Any) -> None:  # noqa: ANN401 (JSON)
        """Send a message, with copies of *files*, which the caller may close at once."""
        line = json.dumps({"say": what, "files": len(files), **more}).encode() + b"\n"
        self._out.append((line, [os.dup(one) for one in files]))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as that is possible without blocking; `hear` tells whether the other side lives."""
        while self._out:
            line, files = self._out[0]
            try:
                sent = socket.send_fds(self.connection, [line], files) if files else self.connection.send(line)
            except BlockingIOError:
                return
            except OSError:
                sent = len(line)
            for one in files:
                os.close(one)
            self._out[0] = (line[sent:], [])
            if sent == len(line):
                self._out.popleft()

    def hear(self) -> list[tuple[dict[str, Any], list[int]]]:
        """The messages that have arrived, with their files; raises Gone if the other side has ended.

        A message without all of its files is left out: the kernel gives none to a process that has too many open.
        """
        found: list[tuple[dict[str, Any], list[int]]] = []
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self.connection, _RECEIVE_BYTES, _MAX_FILES)
            except BlockingIOError:
                return found
            except OSError:
                data, files = b"", []  # it ended, and had not read all that was said to it
            if not data:
                if found:
                    return found
                raise Gone
            self._files.extend(files)
            *lines, self._in = (self._in + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                beside = [self._files.popleft() for _ in range(min(message["files"], len(self._files)))]
                if len(beside) == message["files"]:
                    found.append((message, beside))
                    continue
                say(f"{message['say']}: too many files are open for those of this message, which is left out")
                for one in beside:
                    os.close(one)

    def close(self) -> None:
        """Close this end, and the files that were not taken or sent."""
        self.connection.close()
        for one in [*self._files, *(file for _, files in self._out for file in files)]:
            os.close(one)
        self._files.clear()
        self._out.clear()
