"""A playout that is patient, and whose worker is killed at a chosen instruction as soon as a file names it.

It is started by its path, as the product's program is, and starts workers of itself.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "lib"))

from lectern.playout import __main__ as program
from lectern.playout import demuxer, kernel, net, publisher, session, source, supervisor, worker_process

PROGRAM = Path(__file__)
POINTS = (
    "batch: begun",
    "journal: before the body",
    "journal: half the body",
    "journal: before the head",
    "journal: half the head",
    "journal: written",
    "send: before",
    "send: after",
    "batch: done",
    "receive: before the note",
    "receive: before it is taken",
    "receive: taken",
)
ARM = Path(os.environ.get("DIE_AT", "/dev/null/never"))


def die_at(point: str) -> None:
    """Be killed here, if this is where; only once."""
    if ARM.is_file() and ARM.read_text() == point:
        ARM.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingOs:
    """What of `os` sessions use."""

    pread, close, urandom = staticmethod(os.pread), staticmethod(os.close), staticmethod(os.urandom)

    @staticmethod
    def pwrite(file: int, data: bytes, at: int) -> int:
        is_head = at < 2 * session._REGION
        if at >= 4 * session._REGION:  # notes
            return os.pwrite(file, data, at)
        if not is_head:
            die_at("journal: before the body")
        else:
            die_at("journal: before the head")
        half = f"journal: half the {'head' if is_head else 'body'}"
        if ARM.is_file() and ARM.read_text() == half:
            os.pwrite(file, data[: len(data) // 2], at)
            die_at(half)
        written = os.pwrite(file, data, at)
        if is_head:
            die_at("journal: written")
        return written


send, batch = net.send, session.Session.batch


def dying_send(connection: Any, data: memoryview) -> int:
    is_media = len(data) > 0 and ARM.is_file()
    if is_media:
        die_at("send: before")
    sent = send(connection, data)
    if is_media and (sent or os.environ.get("DIE_FULL")):
        die_at("send: after")
    return sent


def dying_batch(self: session.Session, *arguments: Any) -> None:
    die_at("batch: begun")
    batch(self, *arguments)
    die_at("batch: done")


def dying_receive(connection: Any, size: int, flags: int = 0) -> bytes | None:
    data = receive(connection, size, flags)
    if data and flags:
        die_at("receive: before the note")
    return data


def dying_note(self: session.Session) -> None:
    note(self)
    caller = sys._getframe(1).f_code.co_name
    if caller == "_receive":
        die_at("receive: before it is taken")


def dying_session_receive(self: session.Session) -> int:
    found = session_receive(self)
    if found and self.step == "live":
        die_at("receive: taken")
    return found


receive, note, session_receive = net.receive, session.Session.note, session.Session._receive

if __name__ == "__main__":
    changed: list[tuple[object, str, object]] = [
        (worker_process, "PROGRAM", PROGRAM),
        # A machine that is busy with other tests may take seconds to start a worker. Here packets count, not the time.
        *((one, "BEHIND_MS", 60_000) for one in (source, publisher)),
        *((one, "STALL_S", 60.0) for one in (source, demuxer)),
        (supervisor, "HUNG_S", float(os.environ.get("HUNG_S", "60"))),
        (session, "os", DyingOs),
        (kernel, "HAND_OVER", "NO_HAND_OVER" not in os.environ),
        (net, "send", dying_send),
        (net, "receive", dying_receive),
        (session.Session, "batch", dying_batch),
        (session.Session, "note", dying_note),
        (session.Session, "_receive", dying_session_receive),
    ]
    if "ABSOLUTE" in os.environ:  # a session's times are those of the class, whenever it begins
        changed.append((publisher, "FROM_THE_START_MS", float("inf")))
    for thing, name, value in changed:
        setattr(thing, name, value)
    program.main()
