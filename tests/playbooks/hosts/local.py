"""A host that is a folder of this machine: a real supervisord as an ordinary child, no Docker, no root."""

import asyncio
import fcntl
import getpass
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers.expat import ExpatError

import httpx

from lectern.playout.control_socket import asked
from tests.playbooks.hosts.controller import LEAVING
from tests.playbooks.hosts.host import Facts, Host
from tests.playbooks.hosts.places import Places, Role
from tests.playbooks.small_release import Small, answer
from tests.stage import Child, wait_until
from tests.stage.children import UP_S
from town import playout
from town.ports import free_port

_SUPERVISORD = """\
[unix_http_server]
file={socket}
[supervisord]
nodaemon=true
logfile={base}/supervisord.log
pidfile={base}/supervisord.pid
childlogdir={base}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{socket}
[include]
files={base}/conf.d/*.conf
"""


def staged(file: Path) -> Path:
    """The release *file*, staged beside it by what the playbook sends to a host, for whoever asks first."""
    small, root = Small.of(file), file.parent / "staged"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        into = root / "releases" / small.version
        if not (into / ".complete").exists():
            into.parent.mkdir(exist_ok=True)
            arrived = root / file.name
            arrived.unlink(missing_ok=True)
            arrived.hardlink_to(file)  # it is removed when it has been unpacked
            answer("stage", small.asked(root, tarball=str(arrived)), timeout_s=UP_S)
    return into


class LocalHost(Host):
    """Everything is in *folder*, but the socket of its supervisord, whose path must be short."""

    def __init__(
        self,
        folder: Path,
        name: str,
        role: Role,
        redis_url: str,
        recording: Path,
        environment: dict[str, str],
        wget: str = "/usr/bin/wget",
    ) -> None:
        base = PurePosixPath(folder / name)
        places = Places(
            name=name,
            role=role,
            user=getpass.getuser(),
            base=base,
            code_dir=base / ("firstleaprecord/code" if role == "streamer" else "virtual-teacher"),
            programs_dir=base / "conf.d",
            root=base / "lectern",
            video_root=base / "video",
            port=free_port(),
            python=sys.executable,
            supervisorctl=(sys.executable, "-m", "supervisor.supervisorctl", "-c", str(base / "supervisord.conf")),
            redis_url=redis_url,
            wget=wget,
        )
        super().__init__(places, recording)
        self.environment = environment
        Path(places.programs_dir).mkdir(parents=True)
        self.short = Path(tempfile.mkdtemp(prefix="sv", dir="/tmp"))
        self.supervisord: Child | None = None
        self._playout: Child | None = None

    def start(self) -> None:
        """Its supervisord, and a streamer's playout."""
        self._start_supervisord()
        if self.places.role == "streamer":  # provisioned, and no program of supervisord: no stop or reload reaches it
            self.playout_dir.mkdir()
            argv = playout.argv(self.playout_dir, self.playout_dir / "playout.sock")
            self._playout = Child(argv, self.environment, Path(self.places.base / "playout.out"))
        wait_until(lambda: self.ctl("pid").strip().isdigit(), description=f"{self.places.name}'s supervisord answers")

    def _start_supervisord(self) -> None:
        """With the programs of ``conf.d``."""
        base = Path(self.places.base)
        conf = base / "supervisord.conf"
        conf.write_text(_SUPERVISORD.format(base=base, socket=f"{self.short}/s"))
        argv = [sys.executable, "-S", "-c", LEAVING, sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]
        self.supervisord = Child(argv, self.environment, base / "supervisord.out")

    def lay(self, staged: Path) -> None:
        """Lay a release where `prepare` does: hard links to one that is *staged*, and its own programs."""
        into = Path(self.places.root) / "releases" / staged.name
        shutil.copytree(staged, into, symlinks=True, copy_function=os.link)
        for program in (into / "venv/bin").iterdir():
            text = "" if program.is_symlink() else program.read_text()
            if str(staged) in text:
                program.unlink()  # the link: what was staged stays as it is
                program.write_text(text.replace(str(staged), str(into)))
                program.chmod(0o755)

    def reset(self) -> None:
        """Also without the link of `air_from_the_release`; that of a provisioned host stays, as its playout does."""
        (Path(self.places.root) / "playout").unlink(missing_ok=True)
        super().reset()

    @property
    def playout_dir(self) -> Path:
        """Where a streamer's playout has its files and its socket."""
        return Path(self.places.base / "playout")

    def air_from_the_release(self) -> None:
        """Let the playout be started out of a link of its own, as `provision` makes it and its unit starts it."""
        assert self._playout is not None
        self._playout.end()
        root = Path(self.places.root)
        (root / "playout").symlink_to(f"releases/{(root / 'current/venv').resolve().parent.name}")
        venv = root / "playout/venv"
        (program,) = venv.glob("lib/python3*/site-packages/lectern/playout/__main__.py")
        argv = [str(venv / "bin/python"), "-I", "-S", str(program), "holder", "--dir", str(self.playout_dir)]
        argv += ["--socket", str(self.playout_dir / "playout.sock")]
        self._playout = Child(argv, self.environment, Path(self.places.base / "playout.out"))

    def airs_with(self) -> str:
        """The release of the playout's worker."""
        return str(asyncio.run(asked(self.playout_dir / "playout.sock", "hello"))["release"])

    def end_lease(self) -> None:
        """Let the playout's lease be over: one of before a reset lasts on, and a new program takes it for its own."""
        with socket.socket(socket.AF_UNIX) as holder:
            holder.connect(str(self.playout_dir / "lease.sock"))
            holder.sendall(b'{"until": 0}\n')
            assert b'"ok": true' in holder.recv(4096)

    def run(
        self, argv: Sequence[str], *, given: bytes = b"", check: bool = True, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[bytes]":
        """As a child of the tests."""
        found = subprocess.run(
            argv, input=given, capture_output=True, timeout=timeout_s, check=False, env=self.environment, cwd="/"
        )
        assert found.returncode == 0 or not check, f"{argv}: {found.returncode}\n{found.stdout!r}\n{found.stderr!r}"
        return found

    def states(self) -> dict[str, str]:
        """As supervisord says by its socket, nothing while it does not: `supervisorctl` takes a quarter of a second."""
        query, server = xmlrpc.client.dumps((), "supervisor.getAllProcessInfo"), http.client.HTTPConnection("localhost")
        with socket.socket(socket.AF_UNIX) as server.sock:
            server.sock.settimeout(20)
            try:
                server.sock.connect(f"{self.short}/s")
                server.request("POST", "/RPC2", query.encode(), {"Content-Type": "text/xml"})
                with closing(server.getresponse()) as answer:
                    found: Any = xmlrpc.client.loads(answer.read())[0][0]
            except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError):
                return {}
        return {
            one["name"] if one["name"] == one["group"] else f"{one['group']}:{one['name']}": one["statename"]
            for one in found
        }

    def health(self) -> Facts:
        """Asked from here: to start a Python there takes a tenth of a second."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.places.port}/health", timeout=20, trust_env=False)
            found: Facts = answer.json()
        except (httpx.HTTPError, ValueError):
            return {}  # nobody answers
        return found

    def close(self) -> None:
        """End supervisord, which ends its programs, and clear the folder."""
        self.settle()
        for child in (self.supervisord, self._playout):
            if child is not None:
                child.end()
        shutil.rmtree(self.places.base)
        shutil.rmtree(self.short)
