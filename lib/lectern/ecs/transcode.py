"""Makes renditions on our own ffmpeg server over SSH, the fallback of the OSS: fetch, look, encode, check, upload."""

import asyncio
import base64
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lectern import subprocesses
from lectern.allowlist import Allowlist
from lectern.ecs import detached, probe, ssh
from lectern.ecs.detached import DetachedStep, Ended, Folder
from lectern.ecs.probe import MISSING, Measured, Media, Programs, Wanted
from lectern.errors import (
    DISK_FULL,
    DOWNLOAD_FAILED,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    TRANSCODE_TIMED_OUT,
    CallAPerson,
    FallBack,
    LecternError,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.i18n import Text, labelled, msgid
from lectern.media import ffmpeg
from lectern.rendition_ids import stem
from lectern.states import Resolution
from lectern.storage import origin, oss, wget
from lectern.storage.origin import RemoteFile
from lectern.storage.oss import UploadTarget
from lectern.timing import backoff_s
from lectern.urls import redact_url


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
    programs: Programs = field(default_factory=Programs)

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


# Runs the steps of a job on its ECS host, each within the time left for the whole job.


T = TypeVar("T")

_NONE_LEFT_BYTES = 1024**2


@dataclass(frozen=True)
class Steps:
    """A job in its folder on a host, and its progress."""

    connection: ssh.SshConnection
    job: Job
    folder: Folder
    report: JobReport

    async def run(self, step: DetachedStep) -> Ended:
        """Bring *step* to its end; raises Refuse (the time is over), FallBack (the disk is full), TryAgain."""
        limit_s = self.job.limit_s(self.report.duration_s)
        left_s = self.job.begun_at + limit_s - time.time()
        what = Text("{job}: {step} on {host}", job=self.job.name, step=step.name, host=self.connection.host)
        over = Text("{step} was not done after {limit_s:.0f} s in all", step=what, limit_s=limit_s)
        if left_s <= 0:
            raise Refuse(over, TRANSCODE_TIMED_OUT)
        try:
            ended = await detached.run(self.connection, self.folder, step, left_s)
        except subprocesses.TimedOut as error:
            raise Refuse(
                "{over}; it said last: {last_words}",
                TRANSCODE_TIMED_OUT,
                over=over,
                last_words=error.last_words or Text("nothing"),
            ) from error
        is_full = ended.free_bytes is not None and ended.free_bytes < _NONE_LEFT_BYTES
        if ended.exit_code != 0 and (detached.NO_ROOM in ended.errors or is_full):
            raise FallBack(
                "{what} ended with {exit_code}: {last_words}; its disk is full",
                NO_ECS_ROOM,
                what=what,
                exit_code=ended.exit_code,
                last_words=ended.last_words,
            )
        if ended.exit_code is None:
            raise TryAgain("{what} was ended from outside", what=what)
        return ended

    def missing(self, program: str, package: str) -> CallAPerson:
        """The error to raise if the host lacks *program*."""
        return probe.missing(self.connection, program, package)


async def tried(times: int, work: Callable[[int], Awaitable[T]], passes: Callable[[TryAgain], bool]) -> T:
    """Call *work* with the number of its try, and return its result; retry after a TryAgain that *passes*.

    The pauses double from 1 s up to 16 s.
    """
    for number in range(1, times):
        try:
            return await work(number)
        except TryAgain as error:
            if not passes(error):
                raise
        await asyncio.sleep(backoff_s(number - 1, 1.0, 16.0))
    return await work(times)


FETCHES = 4
"""Number of times that the source is fetched before the job is given up."""

_LOOK_S = 30.0
_RESERVE_BYTES = 64 * 1024**2
_UNKNOWN_BYTES = 8 * 1024**3  # the limit for a source whose length its origin does not say
_TOO_LARGE = 153  # SIGXFSZ
_SOURCE = "source"
# It prints the size of the file at its end; an exec instead would save a process and cost another command.
_LIMITED = 'ulimit -f "$1"; file=$2; shift 2; "$@" || exit; stat -c %s -- "$file"'


async def promised(job: Job) -> RemoteFile:
    """What the origin promises of the source."""
    try:
        return await origin.look(job.source_url, allowed=job.allowed, timeout_s=_LOOK_S)
    except TryAgain as error:
        raise TryAgain(error.message, DOWNLOAD_FAILED) from error


class SourceFile:
    """The source of a job, in its folder."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._job, self._host = steps, steps.job, steps.connection.host
        self._wget = steps.job.programs.wget
        self.path = f"{steps.folder.path}/{_SOURCE}"
        self.thing = Text("source of {record_id}", record_id=steps.job.record_id)

    async def there(self, first: Awaitable[RemoteFile]) -> Media:
        """Fetch the source, unless an earlier call has; *first* is what the origin promises of it now.

        It is fetched again if the download breaks off, or if the origin has another file by its end.
        """
        if _SOURCE in self._steps.folder.files:
            return await self._look()
        self._steps.report.step = "fetch"

        async def fetch(number: int) -> Media:
            remote = await (first if number == 1 else promised(self._job))
            self._make_sure_of_room(remote)
            return await self._fetched(number, remote)

        return await tried(FETCHES, fetch, lambda error: error.code is DOWNLOAD_FAILED)

    def _make_sure_of_room(self, remote: RemoteFile) -> None:
        """Raise FallBack unless the source and its renditions fit (none is larger); a resumed job has its room."""
        folder = self._steps.folder
        needed = (remote.size_bytes or 0) * (1 + len(self._job.wanted)) + _RESERVE_BYTES
        if not folder.files and folder.free_bytes < needed:
            free = {"free": folder.free_bytes, "path": folder.path, "needed": needed}
            found = Text("{free} bytes are free in {path}, {needed} are needed", **free)
            raise FallBack(
                "{job}: {host} has no room: {found}", NO_ECS_ROOM, job=self._job.name, host=self._host, found=found
            )

    async def _fetched(self, number: int, remote: RemoteFile) -> Media:
        # Named after what the origin promises, so that a part of another file is not resumed.
        mark = hashlib.sha256(f"{remote.size_bytes} {remote.etag} {remote.crc64}".encode()).hexdigest()[:8]
        url, file = redact_url(remote.url), f"{self.path}-{mark}"
        # By an IPv4 address, to which every host can connect; this host need not have IPv6.
        options, line = wget.asked(remote.url, remote.address if ":" not in (remote.address or "") else None)
        limit_bytes = remote.size_bytes if remote.size_bytes is not None else _UNKNOWN_BYTES
        argv = ["sh", "-c", _LIMITED, "lectern", str(limit_bytes // 512 + 16), file]
        argv += wget.argv(self._wget, file, options=options)
        ended = await self._steps.run(DetachedStep(f"fetch-{mark}-{number}", argv, line))
        assert ended.exit_code is not None  # the step has raised
        if ended.exit_code in MISSING:
            raise self._steps.missing(self._wget, "wget")
        if ended.exit_code == _TOO_LARGE:
            raise Refuse(
                "{url}: is larger than the {limit_bytes} bytes that it may be",
                DOWNLOAD_FAILED,
                url=url,
                limit_bytes=limit_bytes,
            )
        try:
            wget.judge(subprocesses.Finished(tuple(argv), ended.exit_code, ended.output, ended.errors, 0.0), remote.url)
        except Refuse as error:
            if error.code is DISK_FULL:
                raise FallBack(labelled(self._host, error.message), NO_ECS_ROOM) from error
            raise
        except TryAgain as error:
            found = Text("{error}; {size_bytes} bytes were promised", error=error.message, size_bytes=remote.size_bytes)
            raise TryAgain(found, DOWNLOAD_FAILED) from error
        return await self._keep(remote, file, int(ended.output.strip() or -1))

    async def _keep(self, before: RemoteFile, file: str, size_bytes: int) -> Media:
        """Take the file as the source if the origin still has the same file; otherwise it may be parts of two files."""
        after = await promised(self._job)
        if before.promise != after.promise or before.size_bytes not in (None, size_bytes):
            changed = Text(
                "{url}: has changed while it was read: {promised} bytes were promised, {came} came, now it has {now}",
                url=redact_url(before.url),
                promised=before.size_bytes,
                came=size_bytes,
                now=after.size_bytes,
            )
            raise TryAgain(changed, DOWNLOAD_FAILED)
        return await self._look(file)

    async def _look(self, file: str | None = None) -> Media:
        """Look at the source; if *file* is given, it is first renamed to the source."""
        self._steps.report.step = "look"
        return await probe.look(self._steps.connection, self.path, self._job.programs, self.thing, was=file)


UPLOADS = 7
"""Number of times that a rendition is uploaded before it is given up."""

_KILLED = frozenset({137, 143, 255})  # 255 is how ffmpeg ends by TERM
_NOT_BUILT_IN = "Unknown encoder", "No such filter"


async def transcode(connection: ssh.SshConnection, job: Job, report: JobReport) -> JobOutcome:
    """Make, check and upload all that the job wants, or go on where an earlier call was cut off.

    A failure of one rendition alone (a bad output, a failed upload) is noted in the outcome, and stops no other.
    Raises a failure of all of them: Refuse (the recording is bad, or the time is over), TryAgain (network, a killed or
    stalled ffmpeg), FallBack (no room there), CallAPerson (a program is missing), Misuse. Whatever happens, programs
    begun there go on until ``leave`` is called: so they survive the end of this process.
    """
    report.step = "enter"
    looking = asyncio.ensure_future(promised(job))  # the origin and the host answer at the same time
    try:
        folder = await detached.enter(connection, job.work_root, job.name)
        return await _Work(Steps(connection, job, folder, report)).do(looking)
    finally:
        looking.cancel()  # not needed if the source is there already
        await asyncio.gather(looking, return_exceptions=True)


async def leave(connection: ssh.SshConnection, work_root: str, name: str) -> None:
    """End what still runs of the job *name* there, check that it is gone, and leave no file."""
    await detached.leave(connection, work_root, name)


class _Work:
    """A job under way."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._job, self._report = steps, steps.job, steps.report
        self._connection, self._programs = steps.connection, steps.job.programs
        self._source = SourceFile(steps)
        self._missed: dict[Resolution, LecternError] = {}

    async def do(self, looking: Awaitable[RemoteFile]) -> JobOutcome:
        """Do the whole job; *looking* is what the origin promises of the source now."""
        media = await self._source.there(looking)
        probe.check_streams(media, self._source.thing)
        self._report.duration_s = media.duration_s
        outputs = [self._output(media, resolution) for resolution in self._job.wanted]
        loudness = await self._loudness()
        reached_s = await self._encode(media, outputs, loudness)
        wanted = media if loudness is None else replace(media, audio=ffmpeg.AAC)
        self._report.step = "check"
        checks = [self._of_one(output, self._check(output, wanted, reached_s)) for output in outputs]
        checked: list[Measured | None] = await probe.together(checks)
        self._report.step = "upload"
        good = [(output, measured) for output, measured in zip(outputs, checked, strict=True) if measured is not None]
        uploads = [self._of_one(output, self._upload(output, measured, media)) for output, measured in good]
        made: list[MadeRendition | None] = await probe.together(uploads) if uploads else []
        return JobOutcome(tuple(one for one in made if one is not None), self._missed)

    async def _of_one(self, output: ffmpeg.Output, work: Awaitable[T]) -> T | None:
        """Await *work*, and return its result; None if it fails, which is noted for this output alone."""
        try:
            return await work
        except ssh.Lost:
            raise
        except LecternError as error:
            self._missed[output.resolution] = error
            return None

    def _output(self, source: Media, resolution: Resolution) -> ffmpeg.Output:
        width, height = ffmpeg.fitted_size(source.width, source.height, resolution)
        return ffmpeg.Output(f"{self._steps.folder.path}/{self._job.stem(resolution)}.flv", resolution, width, height)

    async def _loudness(self) -> ffmpeg.Loudness | None:
        """The loudness of the source, if it is to be corrected."""
        if (lufs := self._job.lufs) is None:
            return None
        self._report.step = "measure"
        argv = ffmpeg.measure_argv(self._programs.ffmpeg, self._source.path, lufs)
        ended, _ = await self._run_ffmpeg("measure", argv)
        try:
            found = ffmpeg.Loudness.read(ended.errors)
        except ValueError as error:
            raise TryAgain(self._failed("measure", ended)) from error
        if not found.is_right(lufs):
            return found
        was = Text("{lufs:.1f} LUFS", lufs=found.lufs) if math.isfinite(found.lufs) else Text("no sound is heard in it")
        self._report.loudness = Text("{was}: left as it is", was=was)
        return None

    async def _encode(self, media: Media, outputs: Sequence[ffmpeg.Output], loudness: ffmpeg.Loudness | None) -> float:
        """Encode *outputs*, corrected if *loudness* is given; returns the seconds of the source that were read."""
        self._report.step = "encode"
        lufs = self._job.lufs
        sound = ffmpeg.COPY if loudness is None or lufs is None else loudness.options(lufs)
        argv = ffmpeg.encode_argv(
            self._programs.ffmpeg, self._source.path, outputs, keyframe_s=self._job.keyframe_s, sound=sound
        )
        ended, reached_s = await self._run_ffmpeg(
            "encode", argv, lambda reached_s: self._report.encoded(100 * reached_s / media.duration_s)
        )
        if loudness is not None and lufs is not None:
            self._report.loudness = _corrected(loudness, lufs, ended.errors)
        self._report.encoded(100.0)
        return reached_s

    async def _run_ffmpeg(
        self, step: str, argv: Sequence[str], further: Callable[[float], None] = lambda _: None
    ) -> tuple[Ended, float]:
        """How a *step* of ffmpeg ended well, and how many seconds it read; raises what a bad end means."""
        reached_s = -1.0

        def on_line(line: str) -> bool:
            nonlocal reached_s
            out_time_s = ffmpeg.out_time_s(line)
            if out_time_s is None or out_time_s <= reached_s:
                return False  # ffmpeg goes on reporting while it stands still
            reached_s = out_time_s
            further(reached_s)
            return True

        ended = await self._steps.run(DetachedStep(step, argv, stall_s=self._job.stall_s, on_line=on_line))
        if ended.exit_code in MISSING:
            raise self._steps.missing(self._programs.ffmpeg, "ffmpeg")
        if any(words in ended.errors for words in _NOT_BUILT_IN):
            raise CallAPerson(self._failed(step, ended))
        if ended.exit_code in _KILLED:
            raise TryAgain(self._failed(step, ended))
        if ended.exit_code != 0:
            raise Refuse(self._failed(step, ended), TRANSCODE_FAILED)
        return ended, reached_s

    def _failed(self, step: str, ended: Ended) -> Text:
        found = Text(
            "{job}: ffmpeg on {host} ended with {exit_code}: {last_words}",
            job=self._job.name,
            host=self._connection.host,
            exit_code=ended.exit_code,
            last_words=ended.last_words,
        )
        if step == "encode":
            return found
        return Text("{found}; the loudness was not measured, which ECS_LOUDNESS_LUFS asks for", found=found)

    async def _check(self, output: ffmpeg.Output, source: Media, reached_s: float) -> Measured:
        wanted = Wanted(output, source, reached_s, self._job.stem(output.resolution))
        return await probe.made_well(self._connection, self._programs, wanted)

    async def _upload(self, output: ffmpeg.Output, measured: Measured, media: Media) -> MadeRendition:
        path = f"{self._job.record_id}/{self._job.stem(output.resolution)}.flv"

        async def put(number: int) -> None:
            await self._uploaded(number, output, measured, path)

        await tried(UPLOADS, put, lambda error: not isinstance(error, ssh.Lost))
        url = self._job.target.public(path)
        return MadeRendition(output.resolution, url, output.width, output.height, media.duration_s, measured.size_bytes)

    async def _uploaded(self, number: int, output: ffmpeg.Output, measured: Measured, path: str) -> None:
        md5 = base64.b64encode(bytes.fromhex(measured.md5)).decode()
        put = await oss.sign_upload(self._job.target, path, md5, self._job.limit_s(self._report.duration_s))
        program = self._programs.curl
        argv, stdin = oss.curl(program, put, output.path)
        ended = await self._steps.run(DetachedStep(f"upload-{output.resolution}-{number}", argv, stdin))
        if ended.exit_code in MISSING:
            raise self._steps.missing(program, "curl")
        crc64 = oss.judge(put, self._connection.host, ended.exit_code, ended.output, ended.errors)
        await oss.verify_upload(self._job.target.public(path), measured.size_bytes, crc64)


def _corrected(before: ffmpeg.Loudness, lufs: float, printed: str) -> Text:
    """What the second run, which *printed* this, made of the loudness on its way to *lufs*."""
    after = ffmpeg.became_lufs(printed)
    text = Text("it was {before:.1f} LUFS, now {after:.1f} LUFS", before=before.lufs, after=after)
    if after is None:
        text = Text("it was {before:.1f} LUFS, and was corrected to {wanted:g} LUFS", before=before.lufs, wanted=lufs)
    return Text("{found}; its peaks were lowered", found=text) if before.is_peaky(lufs) else text
