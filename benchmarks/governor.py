"""Classes on air and downloads on one line that is too narrow for both, beside wget's own limit and a fixed split."""

import os
import re
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import on_air
from benchmarks.figures import Figure
from benchmarks.on_air import WHO
from benchmarks.receiver import LARGEST_MESSAGE, Publisher, Receiver, answer
from benchmarks.stand import Stand
from lectern.decide.bandwidth import PUSHES
from lectern.playout.rtmp import NotRtmp, chunks
from tests.stage import Stage, wait_until
from town.ports import HOST

WHAT = (
    "fifty classes of 1.5 Mbit/s are on air through a line of 100 Mbit/s, and twenty recordings are downloaded through"
    " the same line: a process that takes the pushes and sends the downloads; each connection gets its bytes in turn,"
    " out of one bucket. *Gap* is the longest time without a packet of any class, *behind* how late the latest packet"
    " came. *Use* is what the downloads wrote to the disk, as a part of what 1.25 times the bit rates on air leave of"
    " the line. The peers follow in the same run, with the same classes: twenty `wget --limit-rate=1000k`, the limit"
    " that the note names, and a fixed split of what is left, a twentieth for each. *Alone* is nothing but the classes."
    " *First* is the bytes a second of the download whose class begins first"
)
CLASSES, DOWNLOADS = 50, 20
LINE_BYTES = 12_500_000
LENGTH_S = 1800
QUANTUM_BYTES, BURST_S, BUFFER_BYTES = 16 * 1024, 0.05, 64 * 1024
"""What a connection gets in its turn; what the line may make good after it stood still; what the kernel may hide."""


def measure(stand: Stand) -> Iterator[Figure]:
    """The classes alone, then with the governor's downloads, then with each of the peers'."""
    window_s, settle_s = (12.0, 8.0) if stand.quick else (30.0, 15.0)
    settings = {"HOST_RATE": str(LINE_BYTES), "DOWNLOAD_RATE": "1000k", "MAX_DOWNLOADS": str(DOWNLOADS)}
    with stand.stage(BROADCAST_LEAD_S="20", **settings) as stage:
        stage.up("teacher", WHO)
        record = stage.town.record()
        source = on_air.recording(stage, record, LENGTH_S)
        with Receiver(partial(_line, str(source))) as line:
            on_air.book(stage, line, record, 1, time.time() + 90_000, 60)  # the recording is there when classes come
            start = time.time() + 45
            names = on_air.book(stage, line, record, CLASSES, start, LENGTH_S - 60)
            on_air.until_on_air(line, names, dict.fromkeys(names, 1))
            left = LINE_BYTES - PUSHES * CLASSES * source.stat().st_size / LENGTH_S
            run = _Run(stage, line, names, stand.folder(), settle_s, window_s)
            seen = {"alone": run.watch(list)}
            with run.governed() as parts:
                seen["governor"] = run.watch(parts)
            for peer, rate in (("wget", 1000 * 1024.0), ("split", left / DOWNLOADS)):
                run.recover()
                with run.wgets(rate) as parts:
                    seen[peer] = run.watch(parts)
            for name, one in seen.items():
                stand.say(
                    f"governor: {name}: gap {one.gap_s:.3f} s, behind {one.behind_s:.3f} s, {one.bytes_s:,.0f} B/s"
                )
    yield from _figures(seen, left)


@dataclass(frozen=True)
class _Seen:
    gap_s: float
    behind_s: float
    bytes_s: float = 0.0
    first_s: float = 0.0


def _figures(seen: dict[str, _Seen], left: float) -> Iterator[Figure]:
    ours, alone, theirs = seen["governor"], seen["alone"], {name: seen[name] for name in ("wget", "split")}
    rows: dict[str, tuple[str, Callable[[_Seen], float], bool, str, float | None]] = {
        "gap": ("s", lambda one: one.gap_s, False, "<= 0.15", alone.gap_s),
        "behind": ("s", lambda one: one.behind_s, False, "<= 0.5", alone.behind_s),
        "use of what is left": ("share", lambda one: one.bytes_s / left, True, ">= 0.85", 1.0),
        "first": ("MB/s", lambda one: one.first_s / 1e6, True, "", left / 1e6),
    }
    for what, (unit, of, more, goal, limit) in rows.items():
        peers = {name: of(one) for name, one in theirs.items()}
        yield Figure(f"governor: {what}", unit, of(ours), peers, limit, more_is_better=more, goal=goal, compares=False)


