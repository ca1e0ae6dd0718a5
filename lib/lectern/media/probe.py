"""Looks into a recording on disk: whether it has pictures, how long it is, and whether its end can be played.

This runs as a program of its own (``python -m lectern.media.probe PATH``): whatever a file does to a decoder,
it does not take the memory or the life of the process that keeps the lease.
"""

import json
import re
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from lectern import subprocesses
from lectern.errors import BAD_RECORDING, Refuse, TryAgain
from lectern.i18n import Text, msgid, packed, unpacked
from lectern.media.ffmpeg import FORMATS
from lectern.storage import cache_dir

TIMEOUT_S = 60.0
MEMORY_BYTES = 1024**3
"""What a look may take; pictures of 3840x2160 take about 400 MB."""

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
_TAIL_BYTES = 8 * 1024 * 1024
_MOST_TAIL_BYTES = 64 * 1024 * 1024
_TAIL_S = 15
_TAG = re.compile(rb"(?=[\x08\x09\x12](.{3}).{4}\x00\x00\x00)", re.DOTALL)
HOW: dict[str, Any] = {"options": {"protocol_whitelist": "file", "format_whitelist": FORMATS}}
"""How a file that came from elsewhere is opened."""

if int(av.__version__.partition(".")[0]) < 19:  # from 19 on, PyAV takes a title in GBK by itself, and has no such word
    HOW["metadata_errors"] = "replace"


@dataclass(frozen=True)
class Probe:
    """The properties of a recording with pictures.

    *duration_s* is what is there, whatever the header says. *last_second_decodes* is False if the end is damaged,
    or if the header promises more than is there (by more than 2 s and 1 %).
    """

    duration_s: float
    size_bytes: int
    last_second_decodes: bool
    mtime: float | None = None


async def probe(path: Path) -> Probe:
    """Look into *path* in at most 60 s, whatever its size; raises Refuse(BAD_RECORDING) if it is no recording.

    Raises TryAgain if it is not the file that kept it from being looked into.
    """
    argv = [sys.executable, "-I", "-m", __name__, str(path.absolute())]
    try:
        done = await subprocesses.run(argv, timeout_s=TIMEOUT_S)
    except subprocesses.TimedOut as error:
        raise TryAgain(
            "{path}: not probed within {timeout_s:g} s; is the disk busy?", path=path, timeout_s=TIMEOUT_S
        ) from error
    if done.returncode == 0:
        what, said = json.loads(done.output)
        if what == "found":
            return Probe(**said)
        raise Refuse(unpacked(said), BAD_RECORDING) if what == "refused" else TryAgain(unpacked(said))
    if -done.returncode in _CRASHES:
        raise Refuse("{path}: cannot be opened as a recording: the decoder crashes on it", BAD_RECORDING, path=path)
    text = msgid("{path}: cannot be probed: {last_words}")
    raise TryAgain(text, path=path, last_words=done.last_words or Text("exit code {code}", code=done.returncode))


