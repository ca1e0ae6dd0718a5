"""What a job does on a host that lacks a program, has no room, stands still, or is too slow."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import fastcrc
import pytest
from pydantic import SecretStr

from lectern.allowlist import Allowlist
from lectern.decide import transcoding as decide
from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs
from lectern.ecs import transcode as ecs_transcode
from lectern.ecs.detached import DetachedStep
from lectern.ecs.probe import Programs
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import (
    NO_ECS_ROOM,
    TRANSCODE_TIMED_OUT,
    UPLOAD_FAILED,
    CallAPerson,
    FallBack,
    Misuse,
    Refuse,
    TryAgain,
)
from lectern.states import Resolution
from lectern.storage.oss import OssKey, UploadTarget
from tests.answering import Answer, serving
from tests.effects.conftest import Origin, Sshd, running_with
from tests.effects.ecs.at_work import SOURCE, UP, called, encoders, stand_in, transcode
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("program", "package", "step"),
    [
        ("wget", "wget", "fetch"),
        ("ffprobe", "ffmpeg", "look"),
        ("curl", "curl", "look"),
        ("ffmpeg", "ffmpeg", "encode"),
    ],
)
async def test_a_missing_program_calls_a_person(
    connection: ssh.SshConnection, job: Job, program: str, package: str, step: str
) -> None:
    """What only the upload needs is missed before anything is encoded."""
    report = JobReport()
    with pytest.raises(
        CallAPerson, match=rf"ssh://.*no-{program} cannot be run; type there: apt-get install {package}$"
    ):
        await transcode(connection, replace(job, programs=Programs(**{program: f"no-{program}"})), report)
    assert report.step == step


@pytest.mark.parametrize(("program", "exit_code"), [("wget", 3), ("ffmpeg", 1)])
async def test_a_disk_that_fills_is_fallen_back_from(
    connection: ssh.SshConnection, job: Job, tmp_path: Path, program: str, exit_code: int
) -> None:
    """A stand-in says what the program says then; where mounts are ours to make, the next claim fills a real one."""
    says = f"echo 'source: No space left on device' >&2; exit {exit_code}"
    full = stand_in(tmp_path / program, f'case "$*" in *-force_key*|*--input-file*) {says};; esac\nexec {program} "$@"')
    with pytest.raises(FallBack, match="No space left") as raised:
        await transcode(connection, replace(job, programs=Programs(**{program: full})))
    assert raised.value.code is NO_ECS_ROOM


@pytest.fixture
def small_disk(recording: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk with room for half of the source, or for the source and not much more."""
    size = recording.stat().st_size
    room = size // 2 if request.param == "source" else size + 150_000
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("small_disk", ["source", "rendition"], indirect=True)
async def test_a_real_disk_that_fills_is_fallen_back_from(
    connection: ssh.SshConnection, job: Job, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing can be noted there any more, not even how the program ended."""
    monkeypatch.setattr(ecs_transcode, "_RESERVE_BYTES", -(10**9))  # as if others had filled it since it was looked at
    with pytest.raises(FallBack, match="its disk is full") as raised:
        await transcode(connection, replace(job, wanted=(Resolution.P1080,), work_root=str(small_disk / "work")))
    assert raised.value.code is NO_ECS_ROOM


@pytest.mark.parametrize("whom", ["ffmpeg", "all of it"])
async def test_a_killed_encoder_is_noticed(connection: ssh.SshConnection, slow_job: Job, whom: str) -> None:
    job = slow_job
    task = asyncio.create_task(transcode(connection, job))
    await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
    if whom == "ffmpeg":
        os.kill(encoders(job)[0], signal.SIGKILL)
    else:
        os.killpg(int((Path(job.work_root) / job.name / "encode.pid").read_text()), signal.SIGKILL)
    with pytest.raises(TryAgain, match=r"137|ended from outside"):
        await task


@pytest.mark.parametrize("at", ["/source", "/6666_240P.flv"], ids=["source", "rendition"])
async def test_a_killed_probe_says_nothing_of_the_recording(
    connection: ssh.SshConnection, job: Job, tmp_path: Path, at: str
) -> None:
    """A host that ran out of memory killed it: the classes would be refused for a recording that is good."""
    killed = stand_in(tmp_path / "ffprobe", f'case "$*" in *{at}) kill -KILL $$;; esac\nexec ffprobe "$@"')
    with pytest.raises(TryAgain, match="ffprobe was killed") as raised:
        await transcode(connection, replace(job, programs=Programs(ffprobe=killed)))
    assert decide.blame(raised.value) is decide.Blame.HOST


KEY_ID, SECRET, REGION, BUCKET = "LTAI5tMadeUp", "made-up-secret-of-oss", "cn-hangzhou", "lessons-1"
DENIED = "<Error><Code>{}</Code><Message>made up</Message><SignatureProvided>s3cr3t</SignatureProvided></Error>"


@dataclass
class Store:
    """A bucket: takes what is signed for it, and only that."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    command_lines: list[int] = field(default_factory=list)
    wrong_crc: bool = False


def signature(method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], secret: str) -> str:
    """The V4 signature of a URL, written a second time from its documentation."""
    signed = dict(query)
    _, date, region, product, end = signed["x-oss-credential"].split("/")
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in query if name != "x-oss-signature")
    named = {name.lower(): value.strip() for name, value in headers.items()}
    ours = sorted(name for name in named if name in ("content-md5", "content-type") or name.startswith("x-oss-"))
    canonical = "\n".join(
        [
            method,
            path,
            "&".join(f"{name}={value}" if value else name for name, value in pairs),
            "".join(f"{name}:{named[name]}\n" for name in ours),
            "",
            "UNSIGNED-PAYLOAD",
        ]
    )
    scope = "/".join((date, region, product, end))
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join(("OSS4-HMAC-SHA256", signed["x-oss-date"], scope, hashed))
    key = f"aliyun_v4{secret}".encode()
    for part in (date, region, product, end):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class _Bucket(Answer):
    store: Store

    def answer(self) -> None:
        if self.command == "PUT":
            self._put()
            return
        body = self.store.objects.get(urlsplit(self.path).path)
        if body is None:
            self.say(404)
            return
        crc = fastcrc.crc64.xz(body) + (1 if self.store.wrong_crc else 0)
        self.say(200, {"content-length": str(len(body)), "x-oss-hash-crc64ecma": str(crc)})

    def _put(self) -> None:
        self.store.command_lines += running_with("x-oss-signature") + running_with(SECRET)
        body = self.sent()
        parts = urlsplit(self.path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        expected = signature("PUT", parts.path, query, dict(self.headers.items()), SECRET)
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        if not hmac.compare_digest(expected, dict(query)["x-oss-signature"]):
            self.say(403, body=DENIED.format("SignatureDoesNotMatch").encode())
        elif self.headers["content-md5"] != md5:
            self.say(400, body=DENIED.format("InvalidDigest").encode())
        else:
            self.store.objects[parts.path] = body
            self.say(200, {"x-oss-hash-crc64ecma": str(fastcrc.crc64.xz(body))})


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    with serving(_Bucket, store=made) as server:
        made.url = server.url
        yield made


def to(store: Store, secret: str = SECRET) -> UploadTarget:
    key = OssKey(REGION, SecretStr(KEY_ID), SecretStr(secret), store.url)
    return UploadTarget(f"oss://{BUCKET}/lessons of 2026", f"{store.url}/{BUCKET}/lessons%20of%202026", key)


@pytest.fixture
def job(origin: Origin, store: Store, recording: Path, tmp_path: Path) -> Job:
    origin.files["/6666.flv"] = recording.read_bytes()
    return Job(
        record_id=6666,
        attempts=(1,),
        source_url=f"{origin.url}/6666.flv",
        wanted=(Resolution.P240,),
        target=to(store),
        begun_at=time.time(),
        limit_s=lambda _: 600.0,
        allowed=Allowlist.listed("127.0.0.1"),
        work_root=str(tmp_path / "work"),
    )


async def test_a_rendition_is_uploaded_by_a_signed_url(connection: ssh.SshConnection, job: Job, store: Store) -> None:
    """The key stays here; the signature is in no command line, and in no file that others could read."""
    try:
        (made,) = (await ecs_transcode.transcode(connection, job, JobReport())).made
        folder = Path(job.work_root) / job.name
        assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077} == set()
        assert not any(SECRET.encode() in path.read_bytes() for path in folder.iterdir())
    finally:
        await detached.leave(connection, job.work_root, job.name)
    assert made.url == f"{store.url}/{BUCKET}/lessons%20of%202026/6666/6666_240P.flv"
    (name, body), *others = store.objects.items()
    assert (name, len(body), others) == (urlsplit(made.url).path, made.size_bytes, [])
    assert store.command_lines == []
    assert SECRET not in repr(job)


