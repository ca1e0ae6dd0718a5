"""Makes renditions on our own ffmpeg server over SSH, the fallback of the OSS: fetch, look, encode, check, upload."""

import asyncio
import base64
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import stamina

from lectern import errors, subprocesses
from lectern.allowlist import Allowlist
from lectern.ecs import detached, probe, ssh
from lectern.ecs.detached import DetachedStep, Ended, Folder
from lectern.ecs.probe import MISSING, Media, Wanted
from lectern.errors import CallAPerson, FallBack, LecternError, Misuse, Refuse, TryAgain
from lectern.i18n import Text, labelled, msgid
from lectern.media import ffmpeg
from lectern.rendition_ids import stem
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from lectern.storage import origin, oss
from lectern.storage.origin import RemoteFile
from lectern.urls import redact_url


def hosts(settings: TeacherSettings) -> dict[str, ssh.SshHost]:
    """The hosts by their names, in the order of the setting; raises Misuse for an entry that names no host."""
    listed = [ssh.SshHost.parse(text) for text in settings.ecs_hosts.split(",") if text.strip()]
    return {str(host): host for host in listed}


def check_ecs(settings: TeacherSettings) -> None:
    """Raise Misuse if ECS hosts are named, but settings that they need are not, or are wrong."""
    if not settings.ecs_hosts:
        return
    hosts(settings)
    needed = ("ecs_ssh_key", "ecs_known_hosts", "upload_url", "public_url")
    if missing := [name.upper() for name in needed if not getattr(settings, name)]:
        raise Misuse("ECS_HOSTS is set, so {missing} must be set too.", missing=", ".join(missing))
    oss.check_upload(settings)


@dataclass(frozen=True)
class Job:
    """One attempt to make the *wanted* renditions of a record, begun at *begun_at* (epoch seconds).

    *attempts* are their numbers, in the order of *wanted*, or one for all. *limit_s* gives the seconds that it may take
    by the recording's duration in seconds, None while that is unknown.
    """

    record_id: int
    attempts: tuple[int, ...]
    source_url: str
    wanted: tuple[Resolution, ...]
    begun_at: float
    limit_s: Callable[[float | None], float]
    settings: TeacherSettings = field(repr=False)
    stall_s: float = 60.0

    @property
    def name(self) -> str:
        """The name of its folder on the host: the same when the attempt is resumed, another for every other attempt."""
        numbers = ".".join(str(one) for one in dict.fromkeys(self.attempts))
        whole = f"{self.source_url} {self.settings.upload_url or ''} {self.settings.public_url or ''}"
        whole += f" {lufs:g}" if (lufs := self.settings.ecs_loudness_lufs) is not None else ""
        mark = hashlib.sha256(whole.encode(errors="replace")).hexdigest()[:8]
        return f"{self.record_id}_{'_'.join(self.wanted)}-{numbers}-{mark}"


@dataclass
class JobReport:
    """How far a job is: the job writes it, and any thread may read it to show it."""

    step: str = "connect"
    percent: float = 0.0  # of the recording that is encoded
    duration_s: float | None = None
    loudness: str = ""


@dataclass(frozen=True)
class JobOutcome:
    """What a job made: the URLs, seen where the platform will look for them, and why another rendition has none."""

    made: Mapping[Resolution, str]
    error: LecternError | None = None


FETCHES, UPLOADS = 4, 7
"""Number of times that the source is fetched, and that a rendition is uploaded, before it is given up."""

_PAUSES = {"wait_initial": 1.0, "wait_max": 16.0}
_NONE_LEFT_BYTES = 1024**2
_LOOK_S = 30.0
_RESERVE_BYTES = 64 * 1024**2
_UNKNOWN_BYTES = 8 * 1024**3  # the limit for a source whose length its origin does not say
_TOO_LARGE = 153  # SIGXFSZ
_SOURCE = "source"
# It prints the size of the file at its end; an exec instead would save a process and cost another command.
_LIMITED = 'ulimit -f "$1"; file=$2; shift 2; "$@" || exit; stat -c %s -- "$file"'
_KILLED = frozenset({137, 143, 255})  # 255 is how ffmpeg ends by TERM
_NOT_BUILT_IN = "Unknown encoder", "No such filter"


