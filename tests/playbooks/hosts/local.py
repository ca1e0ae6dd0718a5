"""A host that is a folder of this machine: a real supervisord as an ordinary child, no Docker, no root."""

import asyncio
import getpass
import http.client
import shutil
import socket
import subprocess
import sys
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.parsers.expat import ExpatError

from lectern.playout.control_socket import asked
from tests.playbooks.hosts.controller import LEAVING
from tests.playbooks.hosts.host import HERE, Host
from tests.playbooks.hosts.places import Places
from tests.stage import Child, wait_until
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


def supervisord(base: Path, at: str, environment: Mapping[str, str]) -> Child:
    """A supervisord with the programs of ``conf.d`` in *base*; the path of its socket *at* must be short."""
    conf = base / "supervisord.conf"
    conf.write_text(_SUPERVISORD.format(base=base, socket=at))
    argv = [sys.executable, "-S", "-c", LEAVING, sys.executable, "-m", "supervisor.supervisord", "-c", str(conf)]
    return Child(argv, environment, base / "supervisord.out")


def states_at(path: str) -> dict[str, str]:
    """The programs of the supervisord at the socket *path* and their states; nothing while it does not answer.

    They are asked for in each wait, and `supervisorctl` takes a quarter of a second.
    """
    asked, server = xmlrpc.client.dumps((), "supervisor.getAllProcessInfo"), http.client.HTTPConnection("localhost")
    with socket.socket(socket.AF_UNIX) as server.sock:
        server.sock.settimeout(20)
        try:
            server.sock.connect(path)
            server.request("POST", "/RPC2", asked.encode(), {"Content-Type": "text/xml"})
            with closing(server.getresponse()) as answer:
                found: Any = xmlrpc.client.loads(answer.read())[0][0]
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError):
            return {}
    return {
        one["name"] if one["name"] == one["group"] else f"{one['group']}:{one['name']}": one["statename"]
        for one in found
    }


class LocalHost(Host):
    """Everything in *folder*, whose path must be short: a unix socket lies in it."""

    def __init__(
        self,
        folder: Path,
        name: str,
        role: Literal["teacher", "streamer"],
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
        self._supervisord = supervisord(Path(base), f"{base}/s.sock", environment)
        self._playout: Child | None = None
        if role == "streamer":  # provisioned, and no program of supervisord: no stop and no reload reaches it
            self.playout_dir.mkdir()
            argv = playout.argv(self.playout_dir, self.playout_dir / "playout.sock")
            self._playout = Child(argv, environment, Path(base / "playout.out"))
        wait_until(lambda: self.ctl("pid").strip().isdigit(), description=f"the supervisord of {name} answers")

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
        """As supervisord says by its socket: to ask `supervisorctl` takes a quarter of a second."""
        return states_at(f"{self.places.base}/s.sock")

    def script(self, name: str) -> str:
        return str(HERE / name)

    def close(self) -> None:
        """End supervisord, which ends its programs, and clear the folder."""
        self.settle()
        self._supervisord.end()
        if self._playout is not None:
            self._playout.end()
        shutil.rmtree(self.places.base)