async def test_a_wrong_key_is_told_in_the_stores_words_and_shows_no_signature(
    connection: ssh.SshConnection, job: Job, store: Store
) -> None:
    with pytest.raises(CallAPerson, match="403 SignatureDoesNotMatch: made up; are UPLOAD_URL") as raised:
        await transcode(connection, replace(job, target=to(store, "another")))
    assert raised.value.code is UPLOAD_FAILED
    assert "x-oss-signature" not in raised.value.message
    assert "s3cr3t" not in raised.value.message
    assert store.objects == {}


async def test_an_object_that_is_another_than_the_one_uploaded_is_noticed(
    connection: ssh.SshConnection, job: Job, store: Store
) -> None:
    store.wrong_crc = True
    with pytest.raises(TryAgain, match="its CRC-64 is"):
        await transcode(connection, job)


@pytest.mark.parametrize(
    ("put", "public", "says"),
    [
        ("", "http://a/b", "UPLOAD_URL=: write http"),
        ("ftp://a/b", "http://a/b", "write http"),
        ("oss://bucket/prefix", "http://a/b", "OSS_REGION, OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET must be set"),
        ("oss://B/prefix", "http://a/b", "write http"),
        ("http://u:hidden@a/b?t=hidden", "oss://bucket/x", "PUBLIC_URL=oss://bucket/x: write"),
        ("gopher://u:hidden@a/b?t=hidden", "http://a/b", r"UPLOAD_URL=gopher://a/b\?…: write"),
    ],
)
def test_what_is_no_target_is_told_what_to_write(put: str, public: str, says: str) -> None:
    with pytest.raises(Misuse, match=says) as raised:
        UploadTarget(put, public)
    assert "hidden" not in raised.value.message


