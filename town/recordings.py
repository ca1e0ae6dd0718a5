"""Recordings, which are FLV files: made by ffmpeg, summed up, and taken down from what is pushed."""

import asyncio
import contextlib
import dataclasses
import json
import secrets
import struct
import time
from pathlib import Path
from typing import Any

from lectern.errors import LecternError

FPS, KEYFRAME_S = 25, 2
"""Pictures a second of a recording; seconds between two keyframes."""

_AUDIO_TAG, _VIDEO_TAG, _DATA_TAG = MEDIA_TAGS = (8, 9, 18)
"""What an FLV file is made of."""

_SET_DATA_FRAME = b"\x02\x00\x0d@setDataFrame"
_FLV_HEADER = b"FLV\x01\x05" + struct.pack(">II", 9, 0)
_STATE, _JOURNAL = "state.json", "publishes.jsonl"


async def make(ffmpeg: str, path: Path, *, seconds: int, width: int, height: int) -> Path:
    """Make an H.264/AAC recording at *path*, complete or not at all; raises LecternError if ffmpeg fails."""
    picture = ("-f", "lavfi", "-i", f"testsrc2=size={width}x{height}:rate={FPS}")
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100")
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "200k", "-maxrate", "300k")
    keyframes = ("-bufsize", "300k", "-g", str(KEYFRAME_S * FPS), "-sc_threshold", "0")
    sound = ("-c:a", "aac", "-b:a", "48k")
    await encode(ffmpeg, *picture, *tone, *video, *keyframes, *sound, "-t", str(seconds), to=path)
    return path


async def encode(ffmpeg: str, *arguments: str, to: Path) -> None:
    """Run ffmpeg with *arguments* so that the FLV file *to* appears whole; raises LecternError if it fails.

    A cancelled caller takes its ffmpeg along, and no unfinished file stays behind.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_name(f".{secrets.token_hex(8)}.tmp")
    process = await asyncio.create_subprocess_exec(
        ffmpeg,
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-y"),
        *arguments,
        *("-f", "flv", str(unfinished)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
        if process.returncode != 0:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise LecternError(f"{to.name}: ffmpeg ended with {process.returncode}: {last}")
        unfinished.replace(to)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        unfinished.unlink(missing_ok=True)


@dataclasses.dataclass
class Publish:
    """One push of a stream: the *n*-th of its name. Times are wall clock, None until it comes to that."""

    name: str
    n: int
    app: str
    file: str
    started_at: float
    concurrent: bool  # another publish of the name was under way
    first_media_at: float | None = None
    last_media_at: float | None = None
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None
    bytes: int = 0
    video_frames: int = 0
    ended_at: float | None = None
    largest_gap_s: float = 0.0  # between two pictures or sounds, as they came
    largest_step_ms: int = 0  # between two of them, by their timestamps


def read_publishes(root: Path) -> list[Publish]:
    """What a receiver over *root* took, oldest first, as another process sees it, whether it runs or was killed.

    Progress is at most 0.2 s old; a publish in the middle of which the receiver was killed has no end until
    the receiver is started again.
    """
    entries: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError):  # read first: an end that is written meanwhile then wins
        entries += json.loads((root / _STATE).read_text())
    with contextlib.suppress(FileNotFoundError):
        for line in (root / _JOURNAL).read_text().splitlines():
            with contextlib.suppress(ValueError):  # the kill can have torn a line
                entries.append(json.loads(line))
    found: dict[tuple[str, int], Publish] = {}
    for publish in (Publish(**entry) for entry in entries):
        if publish.ended_at is not None or (publish.name, publish.n) not in found:
            found[publish.name, publish.n] = publish
    return sorted(found.values(), key=lambda publish: publish.started_at)


class Journal:
    """The files of a receiver through which another process watches its publishes, even after its SIGKILL."""

    def __init__(self, root: Path) -> None:
        self._journal = root / _JOURNAL
        self._state = root / _STATE

    def note(self, publish: Publish) -> None:
        """Write down that *publish* started or ended."""
        with self._journal.open("ab") as journal:  # begins with a newline: the last line may be torn
            journal.write(b"\n" + json.dumps(dataclasses.asdict(publish)).encode() + b"\n")

    def keep(self, publishes: dict[str, list[Publish]]) -> None:
        """Write down how far the publishes under way are."""
        under_way = [p for of_name in publishes.values() for p in of_name if p.ended_at is None]
        unfinished = self._state.with_suffix(".tmp")
        unfinished.write_text(json.dumps([dataclasses.asdict(publish) for publish in under_way]))
        unfinished.replace(self._state)


class Take:
    """The FLV file of one publish; each tag is written at once, so that a SIGKILL loses none."""

    def __init__(self, publish: Publish, path: Path) -> None:
        self.publish = publish
        self._sink = path.open("wb", buffering=0)
        self._sink.write(_FLV_HEADER)

    def close(self) -> None:
        """Close the file."""
        self._sink.close()

    def write(self, kind: int, timestamp_ms: int, payload: bytes) -> None:
        """Append a tag, and count it in the publish."""
        payload = payload.removeprefix(_SET_DATA_FRAME)
        if not payload:
            return
        low, high = timestamp_ms & 0xFFFFFF, timestamp_ms >> 24
        head = struct.pack(">B3s3sB3x", kind, len(payload).to_bytes(3, "big"), low.to_bytes(3, "big"), high)
        self._sink.write(head + payload + struct.pack(">I", len(head) + len(payload)))
        publish = self.publish
        publish.bytes += len(payload)
        if not _is_media(kind, payload):
            return
        publish.video_frames += kind == _VIDEO_TAG
        now = time.time()
        if publish.last_media_at is not None:
            publish.largest_gap_s = max(publish.largest_gap_s, now - publish.last_media_at)
        if publish.last_timestamp_ms is not None:
            publish.largest_step_ms = max(publish.largest_step_ms, timestamp_ms - publish.last_timestamp_ms)
        publish.last_media_at, publish.last_timestamp_ms = now, timestamp_ms
        if publish.first_media_at is None:
            publish.first_media_at, publish.first_timestamp_ms = publish.last_media_at, timestamp_ms


def _is_media(kind: int, payload: bytes) -> bool:
    """Whether a tag is picture or sound; a decoder's configuration is neither, and its timestamp says nothing."""
    if kind == _AUDIO_TAG:
        return payload[0] >> 4 != 10 or payload[1:2] != b"\x00"  # 10: AAC
    if kind == _VIDEO_TAG and payload[0] & 0x80:  # enhanced RTMP
        return payload[0] & 0x0F in (1, 3)
    return kind == _VIDEO_TAG and (payload[0] & 0x0F != 7 or payload[1:2] == b"\x01")  # 7: AVC