@dataclass
class _Run:
    """The classes on air, and what is downloaded beside them."""

    stage: Stage
    line: Receiver
    names: Sequence[str]
    folder: Path
    settle_s: float
    window_s: float
    clocks: dict[str, float] = field(default_factory=dict)  # when each class's timestamp 0 was due, monotonic

    def watch(self, parts: Callable[[], list[Path]]) -> _Seen:
        """What is seen in the window, after what began has settled; *parts* are the downloads' files in order."""
        time.sleep(self.settle_s)
        before, since = [_bytes(one) for one in parts()], time.monotonic()
        time.sleep(self.window_s)
        until = time.monotonic()
        came = [max(_bytes(one) - old, 0) for one, old in zip(parts(), before, strict=True)]
        found = [self._of(name, since, until) for name in self.names]
        first = came[0] / self.window_s if came else 0.0
        return _Seen(max(gap for gap, _ in found), max(late for _, late in found), sum(came) / self.window_s, first)

    def _of(self, name: str, since: float, until: float) -> tuple[float, float]:
        gap_s = behind_s = 0.0
        for session in self.line.of(name):
            times = [(at, one.timestamp / 1000) for at, one in zip(session.at, session.packets, strict=True)]
            clock = self.clocks.setdefault(name, min(at - due for at, due in times))
            seen = [(at, at - due - clock) for at, due in times if since <= at <= until]
            behind_s = max([behind_s, *(late for _, late in seen)])
            gap_s = max([gap_s, *(after - at for (at, _), (after, _) in pairwise([(since, 0.0), *seen, (until, 0.0)]))])
        return gap_s, behind_s

    def recover(self) -> None:
        """Wait until no class is behind."""

        def is_even() -> bool:
            return all(one["behind_s"] < 0.1 for one in self.stage.playing(WHO)["classes"] if one["state"] == "on_air")

        wait_until(is_even, timeout_s=120, pause_s=1, description="no class is behind")
        time.sleep(3)

    @contextmanager
    def governed(self) -> Iterator[Callable[[], list[Path]]]:
        """Downloads of the product, for classes of tomorrow."""
        root, stems, class_ids = Path(self.stage.environment(WHO)["VIDEO_ROOT"]), [], []
        for number in range(DOWNLOADS):
            record = self.stage.town.record()
            booking = self.stage.booking(record, starts_in_s=90_000 + 60 * number)
            class_ids.append(self.stage.book({**booking, "video_url": f"{_url(self.line)}/{record}.flv"}))
            stems.append(record)
        part = [root / str(stem) / f"{stem}.flv.part" for stem in stems]
        wait_until(lambda: any(one.exists() for one in part), timeout_s=60, description="downloads have begun")
        yield lambda: part
        for class_id in class_ids:
            self.stage.cancel(class_id)
        wait_until(lambda: not any(one.exists() for one in part), timeout_s=120, description="no download is left")

    @contextmanager
    def wgets(self, rate: float) -> Iterator[Callable[[], list[Path]]]:
        """As many wgets, each with a limit of its own."""
        part = [self.folder / f"{rate:.0f}-{number}.flv" for number in range(DOWNLOADS)]
        wget = self.stage.town.programs.wget
        argv = [wget, "-q", "--no-config", "--tries=1", f"--limit-rate={rate:.0f}", f"{_url(self.line)}/x.flv", "-O"]
        running = [subprocess.Popen([*argv, str(one)]) for one in part]
        try:
            yield lambda: part
        finally:
            for one in running:
                one.kill()
                one.wait()


