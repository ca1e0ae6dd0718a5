"""Makes renditions on our own ffmpeg server over SSH, the fallback of the OSS: fetch, look, encode, check, upload."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lectern.effects import ffmpeg, origin, process, ssh, wget
from lectern.errors import (
    BAD_RECORDING,
    DISK_FULL,
    TRANSCODE_FAILED,
    TRANSCODE_TIMED_OUT,
    CallAPerson,
    ErrorCode,
    FallBack,
    LecternError,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.states import Resolution

_log = logging.getLogger(__name__)
_FETCH_S = 3600.0  # while nothing says how long the recording is
_STEP_S = 30.0
_LOOK_S = 60.0
_MISSING = frozenset({126, 127})
_KILLED = frozenset({-1, 137, 143, 255})  # 255 is how ffmpeg ends by TERM
_NO_ROOM = "No space left on device"
_NO_OUTPUT = "At least one output file must be specified"
_STATUS = re.compile(r"(?:error: |ERROR )(\d{3})")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_VIDEO = re.compile(r"Stream #.*: Video: .*?, (\d+)x(\d+)")
_AUDIO = re.compile(r"Stream #.*: Audio: ")
_ROOT = 'case $1 in "~"|"~/"*) set -- "$HOME${1#"~"}";; esac; mkdir -p -- "$1" && cd -- "$1" && pwd -P'
# What an earlier job could not clean up (the connection was cut) is removed a day later.
_FRESH = 'find "$1" -mindepth 1 -maxdepth 1 -mtime +1 -exec rm -rf -- {} +; rm -rf -- "$1/$2" && mkdir -- "$1/$2"'


@dataclass(frozen=True)
class Programs:
    """What the programs are called on the host."""

    wget: str = "wget"
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"
    curl: str = "curl"


@dataclass(frozen=True)
class Job:
    """One attempt to make the *wanted* renditions of a record; the bases are URLs of folders."""

    record_id: int
    attempt: int
    source_url: str
    wanted: tuple[Resolution, ...]
    upload_base: str
    public_base: str
    work_root: str = "~/lectern-work"
    wget_rate: str | None = None
    duration_hint_s: float | None = None
    stall_s: float = 60.0
    programs: Programs = Programs()

    @property
    def name(self) -> str:
        """The name of its folder there: no two jobs that run at once share it."""
        return f"{self.record_id}_{'_'.join(self.wanted)}-{self.attempt}"


@dataclass(frozen=True)
class Made:
    """A rendition that was made, checked, uploaded, and seen where the platform will look for it."""

    resolution: Resolution
    url: str
    width: int
    height: int
    duration_s: float
    size_bytes: int


@dataclass(frozen=True)
class _Media:
    width: int
    height: int
    duration_s: float
    has_audio: bool


async def transcode(connection: ssh.Connection, job: Job, *, on_progress: Callable[[float], None]) -> list[Made]:
    """Make, check and upload all that the job wants; *on_progress* is told the percentage of the encoding.

    Takes at most three times the recording's duration + 2 min. Raises Refuse (the recording is bad, or the
    time is over), TryAgain (network, stalled ffmpeg), FallBack (disk full there), CallAPerson (a program is missing,
    the upload is not allowed), Misuse. Leaves nothing on the host.
    """
    _validate(job)
    root = await _step(connection, "the work folder", ["sh", "-c", _ROOT, "lectern", job.work_root])
    folder = f"{root}/{job.name}"
    try:
        await _step(connection, "the work folder", ["sh", "-c", _FRESH, "lectern", root, job.name])
        return await _Work(connection, job, folder).do(on_progress)
    finally:
        await process.surely(_clean_up(connection, folder))


def _validate(job: Job) -> None:
    if job.record_id < 0 or job.attempt < 0 or not job.wanted or len(set(job.wanted)) < len(job.wanted):
        raise Misuse(f"{job.name}: is no job; it needs a record, an attempt and different resolutions")
    for base in (job.upload_base, job.public_base):
        if urlsplit(base).scheme not in ("http", "https"):
            raise Misuse(f"{base!r}: can not be uploaded to; write http://… or https://…")


async def _step(connection: ssh.Connection, what: str, argv: Sequence[str]) -> str:
    """What a small command says; raises FallBack (no room) or CallAPerson where it fails."""
    finished = await connection.run(argv, timeout_s=_STEP_S)
    if finished.returncode == 0:
        return finished.output.strip()
    found = f"{connection.host}: {what} failed ({finished.returncode}): {finished.last_words or 'no word'}"
    raise FallBack(found) if _NO_ROOM in finished.errors else CallAPerson(found)


async def _clean_up(connection: ssh.Connection, folder: str) -> None:
    try:
        await _step(connection, "cleaning up", ["rm", "-rf", "--", folder])
    except LecternError as error:  # what really happened must not be hidden by this
        _log.warning("%s: %s is left behind: %s", connection.host, folder, error)


class _Work:
    """A job on its way: each method is a step, each has the time that is left."""

    def __init__(self, connection: ssh.Connection, job: Job, folder: str) -> None:
        self._connection, self._job, self._folder = connection, job, folder
        self._host, self._programs = connection.host, job.programs
        self._started_at = time.monotonic()
        self._limit_s = _FETCH_S if job.duration_hint_s is None else 3 * job.duration_hint_s + 120

    async def do(self, on_progress: Callable[[float], None]) -> list[Made]:
        source = f"{self._folder}/source"
        await self._fetch(source)
        media = await self._look(source, BAD_RECORDING)
        self._limit_s = 3 * media.duration_s + 120
        outputs = [self._output(media, resolution) for resolution in self._job.wanted]
        await self._encode(source, media, outputs, on_progress)
        for output in outputs:
            self._check(output, await self._look(output.path, TRANSCODE_FAILED), media)
        listed = await _step(self._connection, "stat", ["stat", "-c", "%s", "--", *(output.path for output in outputs)])
        sizes = [int(size) for size in listed.split()]
        return [await self._upload(output, size, media) for output, size in zip(outputs, sizes, strict=True)]

    def _output(self, source: _Media, resolution: Resolution) -> ffmpeg.Output:
        width, height = ffmpeg.fitted_size(source.width, source.height, resolution)
        return ffmpeg.Output(f"{self._folder}/{self._stem(resolution)}.flv", resolution, width, height)

    def _stem(self, resolution: Resolution) -> str:
        return f"{self._job.record_id}_{resolution}"

    async def _run(
        self, argv: Sequence[str], *, stall_s: float | None = None, on_line: process.OnLine | None = None
    ) -> process.Finished:
        left_s = self._started_at + self._limit_s - time.monotonic()
        over = f"{self._job.name}: {argv[0]} on {self._host} was not done after {self._limit_s:.0f} s in all"
        if left_s <= 0:
            raise Refuse(over, TRANSCODE_TIMED_OUT)
        try:
            return await self._connection.run(argv, timeout_s=left_s, stall_s=stall_s, on_line=on_line)
        except process.TimedOut as error:
            raise Refuse(f"{over}; it said last: {error.last_words or 'nothing'}", TRANSCODE_TIMED_OUT) from error

    def _missing(self, program: str, package: str) -> CallAPerson:
        return CallAPerson(f"{self._host}: {program} can not be run; type there: apt-get install {package}")

    async def _fetch(self, source: str) -> None:
        url, program = self._job.source_url, self._programs.wget
        finished = await self._run(wget.argv(program, url, source, self._job.wget_rate))
        if finished.returncode in _MISSING:
            raise self._missing(program, "wget")
        try:
            wget.judge(finished, url)
        except Refuse as error:
            if error.code is DISK_FULL:
                raise FallBack(f"{self._host}: {error.message}") from error
            raise

    async def _look(self, path: str, code: ErrorCode) -> _Media:
        """What a file there is, by ffprobe, or by ffmpeg where there is no ffprobe; a look takes at most a minute."""
        try:
            async with asyncio.timeout(_LOOK_S):
                return await self._looked(path, code)
        except TimeoutError as error:
            raise TryAgain(f"{path} on {self._host}: could not be looked at within {_LOOK_S:.0f} s") from error

    async def _looked(self, path: str, code: ErrorCode) -> _Media:
        local = ["-protocol_whitelist", "file", "-i", f"file:{path}"]
        asked = ["-v", "error", "-show_entries", "stream=codec_type,width,height:format=duration", "-of", "json"]
        finished = await self._run([self._programs.ffprobe, *asked, *local])
        if finished.returncode in _MISSING:
            finished = await self._run([self._programs.ffmpeg, "-hide_banner", "-nostdin", *local])
            if finished.returncode in _MISSING:
                raise self._missing(self._programs.ffmpeg, "ffmpeg")
            media = _media_of_words(finished.errors)
        else:
            media = _media_of_json(finished.output)
        if media is None:
            # Without an output ffmpeg always ends so; then what is not there is the reason.
            said = "" if _NO_OUTPUT in finished.last_words else finished.last_words
            words = said or "no video, or no duration"
            raise Refuse(f"{path} of {self._job.source_url}: is not playable: {words}", code)
        return media

    async def _encode(
        self, source: str, media: _Media, outputs: Sequence[ffmpeg.Output], on_progress: Callable[[float], None]
    ) -> None:
        reader, reached_s = ffmpeg.ProgressReader(), -1.0

        def on_line(line: str) -> bool:
            nonlocal reached_s
            report = reader.progress(line)
            if report is None or (report.out_time_s <= reached_s and not report.done):
                return False  # ffmpeg goes on reporting while it stands still
            reached_s = report.out_time_s
            on_progress(100.0 if report.done else min(100.0, 100 * reached_s / media.duration_s))
            return True

        argv = ffmpeg.encode_argv(self._programs.ffmpeg, source, outputs)
        finished = await self._run(argv, stall_s=self._job.stall_s, on_line=on_line)
        if finished.returncode == 0:
            return
        found = f"{self._job.name}: ffmpeg on {self._host} ended with {finished.returncode}: {finished.last_words}"
        if finished.returncode in _MISSING:
            raise self._missing(self._programs.ffmpeg, "ffmpeg")
        if _NO_ROOM in finished.errors:
            raise FallBack(found)
        if finished.returncode in _KILLED:
            raise TryAgain(found)
        raise Refuse(found, TRANSCODE_FAILED)

    def _check(self, output: ffmpeg.Output, made: _Media, source: _Media) -> None:
        wrong = []
        if (made.width, made.height) != (output.width, output.height):
            wrong.append(f"is {made.width}x{made.height}, not {output.width}x{output.height}")
        if abs(made.duration_s - source.duration_s) > max(0.25, source.duration_s * 0.01):
            wrong.append(f"is {made.duration_s:.1f} s long, but the source says {source.duration_s:.1f} s")
        if source.has_audio and not made.has_audio:
            wrong.append("has lost its sound")
        if wrong:
            raise Refuse(f"{self._stem(output.resolution)}: {' and '.join(wrong)}", TRANSCODE_FAILED)

    async def _upload(self, output: ffmpeg.Output, size_bytes: int, media: _Media) -> Made:
        name = f"{self._stem(output.resolution)}.flv"
        target = f"{self._job.upload_base.rstrip('/')}/{name}"
        finished = await self._run(_curl_argv(self._programs.curl, output.path, target))
        if finished.returncode in _MISSING:
            finished = await self._run(_put_argv(self._programs.wget, output.path, target))
        if finished.returncode != 0:
            found = f"{name}: could not be uploaded from {self._host} to {target}: {finished.last_words}"
            status = _STATUS.search(finished.errors)
            if status is not None and 400 <= int(status[1]) < 500 and status[1] not in ("408", "429"):
                raise CallAPerson(f"{found}; is UPLOAD_URL right, and may the host write there?")
            raise TryAgain(found)
        url = f"{self._job.public_base.rstrip('/')}/{name}"
        await _verify(url, size_bytes)
        return Made(output.resolution, url, output.width, output.height, media.duration_s, size_bytes)


async def _verify(url: str, size_bytes: int) -> None:
    """Look that the upload is where the platform will look for it, whole."""
    try:
        ours = origin.Allowed.parse(urlsplit(url).netloc.rpartition("@")[2])  # from our own settings
        remote = await origin.look(url, allowed=ours, timeout_s=_STEP_S)
    except Refuse as error:
        raise TryAgain(f"{url}: was uploaded, but: {error.message}") from error
    if remote.size_bytes is not None and remote.size_bytes != size_bytes:
        raise TryAgain(f"{url}: has {remote.size_bytes} bytes, but {size_bytes} were uploaded")


def _curl_argv(curl: str, path: str, url: str) -> list[str]:
    argv = [curl, "-q", "--fail", "--silent", "--show-error", "--globoff", "--noproxy", "*", "--connect-timeout", "15"]
    return [*argv, "--speed-limit", "1", "--speed-time", "30", "-H", "Expect:", "-T", path, "--url", url]


def _put_argv(program: str, path: str, url: str) -> list[str]:
    argv = [program, "--no-config", "--no-proxy", "--no-netrc", "--tries=1", "--timeout=30", "--no-verbose"]
    return [*argv, "--max-redirect=0", "--method=PUT", f"--body-file={path}", "-O", "-", "--", url]


def _media_of_json(text: str) -> _Media | None:
    try:
        found = json.loads(text)
        video = next(stream for stream in found["streams"] if stream["codec_type"] == "video")
        audio = any(stream["codec_type"] == "audio" for stream in found["streams"])
        media = _Media(video["width"], video["height"], float(found["format"]["duration"]), audio)
    except (ValueError, KeyError, StopIteration):
        return None
    return media if media.duration_s > 0 and media.width > 0 and media.height > 0 else None


def _media_of_words(text: str) -> _Media | None:
    duration, video = _DURATION.search(text), _VIDEO.search(text)
    if duration is None or video is None:
        return None
    duration_s = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3])
    return _Media(int(video[1]), int(video[2]), duration_s, _AUDIO.search(text) is not None)
