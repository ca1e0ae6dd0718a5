"""Fetches the recording that a job is made from: the ECS host itself downloads it whole from its origin."""

import hashlib
from collections.abc import Awaitable

from lectern.effects import process
from lectern.effects.ecs import check
from lectern.effects.ecs.check import MISSING, Media
from lectern.effects.ecs.detached import Step
from lectern.effects.ecs.job import Job
from lectern.effects.ecs.steps import Steps, tried
from lectern.effects.files import origin, wget
from lectern.effects.files.origin import RemoteFile
from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, NO_ECS_ROOM, FallBack, Refuse, TryAgain
from lectern.shown import shown

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


class Source:
    """The source of a job, in its folder."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._job, self._host = steps, steps.job, steps.connection.host
        self._wget = steps.job.programs.wget
        self.path = f"{steps.folder.path}/{_SOURCE}"
        self.thing = f"source of {steps.job.record_id}"

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
            found = f"{folder.free_bytes} bytes are free in {folder.path}, {needed} are needed"
            raise FallBack(f"{self._job.name}: {self._host} has no room: {found}", NO_ECS_ROOM)

    async def _fetched(self, number: int, remote: RemoteFile) -> Media:
        # Named after what the origin promises, so that a part of another file is not resumed.
        mark = hashlib.sha256(f"{remote.size_bytes} {remote.etag} {remote.crc64}".encode()).hexdigest()[:8]
        url, file = shown(remote.url), f"{self.path}-{mark}"
        # By an IPv4 address, to which every host can connect; this host need not have IPv6.
        options, line = wget.asked(remote.url, remote.address if ":" not in (remote.address or "") else None)
        limit_bytes = remote.size_bytes if remote.size_bytes is not None else _UNKNOWN_BYTES
        argv = ["sh", "-c", _LIMITED, "lectern", str(limit_bytes // 512 + 16), file]
        argv += wget.argv(self._wget, file, options=options)
        ended = await self._steps.run(Step(f"fetch-{mark}-{number}", argv, line))
        assert ended.exit_code is not None  # the step has raised
        if ended.exit_code in MISSING:
            raise self._steps.missing(self._wget, "wget")
        if ended.exit_code == _TOO_LARGE:
            raise Refuse(f"{url}: is larger than the {limit_bytes} bytes that it may be", DOWNLOAD_FAILED)
        try:
            wget.judge(process.Finished(tuple(argv), ended.exit_code, ended.output, ended.errors, 0.0), remote.url)
        except Refuse as error:
            if error.code is DISK_FULL:
                raise FallBack(f"{self._host}: {error.message}", NO_ECS_ROOM) from error
            raise
        except TryAgain as error:
            found = f"{error.message}; {remote.size_bytes} bytes were promised"
            raise TryAgain(found, DOWNLOAD_FAILED) from error
        return await self._keep(remote, file, int(ended.output.strip() or -1))

    async def _keep(self, before: RemoteFile, file: str, size_bytes: int) -> Media:
        """Take the file as the source if the origin still has the same file; otherwise it may be parts of two files."""
        after = await promised(self._job)
        if before.promise != after.promise or before.size_bytes not in (None, size_bytes):
            found = f"{before.size_bytes} bytes were promised, {size_bytes} came, now it has {after.size_bytes}"
            raise TryAgain(f"{shown(before.url)}: has changed while it was read: {found}", DOWNLOAD_FAILED)
        return await self._look(file)

    async def _look(self, file: str | None = None) -> Media:
        """Look at the source; if *file* is given, it is first renamed to the source."""
        self._steps.report.step = "look"
        return await check.look(self._steps.connection, self.path, self._job.programs, self.thing, was=file)
