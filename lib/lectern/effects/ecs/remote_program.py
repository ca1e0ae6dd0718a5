"""Begins and ends a program on another host: its id is known before it begins, and its process group is its own."""

import re
import select
from dataclasses import dataclass, field
from typing import Any

from lectern.effects import output

GO = b"go\n"
# A session of its own, so that its group can be ended. It waits for GO, which we send when we know its id: a start
# during which we are cut off or cancelled leaves nothing there. Later, timeout ends it if we are cut off.
BEGIN = 'echo "lectern-pid $$"; read -r go || exit 125; LC_ALL=C exec timeout -k 5 "$@"'
WRAPPER = ("setsid", "-w", "sh", "-c", BEGIN, "lectern")
# No "--" before the group: dash's kill takes it for a process.
ENDING = """
kill -TERM "-$1" 2>/dev/null; i=0
while kill -0 "-$1" 2>/dev/null; do
  i=$((i+1)); [ "$i" -gt "$2" ] && kill -KILL "-$1" 2>/dev/null; [ "$i" -gt "$(($2*2))" ] && exit 1; sleep 0.1
done
"""

_CHUNK_BYTES = _HEAD_BYTES = 65536
_WAIT_S = 0.25
_PID = re.compile(rb"(?:^|\n)lectern-pid (\d+)\n")


@dataclass
class Running:
    """A program on the other host, and its output, whose first line is its process id there."""

    lines: output.Lines
    channel: Any = None  # of paramiko, when it is open
    out: output.Tail = field(default_factory=output.Tail)
    err: output.Tail = field(default_factory=output.Tail)
    head: bytes = b""
    pid: int | None = None
    told: bool = False  # whether it was told to begin

    def read(self) -> tuple[bytes, bytes, bool]:
        """Wait for at most 0.25 s; returns the new output, the new errors, and whether the program has ended."""
        channel = self.channel
        if not (channel.recv_ready() or channel.recv_stderr_ready()):
            if channel.eof_received or channel.closed:
                channel.status_event.wait(_WAIT_S)
            else:
                poll = select.poll()
                poll.register(channel.fileno(), select.POLLIN)
                poll.poll(_WAIT_S * 1000)
        # Look for the end first: all that was printed before the end can then be read.
        ended = channel.status_event.is_set() and (channel.eof_received or channel.closed)
        out = channel.recv(_CHUNK_BYTES) if channel.recv_ready() else b""
        err = channel.recv_stderr(_CHUNK_BYTES) if channel.recv_stderr_ready() else b""
        return out, err, ended and not out and not err

    def add(self, out: bytes, err: bytes) -> None:
        """Take in new output *out* and new errors *err* of the program."""
        self.err.add(err)
        if self.pid is None:
            self.head = (self.head + out)[-_HEAD_BYTES:]
            matched = _PID.search(self.head)
            if matched is None:
                return
            self.pid, out, self.head = int(matched[1]), self.head[matched.end() :], b""
        self.out.add(out)
        self.lines.add(out)
