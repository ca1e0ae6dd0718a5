"""Makes renditions on our own ffmpeg server over SSH, the fallback of the OSS: fetch, look, encode, check, upload."""

import asyncio
import base64
import hashlib
import random
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from lectern.effects import output as printed
from lectern.effects import process
from lectern.effects.ecs import check, detached, ssh
from lectern.effects.ecs.check import MISSING, Measured, Media
from lectern.effects.ecs.detached import Ended, Folder
from lectern.effects.ecs.job import Job, Made, Outcome, Report
from lectern.effects.files import origin, upload, wget
from lectern.effects.files.origin import RemoteFile
from lectern.effects.media import ffmpeg
from lectern.errors import (
    DISK_FULL,
    DOWNLOAD_FAILED,
    NO_ECS_ROOM,
    TRANSCODE_FAILED,
    TRANSCODE_TIMED_OUT,
    CallAPerson,
    FallBack,
    LecternError,
    Refuse,
    TryAgain,
)
from lectern.shown import shown
from lectern.states import Resolution

T = TypeVar("T")

FETCHES = 4
UPLOADS = 7
"""So many tries, each twice as long after the one before, up to 16 s."""

_LOOK_S = 30.0
_RESERVE_BYTES = 64 * 1024**2
_UNKNOWN_BYTES = 8 * 1024**3  # of a source that promises no length
_NONE_LEFT_BYTES = 1024**2
_KILLED = frozenset({137, 143, 255})  # 255 is how ffmpeg ends by TERM
_TOO_LARGE = 153  # SIGXFSZ
_NO_ROOM = "No space left on device"
_NO_ENCODER = "Unknown encoder"
_SOURCE = "source"
# The size of what came is the last word; an exec instead would save a process and cost another command.
_LIMITED = 'ulimit -f "$1"; file=$2; shift 2; "$@" || exit; stat -c %s -- "$file"'


async def transcode(connection: ssh.Connection, job: Job, report: Report) -> Outcome:
    """Make, check and upload all that the job wants, or go on where an earlier call was cut off.

    What befalls one rendition alone (a bad output, an upload that fails) is in the outcome, and spares the others.
    Raises what befalls all of them: Refuse (the recording is bad, or the time is over), TryAgain (network, a killed or
    stalled ffmpeg), FallBack (no room there), CallAPerson (a program is missing), Misuse. Whatever happens, what was
    begun there goes on until ``leave`` is called: that is how it survives us.
    """
    report.step = "enter"
    looking = asyncio.ensure_future(_promised(job))  # the origin and the host answer at the same time
    try:
        folder = await detached.enter(connection, job.work_root, job.name)
        return await _Work(connection, job, folder, report).do(looking)
    finally:
        looking.cancel()  # where the source is there already, nobody needs it
        await asyncio.gather(looking, return_exceptions=True)


async def leave(connection: ssh.Connection, work_root: str, name: str) -> None:
    """End whatever still runs of the job *name* there, see that it is gone, and leave no file."""
    await detached.leave(connection, work_root, name)


async def _promised(job: Job) -> RemoteFile:
    """What the origin promises of the source."""
    try:
        return await origin.look(job.source_url, allowed=job.allowed, timeout_s=_LOOK_S)
    except TryAgain as error:
        raise TryAgain(error.message, DOWNLOAD_FAILED) from error