def main(path: str) -> None:
    """Print what is found in *path*, or why nothing is; in bounds of memory, with the rest of the time unbounded."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    av.logging.set_level(None)
    try:
        said: tuple[str, Any] = "found", asdict(_probe(Path(path)))
    except MemoryError:
        most = Text("decoding it takes more than {memory_mb} MB of memory", memory_mb=MEMORY_BYTES // 1024**2)
        said = "refused", packed(Text("{path}: cannot be opened as a recording: {most}", path=path, most=most))
    except Refuse as error:
        said = "refused", packed(error.message)
    except TryAgain as error:
        said = "again", packed(error.message)
    sys.stdout.write(json.dumps(said))


def _probe(path: Path) -> Probe:
    try:
        with av.open(f"file:{path.absolute()}", **HOW, timeout=TIMEOUT_S) as container:
            if not container.streams.video:
                found = ", ".join(stream.type for stream in container.streams) or "no stream at all"
                raise Refuse("{path}: has no video, only {found}", BAD_RECORDING, path=path, found=found)
            if container.streams.video[0].codec_context is None:
                raise Refuse("{path}: its pictures are of a kind that is not known", BAD_RECORDING, path=path)
            return _look(path, container)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        if error.errno in cache_dir.OURS:
            raise TryAgain("{path}: cannot be opened: {strerror}", path=path, strerror=error.strerror) from error
        raise Refuse(
            "{path}: cannot be opened as a recording: {error}", BAD_RECORDING, path=path, error=error
        ) from error


def _look(path: Path, container: InputContainer) -> Probe:
    looked = path.stat()
    size_bytes = looked.st_size
    stream = container.streams.video[0]
    promised_s = container.duration / av.time_base if container.duration else 0.0
    begin_s = container.start_time / av.time_base if container.start_time else 0.0
    packets = _tail(path, container, stream, size_bytes)
    end_s = max((_end_s(packet) for packet in packets), default=begin_s)
    duration_s = max(0.0, end_s - begin_s)
    slack_s = max(2.0, duration_s * 0.01)
    # If the header names no duration, the last time stamp counts for it: that of a recorded live stream is its end.
    whole = promised_s - duration_s <= max(2.0, promised_s * 0.01) or abs(promised_s - end_s) <= slack_s
    return Probe(duration_s, size_bytes, whole and _decodes(stream, packets), looked.st_mtime)


def _tail(path: Path, container: InputContainer, stream: VideoStream, size_bytes: int) -> "list[Packet[Any]]":
    """The last packets, enough of them to hold a keyframe in their first half (or all, if there are no more)."""
    reach_bytes = _TAIL_BYTES
    # Where the seek goes by time, a small file has as many seconds as a large one.
    most_bytes = min(size_bytes, _MOST_TAIL_BYTES) if "flv" in container.format.name else _MOST_TAIL_BYTES
    while True:
        from_start = not _seek_near_end(path, container, size_bytes, reach_bytes)
        packets: list[Packet[Any]] = []
        try:
            for packet in container.demux():
                packets += [packet] if packet.size and _time_s(packet) is not None else []
        except MemoryError:
            raise
        except (av.error.FFmpegError, IndexError):
            pass  # damage that the demuxer takes for another stream: it counts as the end
        early = packets[: len(packets) // 2 + 1]
        keyed = any(packet.is_keyframe for packet in early if packet.stream.index == stream.index)
        if keyed or from_start or reach_bytes >= most_bytes:
            return packets
        reach_bytes *= 2


def _seek_near_end(path: Path, container: InputContainer, size_bytes: int, reach_bytes: int) -> bool:
    """Seek to the begin of the tail; False if that is the start of the file.

    FLV has no index, so the seek goes by bytes to a tag. Other formats have an index.
    """
    by_bytes = "flv" in container.format.name
    reach_s = _TAIL_S * (reach_bytes // _TAIL_BYTES)
    if by_bytes and size_bytes > reach_bytes:
        with path.open("rb") as file:
            file.seek(size_bytes - reach_bytes)
            data = file.read(_TAIL_BYTES)
        for matched in _TAG.finditer(data):  # a tag's size is repeated behind it (FLV 10.1, E.4)
            behind = matched.start() + 11 + int.from_bytes(matched[1])
            if data[behind : behind + 4] == (behind - matched.start()).to_bytes(4):
                container.seek(size_bytes - reach_bytes + matched.start(), unsupported_byte_offset=True)
                return True
    if not by_bytes and container.duration and container.duration > reach_s * av.time_base:
        container.seek((container.start_time or 0) + container.duration - reach_s * av.time_base)
        return True
    container.seek(container.start_time or 0)
    return False


def _decodes(stream: VideoStream, packets: "list[Packet[Any]]") -> bool:
    """Whether the video's last second decodes, begun at the last keyframe that is at least a second before the end."""
    video = [packet for packet in packets if packet.stream.index == stream.index]
    if not video or any(packet.is_corrupt for packet in packets):
        return False
    last_s = max(_end_s(packet) for packet in video)
    keys = [index for index, packet in enumerate(video) if packet.is_keyframe]
    early = [index for index in keys if (_time_s(video[index]) or 0.0) <= last_s - 1.0]
    if not keys:
        return False
    decoder = stream.codec_context
    decoder.flush_buffers()
    shown = False
    try:
        for packet in [*video[(early or keys)[-1] :], None]:
            for frame in decoder.decode(packet):  # none is kept: a minute of pictures is gigabytes
                shown = shown or (frame.time >= last_s - 1.0 and not frame.is_corrupt)
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        return False
    return shown


def _time_s(packet: "Packet[Any]") -> float | None:
    ticks = packet.pts if packet.pts is not None else packet.dts
    return None if ticks is None else float(ticks * packet.time_base)


def _end_s(packet: "Packet[Any]") -> float:
    return (_time_s(packet) or 0.0) + float((packet.duration or 0) * packet.time_base)


if __name__ == "__main__":
    main(sys.argv[1])
