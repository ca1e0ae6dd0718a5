"""A host of the tests: what is done to it and read from it is the same for a container and for a local folder."""

import json
import subprocess
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.rollout.steps import TASKS
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.places import Places
from tests.stage import wait_until

HERE = Path(__file__).parent
Facts = dict[str, Any]
_ROWS = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20)
connection.execute("PRAGMA query_only = ON")
print(json.dumps(connection.execute(sys.argv[2]).fetchall()))
"""
_ALTER = "import json, sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=20);"
_ALTER += "c.execute(sys.argv[2], json.loads(sys.argv[3])); c.commit()"
_POST = (
    "import sys,urllib.request as u; print(u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode()), timeout=10).read())"
)
_LEASED = """
import json, sys, time, urllib.error, urllib.request
def leased():
    try:
        answer = urllib.request.urlopen(sys.argv[1], timeout=5)
    except urllib.error.HTTPError as error:  # 503 while it is not ready
        answer = error
    except OSError:
        return False
    return json.load(answer).get("lease")
until = time.monotonic() + 120
while not leased():
    assert time.monotonic() < until, "it holds no lease"
    time.sleep(0.2)
"""
_SPEAK = """
import json, os, socket, sys
os.chdir(sys.argv[1])
for task in sys.argv[2:]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(250)
        try:
            connection.connect("holder.sock")
            connection.sendall(json.dumps({"task": task}).encode() + b"\\n")
            told = connection.makefile().readline()
        except OSError:
            break
    if not told or json.loads(told).get("failed"):
        break
"""
_STEPS = "import os,sys;[print(n) for n in os.listdir('/proc') if n.isdigit() and n != str(os.getpid()) and "
_STEPS += (
    "(lambda w: sys.argv[1].encode() in w and b'rollout' in w.split(b'\\0'))(open(f'/proc/{n}/cmdline','rb').read()"
)
_STEPS += " if os.path.exists(f'/proc/{n}/cmdline') else b'')]"


@dataclass(frozen=True)
class Change:
    """The page's answer became *answer* at *at*; until *before* it had been another one."""

    answer: str
    at: float
    before: float


