"""A job of an ECS host: what it is to make, its progress, and its outcome."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lectern.allowlist import Allowlist
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text, msgid
from lectern.rendition_ids import stem
from lectern.states import Resolution
from lectern.storage.oss import UploadTarget


@dataclass(frozen=True)
class Programs:
    """The names of the programs on the host."""

    wget: str = "wget"
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"
    curl: str = "curl"


@dataclass(frozen=True)
class Job:
    """One attempt to make the *wanted* renditions of a record, begun at *begun_at* (epoch seconds).

    *attempts* are their numbers, in the order of *wanted*, or one for all. *limit_s* gives the seconds that it may take
    by the recording's duration in seconds, None while that is unknown. *lufs* is the loudness that the renditions shall
    have, None if the sound is left as it is.
    """

    record_id: int
    attempts: tuple[int, ...]
    source_url: str
    wanted: tuple[Resolution, ...]
    target: UploadTarget
    begun_at: float
    limit_s: Callable[[float | None], float]
    allowed: Allowlist
    work_root: str = "~/lectern-work"
    keyframe_s: float = 2.0
    lufs: float | None = None
    stall_s: float = 60.0
    programs: Programs = Programs()

    def __post_init__(self) -> None:
        numbers = (self.record_id, *self.attempts)
        if min(numbers) < 0 or not self.attempts or not self.wanted or len(set(self.wanted)) < len(self.wanted):
            text = msgid("{job}: is no job; it needs a record, an attempt and different resolutions")
            raise Misuse(Text(text, job=self.name))

    @property
    def name(self) -> str:
        """The name of its folder on the host: the same when the attempt is resumed, another for every other attempt."""
        numbers = ".".join(str(one) for one in dict.fromkeys(self.attempts))
        whole = f"{self.source_url} {self.target.upload_url} {self.target.public_url}"
        whole += f" {self.lufs:g}" if self.lufs is not None else ""
        mark = hashlib.sha256(whole.encode(errors="replace")).hexdigest()[:8]
        return f"{self.record_id}_{'_'.join(self.wanted)}-{numbers}-{mark}"

    def stem(self, resolution: Resolution) -> str:
        """The id of one of its renditions."""
        return stem(self.record_id, resolution)


@dataclass
class JobReport:
    """How far a job is: the job writes it, and any thread may read it to show it."""

    step: str = "connect"
    percent: float = 0.0
    duration_s: float | None = None
    loudness: str = ""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _first: tuple[float, float] | None = field(default=None, repr=False)

    def encoded(self, percent: float) -> None:
        """Note that *percent* of the recording is encoded."""
        self.percent = min(max(percent, self.percent), 100.0)
        self._first = self._first or (self.clock(), self.percent)

    @property
    def left_s(self) -> float | None:
        """About how many seconds the encoding still takes; None while that is unknown."""
        if self._first is None:
            return None
        began, begun = self._first
        done = self.percent - begun
        return (100.0 - self.percent) * (self.clock() - began) / done if done > 0 else None


@dataclass(frozen=True)
class MadeRendition:
    """A rendition that was made, checked, uploaded, and seen where the platform will look for it."""

    resolution: Resolution
    url: str
    width: int
    height: int
    duration_s: float
    size_bytes: int


@dataclass(frozen=True)
class JobOutcome:
    """What became of each rendition of a job: it was made, or why it was not."""

    made: tuple[MadeRendition, ...]
    missed: Mapping[Resolution, LecternError]
