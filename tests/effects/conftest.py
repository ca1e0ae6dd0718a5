"""Real things to play against: recordings, an origin that can misbehave, an sshd on loopback."""

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import psutil
import pytest
from sqlalchemy import Engine

from lectern.ecs import ssh
from tests import laid, marks
from tests.answering import Answer, serving
from tests.effects.redis_servers import bus_of_a_test, empty_redis, redis_of_a_module
from tests.waiting import wait_until
from town.ports import free_port

__all__ = ["bus_of_a_test", "empty_redis", "redis_of_a_module"]

SSHD = Path("/usr/sbin/sshd")
FAMILY = 'sleep 300 & echo "$$ $!"; wait'
"""A program with a child; says the ids of both."""
STUBBORN = "trap '' TERM; " + FAMILY


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ended(pids: Iterable[int]) -> bool:
    """Whether all of them end now: one that was killed is there until it had its turn on a processor to die."""
    ids = list(pids)
    return ids != [] and wait_until(
        lambda: not any(alive(pid) for pid in ids), timeout_s=10, description=f"{ids} have ended"
    )


def shape(path: Path) -> tuple[int, int, list[str]]:
    """Width and height of the pictures, and the codecs of the sound."""
    with av.open(str(path)) as container:
        (picture,), sounds = container.streams.video, container.streams.audio
        return picture.width, picture.height, [sound.codec_context.name for sound in sounds]


def make_recording(
    path: Path, *options: str, video: bool = True, audio: bool = True, seconds: int = 4, container: str = "flv"
) -> Path:
    argv = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
    argv += ["-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=25:duration={seconds}"] if video else []
    argv += ["-f", "lavfi", "-i", f"sine=duration={seconds}"] if audio else []
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50"] if video else []
    argv += ["-c:a", "aac"] if audio else []
    subprocess.run([*argv, *options, "-f", container, str(path)], check=True, timeout=60)
    return path


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s, 640x360, h264 and aac; its name needs quotes everywhere."""
    return make_recording(tmp_path_factory.mktemp("recordings") / 'it\'s a "lesson" -1.flv')


@dataclass
class Origin:
    """Serves *files* with ranges and ETags, takes PUTs, and answers *statuses* where told to."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    cut_at: dict[str, int] = field(default_factory=dict)
    slow_s: float = 0.0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)  # by which name it was asked

    def took(self, method: str, path: str) -> int:
        return sum(1 for asked in self.asked if asked[:2] == (method, path))


class _Origin(Answer):
    origin: Origin

    def answer(self) -> None:
        if self.command == "POST":
            self.origin.posted.append(self.sent())
            self._plain(self._status() or 200)
            return
        self._note()
        status = self._status()
        if self.command != "PUT":
            self._serve(status)
            return
        body = self.sent()
        if status is None:
            self.origin.files[self.path] = body
        self._plain(status or 201)

    def _note(self) -> None:
        self.origin.asked.append((self.command, self.path, self.headers.get("range", "")))
        self.origin.hosts.append(self.headers.get("host", ""))

    def _status(self) -> int | None:
        """The next of the answers that were ordered for this path; the last one stays."""
        ordered = self.origin.statuses.get(self.path, [])
        status = ordered.pop(0) if len(ordered) > 1 else (ordered or [0])[0]
        return status or None

    def _plain(self, status: int) -> None:
        self.say(status, body=f"answer {status}".encode())

    def _serve(self, status: int | None) -> None:
        body = self.origin.files.get(self.path)
        if self.path in self.origin.redirects:
            self.say(302, {"location": self.origin.redirects[self.path]})
        elif status is not None or body is None:
            self._plain(status or 404)
        else:
            self._file(body)

    def _file(self, body: bytes) -> None:
        start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start >= len(body) and start:
            self._plain(416)
            return
        headers = {"content-length": str(len(body) - start), "etag": f'"{hashlib.md5(body).hexdigest()}"'}
        headers["content-range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.say(206 if "range" in self.headers else 200, headers | self.origin.headers.get(self.path, {}))
        data = b"" if self.command == "HEAD" else body[start : self.origin.cut_at.get(self.path)]
        with suppress(BrokenPipeError, ConnectionResetError):  # that the reader is ended is what many claims are about
            for begin in range(0, len(data), 65536):
                self.wfile.write(data[begin : begin + 65536])
                time.sleep(self.origin.slow_s)


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin()
    with serving(_Origin, origin=made) as server:
        made.url = server.url
        yield made


@dataclass(frozen=True)
class Sshd:
    """An sshd on loopback, with the files a client needs."""

    url: str
    port: int
    key: Path
    known_hosts: Path
    folder: Path


def login(sshd: Sshd, **other: Path) -> AbstractAsyncContextManager[ssh.SshConnection]:
    """A connection to *sshd*, with its own key and known hosts or *other* ones."""
    files = {"key": sshd.key, "known_hosts": sshd.known_hosts, **other}
    return ssh.connect(ssh.SshHost.parse(sshd.url), files["key"], files["known_hosts"], timeout_s=10)


def make_key(path: Path, kind: Sequence[str] = ("-t", "ed25519"), passphrase: str = "") -> str:
    argv = ["ssh-keygen", "-q", *kind, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=30)
    return path.with_suffix(".pub").read_text()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    marks.starts("sshd")
    if not SSHD.exists() or shutil.which("ssh-keygen") is None:
        pytest.skip("no /usr/sbin/sshd, or no ssh-keygen: apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    port = free_port()
    host_key = make_key(folder / "host")
    (folder / "authorized").write_text(make_key(folder / "client"))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
        "MaxStartups": "100",
        # Of no interest is what this user's shell does first; the programs are those that the tests see.
        "SetEnv": f"HOME={folder} PATH={os.environ['PATH']}",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    # Otherwise whoever comes after a key that was refused is kept out for a while; older ones do not know of it.
    argv: list[str | Path] = [SSHD, "-f", folder / "config", "-o", "PerSourcePenalties=no"]
    is_known = subprocess.run([*argv, "-t"], capture_output=True, timeout=30, check=False).returncode == 0
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*(argv if is_known else argv[:3]), "-D", "-e"], stderr=log, stdout=log)
        try:
            wait_until(lambda: _listens(port), description=f"sshd listens: {(folder / 'log').read_text()}")
            user = psutil.Process().username()
            yield Sshd(f"ssh://{user}@127.0.0.1:{port}", port, folder / "client", folder / "known_hosts", folder)
        finally:
            server.terminate()
            server.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as wire:
        return wire.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def streamer_engine(tmp_path: Path) -> Iterator[Engine]:
    """A streamer's database with all its tables."""
    engine = laid.opened("streamer", tmp_path / "task_list.db")
    yield engine
    engine.dispose()