class Host(ABC):
    """One host, reset as often as wanted."""

    def __init__(self, places: Places, recording: Path) -> None:
        self.places = places
        self.tag = "0"
        self._recording = recording
        self._wanted: bytes | None = None
        self._resets = 0

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, given: bytes = b"", check: bool = True, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a command there, as who may do everything there."""

    @abstractmethod
    def begin_probe(self, log: str) -> None:
        """Start `probe.py`, which writes to the file *log* of the host, until `end_probe`."""

    @abstractmethod
    def end_probe(self) -> None:
        """End it."""

    # -- as the old programs left it -------------------------------------------------------------------------------

    def reset(self, *, keep_release: bool = True) -> None:
        """Take away everything, and lay out the old program with its data; it runs when this returns."""
        self.settle()
        self._resets += 1
        # One number, which the names of faults leave out: they are the same in each lay-out.
        self.tag = f"{self.places.name}-{int(time.time())}{self._resets:04}"
        at = self.places
        self.ctl("stop", "all")
        gone = [at.code_dir, at.video_root, at.diary, *(at.root / one for one in ("current", "instances", "rollout"))]
        gone += [] if keep_release else [at.root]
        quoted = " ".join(f"'{path}'" for path in gone)
        self.run(["sh", "-c", f"rm -rf {quoted} '{at.programs_dir}'/*.conf"])
        with tempfile.TemporaryDirectory() as folder:
            old_world.lay_out(at, Path(folder), self._recording, tag=self.tag)
            self.put(Path(folder))
        self.run(self.places.supervisorctl, given=b"update\nstart all\nstop cleaner\n", check=False)
        wait_until(lambda: not {"STARTING", "BACKOFF"} & {*self.states().values()}, description="all of them run")
        wait_until(lambda: self.answer() == at.old_version, description=f"the old program of {at.name} answers")

    def settle(self) -> None:
        """Wait until no step of a rollout is under way: one can outlive the controller that began it."""
        argv = [self.places.python, "-c", _STEPS, str(self.places.root)]
        wait_until(
            lambda: not self.run(argv, check=False).stdout.strip(), timeout_s=120, description="no step is under way"
        )

    def learn(self) -> None:
        """Remember what the playbook wanted of the host, which stands in its backup, for `roll_out`."""
        self._wanted = self.run(["sh", "-c", f"cat '{self.places.root}'/rollout/backups/*/wanted.json"]).stdout

    def roll_out(self) -> None:
        """Roll out what was wanted before, by the commands that the playbook types: the playbook takes thrice as long.

        A streamer is new once it holds its lease, of which its rollback tells the teacher.
        """
        for step in ("backup", "open"):
            self.step(step, check=True)
        self.speak(TASKS[self.places.role])
        if self.places.role == "streamer":
            self.step("playout", check=True)
            self.run([self.places.python, "-c", _LEASED, self._learned()["health_url"]], timeout_s=150)

    def step(self, step: str, *options: str, check: bool = False) -> None:
        """Type one command of the rollout, for what was wanted before."""
        lectern = f"{self.places.root}/releases/{self._learned()['version']}/venv/bin/lectern"
        self.run([lectern, "rollout", step, *options], given=self._wanted or b"", check=check, timeout_s=300)

    def speak(self, tasks: Sequence[str]) -> None:
        """Ask the process that does the maintenance window for its *tasks*, as the playbook does, until one fails."""
        argv = [self.places.python, "-c", _SPEAK, f"{self.places.root}/rollout", *tasks]
        self.run(argv, timeout_s=300)

    def _learned(self) -> dict[str, Any]:
        assert self._wanted is not None, "no playbook has rolled the host out yet"
        found: dict[str, Any] = json.loads(self._wanted)
        return found

    def put(self, tree: Path) -> None:
        """Lay all files of *tree* over the host's ``/``, the old program's folder for its user."""
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(tree, arcname=".", filter=self._packed)
            packed.seek(0)
            self.run(["tar", "-C", "/", "--no-overwrite-dir", "-xpf", "-"], given=packed.read())

    def _packed(self, entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = f"/{entry.name}".replace("/./", "/")
        own = any(path.startswith(str(one)) for one in (self.places.code_dir, self.places.video_root, self.places.base))
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = self.places.user if own else "root"
        if path.endswith("/.env"):
            entry.mode = 0o640
        return entry

    # -- what can be seen ------------------------------------------------------------------------------------------

    def ctl(self, *words: str) -> str:
        """What supervisorctl says; its exit status says little."""
        found = self.run([*self.places.supervisorctl, *words], check=False)
        return (found.stdout + found.stderr).decode()

    def states(self) -> dict[str, str]:
        """The programs and their states."""
        lines = [line.split() for line in self.ctl("status").splitlines()]
        return {words[0]: words[1] for words in lines if len(words) > 1 and words[1].isupper()}

    def answer(self) -> str:
        """The version that answers now, with a remark if it is not ready; empty if none does."""
        at = self.places
        look = f"import sys; sys.path.insert(0, {self.script('')!r}); import probe; "
        look += f"print(probe.asked('127.0.0.1', {at.port}, '/health', timeout_s=20))"
        return self.run([at.python, "-c", look]).stdout.decode().strip()

    @abstractmethod
    def script(self, name: str) -> str:
        """Where a script of `hosts/` is on the host."""

    def rows(self, sql: str) -> list[list[Any]]:
        """Rows of its database."""
        argv = [self.places.python, "-c", _ROWS, str(self.places.database), sql]
        found: list[list[Any]] = json.loads(self.run(argv).stdout)
        return found

    def alter(self, statement: str, *values: object) -> None:
        """Change its database, beside the program that works in it."""
        argv = [self.places.python, "-c", _ALTER, str(self.places.database), statement, json.dumps(values)]
        self.run(argv)

    def read(self, path: object) -> bytes:
        """A file's content."""
        return self.run(["cat", str(path)]).stdout

    def write(self, path: object, content: bytes) -> None:
        """Make a file, or replace what is in one; its folder must be there."""
        self.run(["sh", "-c", f"cat > '{path}'"], given=content)

    def book(self, class_id: str, end_of_url: str, push_url: str, start: float, end: float) -> None:
        """Have the old streamer keep a class, as its teacher does."""
        url = f"http://origin.example/{end_of_url}"
        task = {"cmd": "order", "class_id": class_id, "video_url": url, "push_url": push_url}
        body = json.dumps({**task, "start_time": int(start), "end_time": int(end)})
        argv = [self.places.python, "-c", _POST, f"http://127.0.0.1:{self.places.port}/", body]
        self.run(argv)

    # -- faults inside a step of the rollout -----------------------------------------------------------------------

    def arm(self, step: str, *, release: str = "*", **orders: str) -> None:
        """Have the next *step* on this host killed, or each of several listed, as `step_fault.py` reads its *orders*.

        Where several releases are staged, it is that of *release*.
        """
        folder = self._packages(release)
        self.write(f"{folder}/lectern_fault.py", (HERE / "step_fault.py").read_bytes())
        self.write(f"{folder}/lectern_fault.pth", b"import lectern_fault\n")
        self.write(f"{folder}/lectern_fault.json", json.dumps({"step": step, **orders}).encode())

    def disarm(self, *, release: str = "*") -> bool:
        """Take the orders back; whether they had been carried out."""
        orders = f"{self._packages(release)}/lectern_fault.json"
        return self.run(["rm", orders], check=False).returncode != 0

    def _packages(self, release: str) -> str:
        found = self.run(["sh", "-c", f"echo {self.places.root}/releases/{release}/venv/lib/python3*/site-packages"])
        return found.stdout.decode().strip()

    # -- what was lost and what has changed ------------------------------------------------------------------------

    def lost(self) -> list[str]:
        """Rows of which the old program wrote in its diary that they are safe, and which are not there."""
        noted = self.run(["sh", "-c", f"cat '{self.places.diary}' 2>/dev/null || true"]).stdout.decode().split()
        there = {row[0] for row in self.rows("SELECT class_id FROM task_list")}
        return [one for one in noted if one not in there]

    def snapshot(self, *, root: bool = True) -> Facts:
        """All that must be byte for byte the same; without *root* not what the release lies in."""
        at = self.places
        trees = [at.code_dir, at.programs_dir, at.video_root, *([at.root] if root else [])]
        wanted = {
            "trees": [str(one) for one in trees],
            "databases": [str(at.database)],
            "leave_out": r"/__pycache__$|\.db(-wal|-shm|-journal)?$|/releases/[^/]+/venv/|\.log$|/\.cache$",
        }
        found = self.run([at.python, self.script("snapshot.py")], given=json.dumps(wanted).encode(), timeout_s=120)
        facts: Facts = json.loads(found.stdout)
        return facts

    @contextmanager
    def probed(self) -> Iterator[list[Change]]:
        """Ask for the version every 20 ms; the list is filled at the end."""
        log = f"{self.places.base}/probe-{time.monotonic_ns()}"
        changes: list[Change] = []
        self.begin_probe(log)
        try:
            wait_until(lambda: self.run(["cat", log], check=False).stdout, description="the probe has its first answer")
            yield changes
        finally:
            self.end_probe()
            changes += [Change(**json.loads(line)) for line in self.read(log).splitlines()]
            self.run(["rm", "-f", log])


def downtime_s(changes: Sequence[Change], version: str) -> float:
    """From the last answer of what ran before to the first one of *version*, ready."""
    new = next(number for number, one in enumerate(changes) if number and one.answer == version)
    fell = next(one for one in changes[1 : new + 1] if one.answer != changes[0].answer)
    return changes[new].at - fell.before


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """Where two snapshots are not the same, one line each."""
    found: list[str] = []
    for key in sorted({*before, *after}):
        was, now = before.get(key), after.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{path}{key} ")
        elif was != now:
            found.append(f"{path}{key}: {str(was)[:300]} -> {str(now)[:300]}")
    return found
