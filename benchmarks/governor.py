"""Classes on air and downloads on one line that is too narrow for both, beside wget's own limit and a fixed split."""

import asyncio
import os
import re
import selectors
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks import on_air, recording
from benchmarks.figures import Figure
from benchmarks.receiver import Publisher, Receiver, answer
from benchmarks.stand import Stand
from flows.host import StreamerHost
from flows.streamer import bandwidth
from lectern.decide.bandwidth import PUSHES
from lectern.media import integrity
from lectern.model.facts import RemoteFile
from lectern.playout.rtmp import NotRtmp
from lectern.states import AiringState
from lectern.storage import cache_dir
from tests import laid, rows
from tests.faults import hosts
from tests.playout.stage import Playout
from town.ports import HOST
from town.programs import gather

WHAT = (
    "fifty classes of 1.5 Mbit/s are on air through a line of 100 Mbit/s, and twenty recordings are downloaded through"
    " the same line: a process that takes the pushes and sends the downloads; each connection gets its bytes in turn,"
    " out of one bucket. *Gap* is the longest time without a packet of any class, *behind* how late the latest packet"
    " came. *Use* is what the downloads wrote to the disk, as a part of what 1.25 times the bit rates on air leave of"
    " the line. The peers follow in the same run, with the same classes: twenty `wget --limit-rate=1000k`, the limit"
    " that the note names, and a fixed split of what is left, a twentieth for each. *Alone* is nothing but the classes."
    " *First* is the quickest of the downloads. Playout, governor and wget are the product's; nothing is booked"
)
CLASSES, DOWNLOADS = 50, 20
ON_AIR = "9999"
LINE_BYTES = 12_500_000
LENGTH_S = 600
QUANTUM_BYTES, BURST_S, BUFFER_BYTES = 16 * 1024, 0.05, 64 * 1024
"""What a connection gets in its turn; what the line may make good after it stood still; what the kernel may hide."""


def measure(stand: Stand) -> Iterator[Figure]:
    """The classes alone, then with the governor's downloads, then with each of the peers'."""
    folder = stand.folder()
    source = _recording(folder)
    names = [f"c-{number}" for number in range(CLASSES)]
    with Receiver(partial(_line, str(source))) as line, Playout(folder) as playout:
        start = time.time() + 10
        for name in names:
            lesson = {"class_id": name, "file": str(source), "push_urls": [line.url(name)]}
            playout.timetable[name] = {**lesson, "start": start, "end": start + LENGTH_S}
        playout.hand_over()
        on_air.until_on_air(line, names, dict.fromkeys(names, 1))
        run = _Run(stand, playout, line, names, source, start)
        yield from _figures(asyncio.run(run.all()), run.left_bytes)


def _recording(folder: Path) -> Path:
    loop = recording.make(folder / "loop.flv", 60, bits_s=1_400_000, preset="ultrafast")
    source = folder / "source.flv"
    again = ("-stream_loop", "-1", "-i", str(loop), "-c", "copy", "-t", str(LENGTH_S))
    recording.run("ffmpeg", "-v", "error", "-nostdin", "-y", *again, "-f", "flv", str(source))
    look, plain = asyncio.run(integrity.looked(source))
    assert plain == source
    integrity.write_index(look, source)
    return source


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