def _url(line: Receiver) -> str:
    return f"http://{HOST}:{line.ask('http')}"


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# The line: a process that receives RTMP and serves a file over HTTP, all by one bucket.


class _Bucket:
    """The bytes that may pass now."""

    def __init__(self) -> None:
        self._left, self._at = 0.0, time.monotonic()

    def pass_(self, number: int) -> None:
        """Let *number* bytes pass, and wait until the line has carried them."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * LINE_BYTES, BURST_S * LINE_BYTES) - number
        self._at = now
        if self._left < 0:
            time.sleep(-self._left / LINE_BYTES)


class _Sent:
    """A download: its request, then the file from where it asks."""

    def __init__(self, connection: socket.socket, file: int) -> None:
        self.connection, self._file = connection, file
        self._asked, self._at = b"", 0
        self.left_bytes = -1  # of its body, once that is sent

    def read(self) -> bool:
        """Take what it asks; False if it is over."""
        data = self.connection.recv(4096)
        self._asked += data
        if b"\r\n\r\n" in self._asked:
            size, head = os.fstat(self._file).st_size, self._asked.decode("latin-1")
            self._asked = b""
            found = re.search(r"(?i)range: bytes=(\d+)-", head)
            self._at = int(found[1]) if found else 0
            status = f"206 Partial Content\r\nContent-Range: bytes {self._at}-{size - 1}/{size}" if found else "200 OK"
            said = f'HTTP/1.1 {status}\r\nContent-Length: {size - self._at}\r\nETag: "1"\r\n\r\n'
            self.connection.sendall(said.encode())
            self.left_bytes = -1 if head.startswith("HEAD") else size - self._at
        return bool(data)

    def write(self) -> int:
        """Send its next bytes; returns how many."""
        sent = os.sendfile(self.connection.fileno(), self._file, self._at, min(QUANTUM_BYTES, self.left_bytes))
        self._at, self.left_bytes = self._at + sent, self.left_bytes - sent
        return sent


def _line(path: str, pipe: Connection) -> None:
    chunks.MAX_MESSAGE_BYTES = LARGEST_MESSAGE
    publishers: list[Publisher] = []
    bucket, file = _Bucket(), os.open(path, os.O_RDONLY)
    with selectors.DefaultSelector() as selector, _listen() as rtmp, _listen() as http:
        pipe.send(rtmp.getsockname()[1])
        for one in (rtmp, http, pipe):
            selector.register(one, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is pipe:
                    what = pipe.recv()
                    pipe.send(http.getsockname()[1] if what == ("http",) else answer(publishers, *what))
                elif key.fileobj in (rtmp, http):
                    connection, _ = (rtmp if key.fileobj is rtmp else http).accept()
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
                    guest = Publisher(connection) if key.fileobj is rtmp else _Sent(connection, file)
                    publishers += [guest] if isinstance(guest, Publisher) else []
                    selector.register(connection, selectors.EVENT_READ, guest)
                elif not _turn(key.data, selector, bucket):
                    selector.unregister(key.fileobj)
                    key.data.connection.close()


def _listen() -> socket.socket:
    made = socket.create_server((HOST, 0), backlog=1024)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return made


def _turn(guest: Publisher | _Sent, selector: selectors.BaseSelector, bucket: _Bucket) -> bool:
    """Let a connection have its next bytes; False if it is over."""
    try:
        if isinstance(guest, Publisher):
            data = guest.connection.recv(QUANTUM_BYTES)
            guest.take(data, time.monotonic())
            bucket.pass_(len(data))
            guest.session.is_over = not data
            return bool(data)
        if guest.left_bytes >= 0:
            sent = guest.write()
            bucket.pass_(sent)
            return bool(sent)
        is_over = not guest.read()
        if guest.left_bytes >= 0:
            selector.modify(guest.connection, selectors.EVENT_WRITE, guest)
    except (OSError, NotRtmp):
        if isinstance(guest, Publisher):
            guest.session.is_over = True
        return False
    return not is_over
