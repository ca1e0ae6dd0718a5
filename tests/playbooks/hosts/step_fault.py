"""Test-only: kills a step of the rollout from inside, just before it does the n-th thing of a kind.

It is put into a staged release's environment, with a ``.pth`` file that imports it, and does nothing until the file
`lectern_fault.json` lies beside it. What a step does to the world is seen by an audit hook (files, processes,
databases), and if there is none, by wrapping the call (fsync, sending to a server).
"""

import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ORDERS = HERE / "lectern_fault.json"
_MADE = re.compile(r"[0-9a-f]{8,}|[0-9]{4,}|\.tmp\w*|tmp\w+")
IDLE = " changes nothing"
"""Behind a listed thing after which the host is as before: to be killed there is to be killed at the next thing."""
_WRITES = os.O_WRONLY | os.O_RDWR
_ASKS = [[word] for word in (b"CLIENT", b"EXISTS", b"HELLO", b"INFO", b"LRANGE", b"PING", b"SCAN", b"TYPE")]
"""Commands of Redis that change nothing there."""
_PATHS = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.truncate",
)


class Watch:
    """Counts what the step does from the moment it takes the rollout's lock."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self._orders = orders
        self._seen: Counter[str] = Counter()
        self._begun = False

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook; it must not raise."""
        if event == "open" and isinstance(args[0], (str, bytes)) and isinstance(args[2], int) and args[2] & _WRITES:
            path = os.fsdecode(args[0])
            self.point("open", path, idle=not args[2] & os.O_TRUNC and os.path.lexists(path))
        elif event in _PATHS:
            paths = [os.fsdecode(one) for one in args[:2] if isinstance(one, (str, bytes))]
            is_there = bool(paths) and os.path.lexists(paths[0])
            idle = (event == "os.mkdir" and is_there) or (event in ("os.remove", "os.rmdir") and not is_there)
            self.point(event, *paths, idle=idle)
        elif event in ("subprocess.Popen", "os.posix_spawn"):
            words = [Path(str(word)).name for word in list(args[1])[-3:]]
            self.point("process", " ".join(words), idle=words[-1] == "status")
        elif event == "sqlite3.connect":
            self.point(event, str(args[0]), idle="mode=ro" in str(args[0]))

    def point(self, kind: str, *details: str, idle: bool = False) -> None:
        """One thing that is about to be done; an *idle* one leaves the host as it is."""
        if not self._begun:
            self._begun = kind == "open" and details[0].endswith("/rollout/lock")
            return
        if self._orders.get("log") in details:
            return  # its own note of what it saw
        if any(one.startswith("/dev/") or "__pycache__" in one for one in details):
            return  # changes nothing, and how often it is done depends on how often something is waited for
        name = " ".join([kind, *(_MADE.sub("#", "/".join(one.split("/")[-2:])) for one in details)])
        self._seen[name] += 1
        key = f"{name} ({self._seen[name]})"
        if self._orders["mode"] == "list":
            descriptor = os.open(self._orders["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, (key + IDLE * idle + "\n").encode())
            os.close(descriptor)
        elif key == self._orders["at"]:
            self._kill()

    def _kill(self) -> None:
        ORDERS.unlink()  # that the order is gone proves that it was carried out
        if "controller" in self._orders:
            os.killpg(int(Path(self._orders["controller"]).read_text()), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def install() -> None:
    """Watch this process, if it is the step that is ordered."""
    words = sys.orig_argv
    if not ORDERS.exists() or "rollout" not in words:
        return
    orders = json.loads(ORDERS.read_text())
    step = next((one for one in orders["step"].split() if one in words), None)
    if step is None or "--check" in words:
        return
    watch = Watch({**orders, "log": f"{orders.get('log')}-{step}"})
    real_fsync, real_sendall = os.fsync, socket.socket.sendall

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        # A kill takes the process and not the machine: what is written is there, with or without it.
        watch.point("fsync", str(Path(f"/proc/self/fd/{number}").readlink()), idle=True)
        real_fsync(descriptor)

    def sendall(self: socket.socket, data: Any, *flags: int) -> None:
        words = bytes(data)[:40].split(b"\r\n")[2:3] if bytes(data)[:1] == b"*" else ["http"]
        watch.point("send", "http" if words == ["http"] else repr(words), idle=words in _ASKS)
        real_sendall(self, data, *flags)

    os.fsync = fsync  # type: ignore[assignment]  # called with a descriptor or a file, as it is
    socket.socket.sendall = sendall  # type: ignore[assignment, method-assign]  # the same
    sys.addaudithook(watch.hook)


install()
