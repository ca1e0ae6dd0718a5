"""What a job does on a host that lacks a program, has no room, stands still, or is too slow."""

import asyncio
import base64
import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import fastcrc
import pytest
from alibabacloud_oss_v2.signer.v4 import SignerV4  # type: ignore[import-untyped]
from alibabacloud_oss_v2.types import HttpRequest, SigningContext  # type: ignore[import-untyped]
from pydantic import SecretStr

from lectern.decide import transcoding as decide
from lectern.ecs import detached, ssh
from lectern.ecs import transcode as ecs_transcode
from lectern.ecs.transcode import Job, JobReport
from lectern.errors import NO_ECS_ROOM, UPLOAD_FAILED, CallAPerson, FallBack, Misuse, TryAgain
from lectern.settings import TeacherSettings
from lectern.states import Resolution
from lectern.storage import oss
from tests.answering import Answer, serving
from tests.effects.ecs.conftest import encoders, stand_in, transcode, under
from tests.stage import running_with
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("program", "step"), [("wget", "fetch"), ("ffprobe", "look"), ("curl", "look"), ("ffmpeg", "encode")]
)
async def test_a_missing_program_calls_a_person(
    connection: ssh.SshConnection, job: Job, program: str, step: str
) -> None:
    """What only the upload needs is missed before anything is encoded."""
    package = "ffmpeg" if program == "ffprobe" else program
    report = JobReport()
    says = rf"ssh://.*no-{program} cannot be run; type there: apt-get install {package}$"
    with pytest.raises(CallAPerson, match=says):
        await transcode(connection, under(job, **{f"ecs_{program}": f"no-{program}"}), report)
    assert report.step == step


@pytest.mark.parametrize(
    ("program", "exit_code", "why"),
    [
        ("wget", 3, "No space left on device"),
        ("ffmpeg", 1, "No space left on device"),
        ("ffmpeg", 1, "Disk quota exceeded"),
        ("ffmpeg", 1, "Read-only file system"),
    ],
)
async def test_a_disk_that_takes_nothing_is_fallen_back_from(
    connection: ssh.SshConnection, job: Job, tmp_path: Path, program: str, exit_code: int, why: str
) -> None:
    """A stand-in says what the program says then; where mounts are ours to make, the next claim fills a real one.

    The recording is not to blame: another host makes its renditions.
    """
    says = f"echo 'source: {why}' >&2; exit {exit_code}"
    full = stand_in(tmp_path / program, f'case "$*" in *-force_key*|*--input-file*) {says};; esac\nexec {program} "$@"')
    with pytest.raises(FallBack, match=why) as raised:
        await transcode(connection, under(job, **{f"ecs_{program}": full}))
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
        await transcode(
            connection, under(replace(job, wanted=(Resolution.P1080,)), ecs_work_root=str(small_disk / "work"))
        )
    assert raised.value.code is NO_ECS_ROOM


