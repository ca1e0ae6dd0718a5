"""Makes renditions on our own ffmpeg server over SSH, the fallback of the OSS: fetch, look, encode, check, upload."""

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from lectern.effects.ecs import check, detached, source, ssh
from lectern.effects.ecs.check import MISSING, Measured, Media, Wanted
from lectern.effects.ecs.detached import Step
from lectern.effects.ecs.job import Job, Made, Outcome, Report
from lectern.effects.ecs.source import Source
from lectern.effects.ecs.steps import Steps, tried
from lectern.effects.files import upload
from lectern.effects.files.origin import RemoteFile
from lectern.effects.media import ffmpeg
from lectern.errors import TRANSCODE_FAILED, CallAPerson, LecternError, Refuse, TryAgain
from lectern.states import Resolution

T = TypeVar("T")

UPLOADS = 7
"""Number of times that a rendition is uploaded before it is given up."""

_KILLED = frozenset({137, 143, 255})  # 255 is how ffmpeg ends by TERM
_NO_ENCODER = "Unknown encoder"


async def transcode(connection: ssh.Connection, job: Job, report: Report) -> Outcome:
    """Make, check and upload all that the job wants, or go on where an earlier call was cut off.

    A failure of one rendition alone (a bad output, a failed upload) is noted in the outcome, and stops no other.
    Raises a failure of all of them: Refuse (the recording is bad, or the time is over), TryAgain (network, a killed or
    stalled ffmpeg), FallBack (no room there), CallAPerson (a program is missing), Misuse. Whatever happens, programs
    begun there go on until ``leave`` is called: so they survive the end of this process.
    """
    report.step = "enter"
    looking = asyncio.ensure_future(source.promised(job))  # the origin and the host answer at the same time
    try:
        folder = await detached.enter(connection, job.work_root, job.name)
        return await _Work(Steps(connection, job, folder, report)).do(looking)
    finally:
        looking.cancel()  # not needed if the source is there already
        await asyncio.gather(looking, return_exceptions=True)


async def leave(connection: ssh.Connection, work_root: str, name: str) -> None:
    """End what still runs of the job *name* there, check that it is gone, and leave no file."""
    await detached.leave(connection, work_root, name)


class _Work:
    """A job under way."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._job, self._report = steps, steps.job, steps.report
        self._connection, self._programs = steps.connection, steps.job.programs
        self._source = Source(steps)
        self._missed: dict[Resolution, LecternError] = {}

    async def do(self, looking: Awaitable[RemoteFile]) -> Outcome:
        """Do the whole job; *looking* is what the origin promises of the source now."""
        media = await self._source.there(looking)
        check.check_streams(media, self._source.thing)
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

    async def _encode(self, media: Media, outputs: Sequence[ffmpeg.Output]) -> float:
        """Encode *outputs*; returns how many seconds of the source were read."""
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

        argv = ffmpeg.encode_argv(self._programs.ffmpeg, self._source.path, outputs, keyframe_s=self._job.keyframe_s)
        ended = await self._steps.run(Step("encode", argv, stall_s=self._job.stall_s, on_line=on_line))
        found = f"{self._job.name}: ffmpeg on {self._connection.host} ended with {ended.exit_code}: {ended.last_words}"
        if ended.exit_code in MISSING:
            raise self._steps.missing(self._programs.ffmpeg, "ffmpeg")
        if _NO_ENCODER in ended.errors:
            raise CallAPerson(found)
        if ended.exit_code in _KILLED:
            raise TryAgain(found)
        if ended.exit_code != 0:
            raise Refuse(found, TRANSCODE_FAILED)
        self._report.encoded(100.0)
        return reached_s

    async def _check(self, output: ffmpeg.Output, source: Media, reached_s: float) -> Measured:
        wanted = Wanted(output, source, reached_s, self._job.stem(output.resolution))
        return await check.made_well(self._connection, self._programs, wanted)

    async def _upload(self, output: ffmpeg.Output, measured: Measured, media: Media) -> Made:
        path = f"{self._job.record_id}/{self._job.stem(output.resolution)}.flv"

        async def put(number: int) -> None:
            await self._uploaded(number, output, measured, path)

        await tried(UPLOADS, put, lambda error: not isinstance(error, ssh.Lost))
        url = self._job.target.public(path)
        return Made(output.resolution, url, output.width, output.height, media.duration_s, measured.size_bytes)

    async def _uploaded(self, number: int, output: ffmpeg.Output, measured: Measured, path: str) -> None:
        md5 = base64.b64encode(bytes.fromhex(measured.md5)).decode()
        put = await upload.sign(self._job.target, path, md5, self._job.limit_s(self._report.duration_s))
        program = self._programs.curl
        argv, stdin = upload.curl(program, put, output.path)
        ended = await self._steps.run(Step(f"upload-{output.resolution}-{number}", argv, stdin))
        if ended.exit_code in MISSING:
            raise self._steps.missing(program, "curl")
        crc64 = upload.judge(put, self._connection.host, ended.exit_code, ended.output, ended.errors)
        await upload.verify(self._job.target.public(path), measured.size_bytes, crc64)
