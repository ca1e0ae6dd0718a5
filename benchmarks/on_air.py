"""Classes that are booked and aired by the whole product, at one second, and what is seen of them."""

import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.receiver import Packet, Receiver, Session
from benchmarks.storm import cpu_s
from lectern.playout import flv
from tests.stage import Stage, wait_until
from town.recordings import encode

WHO = "streamer1"
LOOP_S = 120
"""The recording is as much, again and again: a picture tells where in it one is."""


@dataclass(frozen=True)
class Seen:
    """How late the first bytes were, and what the processes used that sent them."""

    late_s: list[float]
    memory_mib: float
    cpu_s_a_class_minute: float


def recording(stage: Stage, record: int, length_s: int) -> Path:
    """A record of the origin: 1.5 Mbit/s, a keyframe every 2 s."""
    source = stage.town.origin.root / str(record) / f"{record}.flv"
    source.unlink()
    loop, ffmpeg, run = stage.folder / "loop.flv", stage.town.programs.ffmpeg, stage.town.background.run
    inputs = ("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=44100")
    rate = ("-b:v", "1400k", "-minrate", "1400k", "-maxrate", "1400k", "-bufsize", "700k")
    picture = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", *rate)
    sound = ("-x264-params", "nal-hrd=cbr", "-c:a", "aac", "-b:a", "96k", "-t", str(LOOP_S))
    run(encode(ffmpeg, *inputs, *picture, *sound, to=loop))
    run(encode(ffmpeg, "-stream_loop", "-1", "-i", str(loop), "-c", "copy", "-t", str(length_s), to=source))
    return source


def book(stage: Stage, receiver: Receiver, record: int, number: int, start: float, length_s: float) -> list[str]:
    """Book *number* classes that begin at *start*, and wait for their answers."""
    times = {"start_time": start, "end_time": start + length_s}
    class_ids = []
    for _ in range(number):
        booking = stage.booking(record)
        url = receiver.url(booking["class_id"])
        class_ids.append(stage.book({**booking, **times, "push_url": url}))
    for class_id in class_ids:
        assert stage.answer(class_id, timeout_s=120)["result"] == "success"
    return class_ids


def watch(receiver: Receiver, names: Sequence[str], start: float, window_s: float, sender: psutil.Process) -> Seen:
    """Wait until all are on air, and look at *sender* and its children for *window_s*."""
    until_on_air(receiver, names, dict.fromkeys(names, 1))
    time.sleep(3)
    before = cpu_s([sender.pid])
    time.sleep(window_s)
    used_s, memory_mib = cpu_s([sender.pid]) - before, _memory_mib(sender)
    offset_s = time.time() - time.monotonic()
    late_s = [abs(receiver.of(name)[0].at[0] + offset_s - start) for name in names]
    return Seen(late_s, memory_mib, used_s / len(names) / (window_s / 60))


def until_on_air(receiver: Receiver, names: Sequence[str], sessions: dict[str, int], timeout_s: float = 180) -> None:
    """Wait until each has brought packets in as many sessions as *sessions* says."""

    def all_there() -> bool:
        counts = receiver.counts()
        return all(len(counts.get(name, [])) >= sessions[name] for name in names)

    wait_until(all_there, timeout_s=timeout_s, pause_s=0.05, description="all classes are on air")


def gaps(receiver: Receiver, names: Sequence[str], strike: Callable[[], None], settle_s: float) -> list[float]:
    """The longest gap of each class while *strike* is done and for *settle_s* after it, over all its sessions."""
    since = time.monotonic() - 0.5
    strike()
    time.sleep(settle_s)
    until = time.monotonic()
    found = []
    for name in names:
        times = [at for one in receiver.of(name) for at in one.at if since <= at <= until]
        found.append(max(after - before for before, after in pairwise([since, *times, until])))
    return found


def cut(receiver: Receiver, name: str, source: "Source", start: float) -> tuple[float, float]:
    """Reset a connection: the gap, and how far off the clock the next picture is."""
    sessions = len(receiver.of(name))
    receiver.cut(name)
    until_on_air(receiver, [name], {name: sessions + 1}, timeout_s=60)
    wait_until(lambda: source.picture(receiver.of(name)[-1]) is not None, timeout_s=30, description="a picture")
    before, after = receiver.of(name)[-2:]
    shown = source.picture(after)
    assert shown is not None
    at_s, checksum = shown
    clock_s = at_s + time.time() - time.monotonic() - start
    return after.at[0] - before.at[-1], source.off_s(checksum, clock_s)


class Source:
    """What a recording consists of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets: list[Packet] = []
        self._headers: set[int] = set()
        self._at_s: dict[int, list[float]] = {}
        data = path.read_bytes()
        at, first = flv.HEAD_BYTES, 0
        while at < len(data) and (head := flv.tag_head(data, at)) is not None:
            body = data[at + flv.TAG_HEAD_BYTES : at + flv.TAG_HEAD_BYTES + head.size]
            at += head.whole
            if head.kind == flv.SCRIPT or not head.size:
                continue
            first = first if self.packets else head.timestamp
            found = Packet(head.kind, head.timestamp - first, zlib.crc32(body))
            self.packets.append(found)
            if flv.is_header(head.kind, body):
                self._headers.add(found.checksum)
            elif head.kind == flv.PICTURE:
                self._at_s.setdefault(found.checksum, []).append(found.timestamp / 1000)

    def is_exact(self, session: Session) -> bool:
        """Whether a session that began with the recording brought it packet by packet."""
        found = session.packets
        return found == self.packets[: len(found)]

    def picture(self, session: Session) -> tuple[float, int] | None:
        """When the first picture came, by time.monotonic, and its checksum."""
        for at, one in zip(session.at, session.packets, strict=True):
            if one.kind == flv.PICTURE and one.checksum not in self._headers:
                return at, one.checksum
        return None

    def off_s(self, checksum: int, clock_s: float) -> float:
        """How far a picture is from where the clock is."""
        return min((abs(at_s - clock_s) for at_s in self._at_s.get(checksum, ())), default=math.inf)


def _memory_mib(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    journals = {}
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        if "lectern-journal" in str(file.readlink()):
            state = file.stat()
            journals[state.st_ino] = state.st_blocks * 512
    return float(sum(one.memory_full_info().pss for one in family) + sum(journals.values())) / 2**20