async def test_a_disk_on_which_no_step_can_begin_is_fallen_back_from(
    connection: ssh.SshConnection, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell ends there at the first file that it cannot make."""
    full = 'echo "sh: cannot create $2.lock: No space left on device" >&2; exit 2'
    monkeypatch.setattr(detached, "_RUN", full)
    with pytest.raises(FallBack, match="No space left") as raised:
        await transcode(connection, job)
    assert raised.value.code is NO_ECS_ROOM


@pytest.mark.parametrize("whom", ["ffmpeg", "all of it"])
async def test_a_killed_encoder_is_noticed(connection: ssh.SshConnection, slow_job: Job, whom: str) -> None:
    job = slow_job
    task = asyncio.create_task(transcode(connection, job))
    await async_wait_until(lambda: encoders(job), description="ffmpeg is at work there")
    if whom == "ffmpeg":
        os.kill(encoders(job)[0], signal.SIGKILL)
    else:
        os.killpg(int((Path(job.settings.ecs_work_root) / job.name / "encode.pid").read_text()), signal.SIGKILL)
    with pytest.raises(TryAgain, match=r"137|ended from outside"):
        await task


@pytest.mark.parametrize("at", ["/source", "/6666_240P.flv"], ids=["source", "rendition"])
async def test_a_killed_probe_says_nothing_of_the_recording(
    connection: ssh.SshConnection, job: Job, tmp_path: Path, at: str
) -> None:
    """A host that ran out of memory killed it: the classes would be refused for a recording that is good."""
    killed = stand_in(tmp_path / "ffprobe", f'case "$*" in *{at}) kill -KILL $$;; esac\nexec ffprobe "$@"')
    with pytest.raises(TryAgain, match="ffprobe was killed") as raised:
        await transcode(connection, under(job, ecs_ffprobe=killed))
    assert decide.is_of_host(raised.value)


KEY_ID, SECRET, REGION, BUCKET = "LTAI5tMadeUp", "made-up-secret-of-oss", "cn-hangzhou", "lessons-1"
DENIED = b"<Error><Code>SignatureDoesNotMatch</Code><Message>made up</Message><Signature>s3cr3t</Signature></Error>"


@dataclass
class Store:
    """A bucket: takes what is signed for it, and only that."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    command_lines: list[int] = field(default_factory=list)
    wrong_crc: bool = False


def signature(url: str, headers: dict[str, str]) -> str:
    """The V4 signature of a PUT of these *headers* to a signed URL."""
    url, _, _ = url.partition("&x-oss-signature=")
    date = dict(parse_qsl(urlsplit(url).query))["x-oss-date"]
    bucket, _, name = unquote(urlsplit(url).path)[1:].partition("/")
    request = HttpRequest("PUT", url, headers)
    asked = SigningContext("oss", REGION, bucket, name, request)
    signer, scope = SignerV4(), f"{date[:8]}/{REGION}/oss/aliyun_v4_request"
    to_sign = signer._calc_string_to_sign(date, scope, signer._calc_canonical_request(asked, set()))
    return str(signer._calc_signature(SECRET, date[:8], REGION, "oss", to_sign))


class _Bucket(Answer):
    store: Store

    def answer(self) -> None:
        store, parts = self.store, urlsplit(self.path)
        if self.command == "PUT":
            store.command_lines += running_with("x-oss-signature") + running_with(SECRET)
            body = self.sent()
            its = dict(parse_qsl(parts.query))["x-oss-signature"], self.headers["content-md5"]
            md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
            if its != (signature(store.url + self.path, dict(self.headers.items())), md5):
                self.say(403, body=DENIED)
                return
            store.objects[parts.path] = body
        if parts.path not in store.objects:
            self.say(404)
            return
        body = store.objects[parts.path]
        crc = fastcrc.crc64.xz(body) + (store.wrong_crc and self.command != "PUT")
        size = 0 if self.command == "PUT" else len(body)
        self.say(200, {"content-length": str(size), "x-oss-hash-crc64ecma": str(crc)})


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    with serving(_Bucket, store=made) as server:
        made.url = server.url
        yield made


def to(job: Job, store: Store, secret: str = SECRET) -> Job:
    """*job* for a bucket of *store*."""
    return under(
        job,
        upload_url=f"oss://{BUCKET}/lessons of 2026",
        public_url=f"{store.url}/{BUCKET}/lessons%20of%202026",
        oss_region=REGION,
        oss_endpoint=store.url,
        oss_access_key_id=SecretStr(KEY_ID),
        oss_access_key_secret=SecretStr(secret),
    )


@pytest.fixture
def job(job: Job, store: Store) -> Job:
    return to(job, store)


async def test_a_rendition_is_uploaded_by_a_signed_url(connection: ssh.SshConnection, job: Job, store: Store) -> None:
    """The key stays here; the signature is in no command line, and in no file that others could read."""
    try:
        made = (await ecs_transcode.transcode(connection, job, JobReport())).made
        folder = Path(job.settings.ecs_work_root) / job.name
        assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077} == set()
        assert not any(SECRET.encode() in path.read_bytes() for path in folder.iterdir())
        rendition = (folder / "6666_240P.flv").read_bytes()
    finally:
        await detached.leave(connection, job.settings.ecs_work_root, job.name)
    assert made == {Resolution.P240: f"{store.url}/{BUCKET}/lessons%20of%202026/6666/6666_240P.flv"}
    assert store.objects == {urlsplit(made[Resolution.P240]).path: rendition}
    assert store.command_lines == []
    assert SECRET not in repr(job)


async def test_a_wrong_key_is_told_in_the_stores_words_and_shows_no_signature(
    connection: ssh.SshConnection, job: Job, store: Store
) -> None:
    with pytest.raises(CallAPerson, match="403 SignatureDoesNotMatch: made up; are UPLOAD_URL") as raised:
        await transcode(connection, to(job, store, "another"))
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
    settings = TeacherSettings.model_construct(upload_url=put, public_url=public)
    with pytest.raises(Misuse, match=says) as raised:
        oss.check_upload(settings)
    assert "hidden" not in raised.value.message