async def transcode(connection: ssh.SshConnection, job: Job, report: JobReport) -> JobOutcome:
    """Make, check and upload all that the job wants, or go on where an earlier call was cut off.

    A failure of one rendition alone (a bad output, a failed upload) is noted in the outcome, and stops no other.
    Raises a failure of all of them: Refuse (the recording is bad, or the time is over), TryAgain (network, a killed or
    stalled ffmpeg), FallBack (no room there), CallAPerson (a program is missing), Misuse. Whatever happens, programs
    begun there go on until ``detached.leave`` is called: so they survive the end of this process.
    """
    report.step = "enter"
    folder = await detached.enter(connection, job.settings.ecs_work_root, job.name)
    return await _Work(connection, job, folder, report).do()


def _allowed(job: Job) -> Allowlist:
    return Allowlist.listed(job.settings.allowed_origins)


async def promised(job: Job) -> RemoteFile:
    """What the origin promises of the source."""
    try:
        return await origin.look(job.source_url, allowed=_allowed(job), timeout_s=_LOOK_S)
    except TryAgain as error:
        raise TryAgain(error.message, errors.DOWNLOAD_FAILED) from error


def _broke_off(error: Exception) -> bool:
    return isinstance(error, TryAgain) and error.code is errors.DOWNLOAD_FAILED


def _may_pass(error: Exception) -> bool:
    return isinstance(error, TryAgain) and not isinstance(error, ssh.Lost)