class _Work:
    """A job on its way: each method is a step, each has the time that is left."""

    def __init__(self, connection: ssh.Connection, job: Job, folder: Folder, report: Report) -> None:
        self._connection, self._job, self._folder, self._report = connection, job, folder, report
        self._programs = job.programs
        self._source = f"{folder.path}/{_SOURCE}"
        self._missed: dict[Resolution, LecternError] = {}

    async def do(self, promised: Awaitable[RemoteFile]) -> Outcome:
        """The whole job; *promised* is what the origin says of the source now."""
        media = await (self._look() if _SOURCE in self._folder.files else self._fetch(promised))
        check.check_streams(media, self._thing)
        self._report.duration_s = media.duration_s
        outputs = [self._output(media, resolution) for resolution in self._job.wanted]
        reached_s = await self._encode(media, outputs)
        self._report.step = "check"
        checks = [self._of_one(output, self._check(output, media, reached_s)) for output in outputs]
        checked: list[Measured | None] = await check.together(checks)
        self._report.step = "upload"
        good = [(output, measured) for output, measured in zip(outputs, checked, strict=True) if measured is not None]
        uploads = [self._of_one(output, self._upload(output, measured, media)) for output, measured in good]
        made: list[Made | None] = await check.together(uploads) if uploads else []
        return Outcome(tuple(one for one in made if one is not None), self._missed)

    async def _of_one(self, output: ffmpeg.Output, work: Awaitable[T]) -> T | None:
        """What *work* returns; None where it fails, which is then noted for this output alone."""
        try:
            return await work
        except ssh.Lost:
            raise
        except LecternError as error:
            self._missed[output.resolution] = error
            return None

    @property
    def _thing(self) -> str:
        return f"source of {self._job.record_id}"

    def _output(self, source: Media, resolution: Resolution) -> ffmpeg.Output:
        width, height = ffmpeg.fitted_size(source.width, source.height, resolution)
        return ffmpeg.Output(f"{self._folder.path}/{self._job.stem(resolution)}.flv", resolution, width, height)

    def _make_sure_of_room(self, remote: RemoteFile) -> None:
        """The source and its renditions, none of which is larger, must fit; a job that is under way has its room."""
        needed = (remote.size_bytes or 0) * (1 + len(self._job.wanted)) + _RESERVE_BYTES
        if not self._folder.files and self._folder.free_bytes < needed:
            found = f"{self._folder.free_bytes} bytes are free in {self._folder.path}, {needed} are needed"
            raise FallBack(f"{self._job.name}: {self._connection.host} has no room: {found}", NO_ECS_ROOM)

    async def _step(
        self,
        step: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        stall_s: float | None = None,
        on_line: printed.OnLine | None = None,
    ) -> Ended:
        limit_s = self._job.limit_s(self._report.duration_s)
        left_s = self._job.begun_at + limit_s - time.time()
        over = f"{self._job.name}: {step} on {self._connection.host} was not done after {limit_s:.0f} s in all"
        if left_s <= 0:
            raise Refuse(over, TRANSCODE_TIMED_OUT)
        try:
            ended = await detached.run(
                self._connection,
                self._folder,
                step,
                argv,
                timeout_s=left_s,
                stall_s=stall_s,
                on_line=on_line,
                stdin=stdin,
            )
        except process.TimedOut as error:
            raise Refuse(f"{over}; it said last: {error.last_words or 'nothing'}", TRANSCODE_TIMED_OUT) from error
        found = f"{self._job.name}: {step} on {self._connection.host} ended with {ended.exit_code}: {ended.last_words}"
        is_full = ended.free_bytes is not None and ended.free_bytes < _NONE_LEFT_BYTES
        if ended.exit_code != 0 and (_NO_ROOM in ended.errors or is_full):
            raise FallBack(f"{found}; its disk is full", NO_ECS_ROOM)
        if ended.exit_code is None:
            raise TryAgain(f"{self._job.name}: {step} on {self._connection.host} was ended from outside")
        return ended

    # -- the steps -------------------------------------------------------------------------------------------------

    async def _fetch(self, promised: Awaitable[RemoteFile]) -> Media:
        """Download the source; if it is another one when it is there, or breaks off, it is fetched again."""
        self._report.step = "fetch"
        for number in range(1, FETCHES + 1):
            try:
                remote = await (promised if number == 1 else _promised(self._job))
                self._make_sure_of_room(remote)
                return await self._fetched(number, remote)
            except TryAgain as error:
                if error.code is not DOWNLOAD_FAILED or number == FETCHES:
                    raise
            await _pause(number)
        raise AssertionError("the last try returns or raises")

    async def _fetched(self, number: int, remote: RemoteFile) -> Media:
        # Named by what is promised: what was got of another file is not gone on with.
        mark = hashlib.sha256(f"{remote.size_bytes} {remote.etag} {remote.crc64}".encode()).hexdigest()[:8]
        url, file = shown(remote.url), f"{self._source}-{mark}"
        # By an address of IPv4, which every host can connect to; this one need not have the other kind.
        options, line = wget.asked(remote.url, remote.address if ":" not in (remote.address or "") else None)
        limit_bytes = remote.size_bytes if remote.size_bytes is not None else _UNKNOWN_BYTES
        argv = ["sh", "-c", _LIMITED, "lectern", str(limit_bytes // 512 + 16), file, self._programs.wget]
        argv += ["--no-config", "--no-proxy", "--no-netrc", "-c", "--tries=1", "--timeout=30", "--no-verbose"]
        argv += ["--max-redirect=0", *options, "-O", file, "--input-file=-"]
        ended = await self._step(f"fetch-{mark}-{number}", argv, stdin=line)
        assert ended.exit_code is not None  # the step has raised
        if ended.exit_code in MISSING:
            raise check.missing(self._connection, self._programs.wget, "wget")
        if ended.exit_code == _TOO_LARGE:
            raise Refuse(f"{url}: is larger than the {limit_bytes} bytes that it may be", DOWNLOAD_FAILED)
        try:
            wget.judge(process.Finished(tuple(argv), ended.exit_code, ended.output, ended.errors, 0.0), remote.url)
        except Refuse as error:
            if error.code is DISK_FULL:
                raise FallBack(f"{self._connection.host}: {error.message}", NO_ECS_ROOM) from error
            raise
        except TryAgain as error:
            promised = f"; {remote.size_bytes} bytes were promised"
            raise TryAgain(f"{error.message}{promised}", DOWNLOAD_FAILED) from error
        return await self._keep(remote, file, int(ended.output.strip() or -1))

    async def _keep(self, before: RemoteFile, file: str, size_bytes: int) -> Media:
        """The file is the source if the origin still has the same; else it would be half of this and half of that."""
        after = await _promised(self._job)
        if before.promise != after.promise or before.size_bytes not in (None, size_bytes):
            found = f"{before.size_bytes} bytes were promised, {size_bytes} came, now it has {after.size_bytes}"
            raise TryAgain(f"{shown(before.url)}: has changed while it was read: {found}", DOWNLOAD_FAILED)
        return await self._look(file)

    async def _look(self, file: str | None = None) -> Media:
        """What the source is; *file* becomes it."""
        self._report.step = "look"
        return await check.look(self._connection, self._source, self._programs, self._thing, was=file)

    async def _encode(self, media: Media, outputs: Sequence[ffmpeg.Output]) -> float:
        """Returns how many seconds of the source were read."""
        self._report.step = "encode"
        reader, reached_s = ffmpeg.ProgressReader(), -1.0

        def on_line(line: str) -> bool:
            nonlocal reached_s
            progress = reader.progress(line)
            if progress is None or progress.out_time_s <= reached_s:
                return False  # ffmpeg goes on reporting while it stands still
            reached_s = progress.out_time_s
            self._report.encoded(100 * reached_s / media.duration_s)
            return True

        argv = ffmpeg.encode_argv(self._programs.ffmpeg, self._source, outputs, keyframe_s=self._job.keyframe_s)
        ended = await self._step("encode", argv, stall_s=self._job.stall_s, on_line=on_line)
        found = f"{self._job.name}: ffmpeg on {self._connection.host} ended with {ended.exit_code}: {ended.last_words}"
        if ended.exit_code in MISSING:
            raise check.missing(self._connection, self._programs.ffmpeg, "ffmpeg")
        if _NO_ENCODER in ended.errors:
            raise CallAPerson(found)
        if ended.exit_code in _KILLED:
            raise TryAgain(found)
        if ended.exit_code != 0:
            raise Refuse(found, TRANSCODE_FAILED)
        self._report.encoded(100.0)
        return reached_s

    async def _check(self, output: ffmpeg.Output, source: Media, reached_s: float) -> Measured:
        thing = self._job.stem(output.resolution)
        return await check.made_well(self._connection, output, self._programs, source, reached_s, thing)

    async def _upload(self, output: ffmpeg.Output, measured: Measured, media: Media) -> Made:
        path = f"{self._job.record_id}/{self._job.stem(output.resolution)}.flv"
        for number in range(1, UPLOADS + 1):
            try:
                await self._uploaded(number, output, measured, path)
                break
            except TryAgain as error:
                if isinstance(error, ssh.Lost) or number == UPLOADS:
                    raise
            await _pause(number)
        url = self._job.target.public(path)
        return Made(output.resolution, url, output.width, output.height, media.duration_s, measured.size_bytes)

    async def _uploaded(self, number: int, output: ffmpeg.Output, measured: Measured, path: str) -> None:
        md5 = base64.b64encode(bytes.fromhex(measured.md5)).decode()
        put = await upload.sign(self._job.target, path, md5, self._job.limit_s(self._report.duration_s))
        program = self._programs.curl
        argv, stdin = upload.curl(program, put, output.path)
        ended = await self._step(f"upload-{output.resolution}-{number}", argv, stdin=stdin)
        if ended.exit_code in MISSING:
            raise check.missing(self._connection, program, "curl")
        crc64 = upload.judge(put, self._connection.host, ended.exit_code, ended.output, ended.errors)
        await upload.verify(self._job.target.public(path), measured.size_bytes, crc64)


async def _pause(number: int) -> None:
    await asyncio.sleep(min(2.0 ** (number - 1), 16.0) * random.uniform(0.75, 1.25))  # noqa: S311 (no secret)