# A job goes on without us, is found again, and ends when it is cancelled or left.


async def test_job_that_we_are_torn_from_goes_on_and_is_found_again(sshd: Sshd, slow_job: Job, origin: Origin) -> None:
    """The same ffmpeg, one download, one upload."""
    job = slow_job
    host = ssh.SshHost.parse(sshd.url)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as first:
        task = asyncio.create_task(ecs.transcode(first, job, JobReport()))
        await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (before,) = encoders(job)
    async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=10) as second:
        report = JobReport()
        again = asyncio.create_task(transcode(second, job, report))
        await async_wait_until(lambda: report.percent > 0 or again.done(), description="it is watched again")
        assert encoders(job) == [before]
        assert len(await again) == 1
    assert origin.took("GET", SOURCE) == 1
    assert origin.took("PUT", UP) == 1


async def test_a_job_that_was_made_is_not_made_again(connection: ssh.SshConnection, job: Job, origin: Origin) -> None:
    """Torn off after the upload: one look, and it is told."""
    first = await ecs.transcode(connection, job, JobReport())
    assert await transcode(connection, job) == list(first.made)
    assert (origin.took("GET", SOURCE), origin.took("PUT", UP)) == (1, 1)


@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
async def test_a_job_that_is_left_leaves_nothing(
    connection: ssh.SshConnection, job: Job, slow_job: Job, origin: Origin, tmp_path: Path, step: str
) -> None:
    if step == "fetch":
        origin.slow_s = 0.3
    elif step == "encode":
        job = slow_job
    else:
        job = replace(job, programs=Programs(curl=stand_in(tmp_path / "curl", f"exec sleep 60.{os.getpid()}")))
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": f"sleep 60.{os.getpid()}"}[step]
    report = JobReport()

    def ours() -> set[int]:
        """Other tests run beside this one; its upload is known by its number."""
        found = set(running_with(marker))
        return found if step == "upload" else found & set(running_with(job.work_root))

    task = asyncio.create_task(transcode(connection, job, report))
    await async_wait_until(lambda: report.step == step and ours(), description=f"it is at {step}")
    began = ours()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not began & ours()


async def test_what_nobody_looked_at_for_long_is_ended_by_the_next_job(
    connection: ssh.SshConnection, job: Job, slow_job: Job
) -> None:
    """Its teacher went for good, or was cut off and took another host."""
    lost = replace(slow_job, attempts=(7,))
    task = asyncio.create_task(ecs.transcode(connection, lost, JobReport()))
    await async_wait_until(lambda: encoders(lost), description="the lost job encodes")
    task.cancel()
    await asyncio.wait({task})
    long_ago = time.time() - 20 * 60
    os.utime(Path(job.work_root) / lost.name / "seen", (long_ago, long_ago))
    assert len(await transcode(connection, job)) == 1


MOMENTS = 7  # the start, the id, the word to begin, and a few looks at what it says
_numbers = itertools.count()


@pytest.fixture
def sleeping() -> list[str]:
    """A program that can be told from all others."""
    return ["sleep", f"300.{os.getpid()}{next(_numbers)}"]