class _Work:
    """A job under way, in its folder on a host."""

    def __init__(self, connection: ssh.SshConnection, job: Job, folder: Folder, report: JobReport) -> None:
        self._connection, self._job, self._folder, self._report = connection, job, folder, report
        self._settings, self._source = job.settings, f"{folder.path}/{_SOURCE}"
        self._thing = Text("source of {record_id}", record_id=job.record_id)
        self._made: dict[Resolution, str] = {}
        self._error: LecternError | None = None

    async def do(self) -> JobOutcome:
        """Do the whole job."""
        media = await self._fetch()
        probe.check_streams(media, self._thing)
        self._report.duration_s = media.duration_s
        outputs = []
        for resolution in self._job.wanted:
            path = f"{self._folder.path}/{stem(self._job.record_id, resolution)}.flv"
            outputs.append(ffmpeg.Output(path, resolution, *ffmpeg.fitted_size(media.width, media.height, resolution)))
        loudness = await self._loudness()
        reached_s = await self._encode(outputs, loudness)
        source = media if loudness is None else replace(media, audio=ffmpeg.AAC)
        self._report.step = "check"
        record = self._job.record_id
        wanted = [Wanted(one, source, reached_s, stem(record, one.resolution)) for one in outputs]
        await asyncio.gather(*map(self._finish, wanted))  # if the connection breaks, each of them is lost
        return JobOutcome(self._made, self._error)

    async def _finish(self, wanted: Wanted) -> None:
        """Check and upload a rendition; if that fails, it stops no other."""
        resolution = wanted.output.resolution
        try:
            size_bytes, md5 = await probe.made_well(self._connection, self._settings, wanted)
            self._report.step = "upload"
            self._made[resolution] = await self._upload(wanted.output, size_bytes, md5)
        except ssh.Lost:
            raise
        except LecternError as error:
            self._error = self._error or error

    async def _run(self, step: DetachedStep, program: str, package: str) -> Ended:
        """How *step* ends within the time left for the whole job; *package* has the *program*.

        Raises Refuse (the time is over), FallBack (the disk is full), CallAPerson (no such program), TryAgain.
        """
        job, host = self._job, self._connection.host
        limit_s = job.limit_s(self._report.duration_s)
        left_s = job.begun_at + limit_s - time.time()
        what = Text("{job}: {step} on {host}", job=job.name, step=step.name, host=host)
        over = Text("{step} was not done after {limit_s:.0f} s in all", step=what, limit_s=limit_s)
        if left_s <= 0:
            raise Refuse(over, errors.TRANSCODE_TIMED_OUT)
        try:
            ended = await detached.run(self._connection, self._folder, step, left_s)
        except subprocesses.TimedOut as error:
            said = error.last_words or Text("nothing")
            text = msgid("{over}; it said last: {last_words}")
            raise Refuse(text, errors.TRANSCODE_TIMED_OUT, over=over, last_words=said) from error
        code, said = ended.returncode, ended.last_words
        is_full = ended.free_bytes is not None and ended.free_bytes < _NONE_LEFT_BYTES
        if code != 0 and (ended.has_no_room or is_full):
            text = msgid("{what} ended with {exit_code}: {last_words}; its disk is full")
            raise FallBack(text, errors.NO_ECS_ROOM, what=what, exit_code=code, last_words=said)
        if code == detached.CUT_OFF:
            raise TryAgain("{what} was ended from outside", what=what)
        if code in MISSING:
            raise probe.missing(self._connection, program, package)
        return ended

    # -- the source ----------------------------------------------------------------------------------------------------

    async def _fetch(self) -> Media:
        """Fetch the source, unless an earlier call has.

        It is fetched again if the download breaks off, or if the origin has another file by its end.
        """
        if _SOURCE in self._folder.files:
            return await self._look()
        self._report.step = "fetch"
        file: str | None = None
        async for attempt in stamina.retry_context(_broke_off, attempts=FETCHES, timeout=None, **_PAUSES):
            with attempt:
                remote = await promised(self._job)
                # A resumed job has its room; no rendition is larger than the source.
                needed = (remote.size_bytes or 0) * (1 + len(self._job.wanted)) + _RESERVE_BYTES
                if not self._folder.files and self._folder.free_bytes < needed:
                    free = {"free": self._folder.free_bytes, "path": self._folder.path, "needed": needed}
                    found = Text("{free} bytes are free in {path}, {needed} are needed", **free)
                    about = {"job": self._job.name, "host": self._connection.host, "found": found}
                    raise FallBack("{job}: {host} has no room: {found}", errors.NO_ECS_ROOM, **about)
                file = await self._fetched(attempt.num, remote)
        return await self._look(file)

    async def _fetched(self, number: int, remote: RemoteFile) -> str:
        """The name of the file that was fetched, if it is what *remote* promises; raises what went wrong."""
        # Named after what the origin promises, so that a part of another file is not resumed.
        mark = hashlib.sha256(f"{remote.size_bytes} {remote.etag} {remote.crc64}".encode()).hexdigest()[:8]
        url, file = redact_url(remote.url), f"{self._source}-{mark}"
        # By an IPv4 address, to which every host can connect; this host need not have IPv6.
        options, line = origin.wget_input(remote.url, remote.address if ":" not in (remote.address or "") else None)
        limit_bytes = remote.size_bytes if remote.size_bytes is not None else _UNKNOWN_BYTES
        argv = ["sh", "-c", _LIMITED, "lectern", str(limit_bytes // 512 + 16), file]
        argv += origin.wget_argv(self._settings.ecs_wget, file, options=options)
        step = DetachedStep(f"fetch-{mark}-{number}", argv, line)
        ended = await self._run(step, self._settings.ecs_wget, "wget")
        if ended.returncode == _TOO_LARGE:
            text = msgid("{url}: is larger than the {limit_bytes} bytes that it may be")
            kind = Refuse if remote.size_bytes is None else TryAgain  # it may have been replaced since the promise
            raise kind(text, errors.DOWNLOAD_FAILED, url=url, limit_bytes=limit_bytes)
        try:
            origin.judge_wget(ended, remote.url)
        except Refuse as error:
            if error.code is errors.DISK_FULL:
                raise FallBack(labelled(self._connection.host, error.message), errors.NO_ECS_ROOM) from error
            raise
        except TryAgain as error:
            found = Text("{error}; {size_bytes} bytes were promised", error=error.message, size_bytes=remote.size_bytes)
            raise TryAgain(found, errors.DOWNLOAD_FAILED) from error
        size_bytes = int(ended.output.strip() or -1)
        after = await promised(self._job)  # otherwise it may be parts of two files
        if remote.promise != after.promise or remote.size_bytes not in (None, size_bytes):
            changed = Text(
                "{url}: has changed while it was read: {promised} bytes were promised, {came} came, now it has {now}",
                url=url,
                promised=remote.size_bytes,
                came=size_bytes,
                now=after.size_bytes,
            )
            raise TryAgain(changed, errors.DOWNLOAD_FAILED)
        return file

    async def _look(self, file: str | None = None) -> Media:
        self._report.step = "look"
        return await probe.look(self._connection, self._source, self._settings, self._thing, was=file)

    # -- ffmpeg --------------------------------------------------------------------------------------------------------

    async def _loudness(self) -> ffmpeg.Loudness | None:
        if (lufs := self._settings.ecs_loudness_lufs) is None:
            return None
        self._report.step = "measure"
        ended, _ = await self._run_ffmpeg("measure", ffmpeg.measure_argv(self._settings.ecs_ffmpeg, self._source, lufs))
        try:
            found = ffmpeg.Loudness.read(ended.errors)
        except ValueError as error:
            raise TryAgain(self._failed("measure", ended)) from error
        if not found.is_right(lufs):
            return found
        was = Text("{lufs:.1f} LUFS", lufs=found.lufs) if math.isfinite(found.lufs) else Text("no sound is heard in it")
        self._report.loudness = Text("{was}: left as it is", was=was)
        return None

    async def _encode(self, outputs: Sequence[ffmpeg.Output], loudness: ffmpeg.Loudness | None) -> float:
        """Encode *outputs*, corrected if *loudness* is given; returns the seconds of the source that were read."""
        self._report.step = "encode"
        lufs, every_s = self._settings.ecs_loudness_lufs, self._settings.keyframe_interval_s
        sound = ffmpeg.COPY if loudness is None or lufs is None else loudness.options(lufs)
        argv = ffmpeg.encode_argv(self._settings.ecs_ffmpeg, self._source, outputs, keyframe_s=every_s, sound=sound)
        ended, reached_s = await self._run_ffmpeg("encode", argv)
        self._report.percent = 100.0
        if loudness is not None and lufs is not None:
            before, after = loudness.lufs, ffmpeg.became_lufs(ended.errors)
            found = Text("it was {before:.1f} LUFS, now {after:.1f} LUFS", before=before, after=after)
            if after is None:
                found = Text(
                    "it was {before:.1f} LUFS, and was corrected to {wanted:g} LUFS", before=before, wanted=lufs
                )
            lowered = Text("{found}; its peaks were lowered", found=found)
            self._report.loudness = lowered if loudness.is_peaky(lufs) else found
        return reached_s

    async def _run_ffmpeg(self, step: str, argv: Sequence[str]) -> tuple[Ended, float]:
        """How a *step* of ffmpeg ended well, and how many seconds it read; raises what a bad end means."""
        reached_s = -1.0

        def on_line(line: str) -> bool:
            nonlocal reached_s
            out_time_s = ffmpeg.out_time_s(line)
            if out_time_s is None or out_time_s <= reached_s:
                return False  # ffmpeg goes on reporting while it stands still
            reached_s = out_time_s
            if step == "encode" and self._report.duration_s is not None:
                self._report.percent = min(100 * reached_s / self._report.duration_s, 100.0)
            return True

        whole = DetachedStep(step, argv, stall_s=self._job.stall_s, on_line=on_line)
        ended = await self._run(whole, self._settings.ecs_ffmpeg, "ffmpeg")
        if any(words in ended.errors for words in _NOT_BUILT_IN):
            raise CallAPerson(self._failed(step, ended))
        if ended.returncode in _KILLED:
            raise TryAgain(self._failed(step, ended))
        if ended.returncode != 0:
            raise Refuse(self._failed(step, ended), errors.TRANSCODE_FAILED)
        return ended, reached_s

    def _failed(self, step: str, ended: Ended) -> Text:
        found = Text(
            "{job}: ffmpeg on {host} ended with {exit_code}: {last_words}",
            job=self._job.name,
            host=self._connection.host,
            exit_code=ended.returncode,
            last_words=ended.last_words,
        )
        if step == "encode":
            return found
        return Text("{found}; the loudness was not measured, which ECS_LOUDNESS_LUFS asks for", found=found)

    async def _upload(self, output: ffmpeg.Output, size_bytes: int, md5_hex: str) -> str:
        """Upload a rendition, and see that it is there; returns its URL."""
        path = f"{self._job.record_id}/{stem(self._job.record_id, output.resolution)}.flv"
        url = oss.public_url(self._settings, path)
        md5 = base64.b64encode(bytes.fromhex(md5_hex)).decode()
        async for attempt in stamina.retry_context(_may_pass, attempts=UPLOADS, timeout=None, **_PAUSES):
            with attempt:
                to = await oss.upload_url(self._settings, path, md5, self._job.limit_s(self._report.duration_s))
                argv, stdin = oss.curl(self._settings.ecs_curl, to, md5, output.path)
                step = DetachedStep(f"upload-{output.resolution}-{attempt.num}", argv, stdin)
                crc64 = oss.judge(
                    path, to, self._connection.host, await self._run(step, self._settings.ecs_curl, "curl")
                )
                await oss.verify_upload(url, size_bytes, crc64, _allowed(self._job))
        return url