class _Run:
    """The classes on air, and what is downloaded beside them."""

    def __init__(
        self, stand: Stand, playout: Playout, line: Receiver, names: Sequence[str], source: Path, start: float
    ) -> None:
        self._stand, self._playout, self._line, self._names, self._start = stand, playout, line, names, start
        self._folder, self._size = stand.folder(), source.stat().st_size
        self._settle_s, self._window_s = (8.0, 12.0) if stand.quick else (15.0, 30.0)
        self._wget = gather(self._folder / "bin").wget
        self.left_bytes = LINE_BYTES - PUSHES * CLASSES * self._size / LENGTH_S

    async def all(self) -> dict[str, _Seen]:
        """What is seen with each way to download."""
        seen = {"alone": await self._watch([])}
        async with self._governed() as parts:
            seen["governor"] = await self._watch(parts)
        for peer, rate in (("wget", 1000 * 1024.0), ("split", self.left_bytes / DOWNLOADS)):
            await self._recover()
            with self._wgets(rate) as parts:
                seen[peer] = await self._watch(parts)
        for name, one in seen.items():
            self._stand.say(
                f"governor: {name}: gap {one.gap_s:.3f} s, behind {one.behind_s:.3f} s, {one.bytes_s:,.0f} B/s"
            )
        return seen

    async def _watch(self, parts: Sequence[Path]) -> _Seen:
        """What is seen in the window, after what began has settled; *parts* are the downloads' files in order."""
        await asyncio.sleep(self._settle_s)
        before, since = [_bytes(one) for one in parts], time.monotonic()
        await asyncio.sleep(self._window_s)
        until = time.monotonic()
        rates = [(_bytes(one) - old) / (until - since) for one, old in zip(parts, before, strict=True)]
        found = [self._of(name, since, until) for name in self._names]
        most = max(rates, default=0.0)
        return _Seen(max(gap for gap, _ in found), max(late for _, late in found), sum(rates), most)

    def _of(self, name: str, since: float, until: float) -> tuple[float, float]:
        """The longest gap of a class, and how far behind it was at most, seen from a session's most punctual packet."""
        behind_s, came = 0.0, []
        for session in self._line.of(name):
            late = [at - one.timestamp / 1000 for at, one in zip(session.at, session.packets, strict=True)]
            seen = [(at, it - min(late)) for at, it in zip(session.at, late, strict=True) if since <= at <= until]
            behind_s = max([behind_s, *(it for _, it in seen)])
            came += [at for at, _ in seen]
        return max(after - at for at, after in pairwise([since, *sorted(came), until])), behind_s

    async def _recover(self) -> None:
        """Wait until no class is behind."""
        async with asyncio.timeout(180):
            while any(  # noqa: ASYNC110 (the playout has no event for it)
                one["behind_s"] > 0.1 for one in (await self._ask("status", active=True))["classes"]
            ):
                await asyncio.sleep(1)
        await asyncio.sleep(3)

    async def _ask(self, do: str, **fields: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._playout.ask, do, **fields)

    @asynccontextmanager
    async def _governed(self) -> AsyncIterator[list[Path]]:
        """Downloads of a streamer, for classes of tomorrow, the first one first."""
        host = self._host()
        stems = [f"{number}" for number in range(DOWNLOADS)]
        url = f"{_url(self._line)}/x.flv"
        remote = RemoteFile(url, self._size, '"1"', None)
        with host.engine.begin() as connection:
            for stem in (*stems, ON_AIR):
                rows.reserve(connection, host.settings.video_root, stem, self._size, url, 0.0)
            for number, stem in enumerate(stems):
                wanted = rows.prepare(f"later-{stem}", number, time.time() + 90_000 + 60 * number)
                rows.add(connection, wanted, AiringState.WAITING, stem, 0.0)
            for name in self._names:
                wanted = rows.prepare(name, int(ON_AIR), self._start, LENGTH_S)
                rows.add(connection, wanted, AiringState.ON_AIR, ON_AIR, 0.0)
        host.in_progress |= set(stems)
        one = [bandwidth.download(host, stem, self._size, remote, lambda _: None) for stem in stems]
        governor = bandwidth.Governor(host)
        await governor.step()  # as it does all the time
        tasks = [asyncio.ensure_future(work) for work in (governor.run(), *one)]
        yield [cache_dir.part_path(host.settings.video_root, stem) for stem in stems]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    def _host(self) -> StreamerHost:
        engine = laid.opened("streamer", self._folder / "streamer.db")
        host = hosts.streamer(engine, self._folder / "videos", 1 << 40, 1000)
        host.settings.video_root.mkdir()
        rates = {"host_rate": str(LINE_BYTES), "download_rate": "1000k", "max_downloads": DOWNLOADS}
        host.settings = host.settings.model_copy(update={**rates, "wget_path": self._wget})
        host.playout = cast("Any", SimpleNamespace(ask=self._ask))
        return host

    @contextmanager
    def _wgets(self, rate: float) -> Iterator[list[Path]]:
        """As many wgets, each with a limit of its own."""
        parts = [self._folder / f"{rate:.0f}-{number}.flv" for number in range(DOWNLOADS)]
        argv = [self._wget, "-q", "--no-config", "--tries=1", f"--limit-rate={rate:.0f}"]
        running = [subprocess.Popen([*argv, f"{_url(self._line)}/x.flv", "-O", str(one)]) for one in parts]
        try:
            yield parts
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