async def cancelled_at(
    monkeypatch: pytest.MonkeyPatch, moment: int, when: str, work: Coroutine[Any, Any, object]
) -> None:
    """Cancel *work* before or after it waits for the host for the *moment*-th time."""
    real: Callable[[ssh.SshConnection, Any], Awaitable[Any]] = ssh.SshConnection._threaded
    task = asyncio.ensure_future(work)
    waits = itertools.count(1)

    async def counted(self: ssh.SshConnection, wait: Callable[[], Any]) -> Any:
        now = next(waits) == moment
        if now and when == "before":
            task.cancel()
        try:
            return await real(self, wait)
        finally:
            if now and when == "after":
                task.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(ssh.SshConnection, "_threaded", counted)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_program_that_is_cancelled_at_any_moment_of_its_start_is_gone(
    connection: ssh.SshConnection, sleeping: list[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also between its start there and the reading of its id: it waits for a word that does not come."""
    for moment in range(1, MOMENTS + 1):
        await cancelled_at(monkeypatch, moment, when, connection.run(sleeping, timeout_s=60))
        begun = [pid for pid in running_with(" ".join(sleeping)) if called(pid) == "sleep"]
        assert begun == [], f"cancelled {when} wait {moment}"
        await async_wait_until(
            lambda: not running_with(" ".join(sleeping)), description="what waited for the word is gone"
        )


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_step_that_is_cancelled_at_any_moment_of_its_start_is_ended_by_leaving(
    connection: ssh.SshConnection, sleeping: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, when: str
) -> None:
    """It would go on without us, if it has begun."""
    for moment in range(1, MOMENTS + 1):
        folder = await detached.enter(connection, str(tmp_path), "job")
        step = detached.run(connection, folder, DetachedStep("step", sleeping), 60)
        await cancelled_at(monkeypatch, moment, when, step)
        await detached.leave(connection, str(tmp_path), "job")
        assert list(tmp_path.iterdir()) == []
        await async_wait_until(
            lambda: not running_with(" ".join(sleeping)), description=f"all is gone, cancelled {when} wait {moment}"
        )


async def test_a_step_whose_folder_is_taken_away_is_told_so_and_not_watched_for_ever(
    connection: ssh.SshConnection, sleeping: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of a teacher that was away for so long that another one has taken over its job, and is done with it."""
    monkeypatch.setattr(detached, "_RUN", detached._RUN.replace("flock -w 20", "flock -w 1"))  # it looks sooner
    folder = await detached.enter(connection, str(tmp_path), "job")
    watching = asyncio.ensure_future(detached.run(connection, folder, DetachedStep("step", sleeping), 60))
    await async_wait_until(
        lambda: running_with(" ".join(sleeping)) and any(tmp_path.glob("job/step.pid")), description="it runs there"
    )
    group = int((tmp_path / "job" / "step.pid").read_text())
    shutil.rmtree(tmp_path / "job")
    try:
        with pytest.raises(TryAgain, match="is gone"):
            await asyncio.wait_for(watching, 20)
        with pytest.raises(TryAgain, match="is gone"):
            await detached.run(connection, folder, DetachedStep("next", sleeping), 60)
    finally:
        os.killpg(group, signal.SIGKILL)
    await async_wait_until(lambda: not running_with(str(tmp_path)), description="nobody watches it any more")


async def test_an_encoder_that_stands_still_is_noticed(connection: ssh.SshConnection, job: Job, tmp_path: Path) -> None:
    """Although it goes on reporting."""
    says = "while :; do printf 'out_time_us=1000000\\nprogress=continue\\n'; sleep 0.2; done"
    stuck = stand_in(tmp_path / "ffmpeg", f'case "$*" in *-force_key*) {says};; esac\nexec ffmpeg "$@"')
    with pytest.raises(TryAgain, match="no progress"):
        await transcode(connection, replace(job, stall_s=0.8, programs=Programs(ffmpeg=stuck)))


async def test_a_job_that_takes_too_long_is_timed_out(connection: ssh.SshConnection, job: Job, tmp_path: Path) -> None:
    """By the clock since it was begun, also where it is taken up again."""
    endless = stand_in(tmp_path / "endless", 'case "$*" in *-force_key*) exec sleep 300;; esac\nexec ffmpeg "$@"')
    job = replace(job, begun_at=time.time(), limit_s=lambda _: 6.0, programs=Programs(ffmpeg=endless))
    with pytest.raises(Refuse, match="not done after 6 s in all") as raised:
        await transcode(connection, job)
    assert raised.value.code is TRANSCODE_TIMED_OUT
    with pytest.raises(Refuse, match="not done after 6 s in all"):
        await transcode(connection, job)
