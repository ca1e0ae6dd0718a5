"""A host of the tests: what is done to it and read from it is the same for a container and for a local folder."""

import json
import subprocess
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
_POST = (
    "import sys,urllib.request as u; print(u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode()), timeout=10).read())"
)


class Host(ABC):
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

    def printed(self, script: str, *words: str) -> Any:
        """The JSON that a script prints, which the host's Python reads from its standard input."""
        return json.loads(self.run([self.places.python, "-", *words], given=script.encode(), timeout_s=120).stdout)

    # -- as the old programs left it -------------------------------------------------------------------------------

    def reset(self) -> None:
        """Take away all but the staged releases, and lay out the old program with its data, at work."""
        self.settle()
        self._resets += 1
        # One number, which the names of faults leave out: they are the same in each lay-out.
        self.tag = f"{self.places.name}-{int(time.time())}{self._resets:04}"
        at = self.places
        self.ctl("stop", "all")
        gone = [at.code_dir, at.video_root, at.diary, *(at.root / one for one in ("current", "instances", "rollout"))]
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
        argv = ["pgrep", "-f", f"{self.places.root}.* rollout( |$)"]
        wait_until(
            lambda: not self.run(argv, check=False).stdout.strip(), timeout_s=120, description="no step is under way"
        )

    def learn(self) -> None:
        """Remember what the playbook wanted of the host, which stands in its backup, for `repeat_rollout`."""
        self._wanted = self.run(["sh", "-c", f"cat '{self.places.root}'/rollout/backups/*/wanted.json"]).stdout

    def repeat_rollout(self) -> None:
        """Roll out what was wanted before, by the commands that the playbook types: the playbook takes thrice as long.

        A streamer is new once it holds its lease, of which its rollback tells the teacher.
        """
        for step in ("backup", "open"):
            self.typed(step, check=True)
        self.speak(TASKS[self.places.role])
        if self.places.role == "streamer":
            self.typed("playout", check=True)
            wait_until(lambda: self.health().get("lease"), timeout_s=120, description="it holds its lease")

    def typed(self, step: str, *options: str, check: bool = False) -> None:
        """Type one command of the rollout, for what was wanted before."""
        assert self._wanted is not None, "no playbook has rolled the host out yet"
        lectern = f"{self.places.root}/releases/{json.loads(self._wanted)['version']}/venv/bin/lectern"
        self.run([lectern, "rollout", step, *options], given=self._wanted, check=check, timeout_s=300)

    def speak(self, tasks: Sequence[str]) -> None:
        """Ask the process that does the maintenance window for its *tasks*, as the playbook does, until one fails."""
        from playbooks.action_plugins.lectern_step import CLIENT  # it imports Ansible

        for task in tasks:
            argv = [self.places.python, "-c", CLIENT, f"{self.places.root}/rollout", task, "250"]
            answer = self.run(argv, check=False, timeout_s=300).stdout.strip()
            if not answer or json.loads(answer).get("failed"):
                break

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

    def health(self) -> Facts:
        """What it says of itself; nothing if nobody answers."""
        found: Facts = self.printed((HERE / "health.py").read_text(), str(self.places.port))
        return found

    def answer(self) -> str:
        """The version that answers now, with a remark if it is not ready; empty if none does."""
        found = self.health()
        return str(found.get("version", "")) + ("" if found.get("ready", True) else " not ready")

    def rows(self, sql: str) -> list[list[Any]]:
        """Rows of its database."""
        found: list[list[Any]] = self.printed(_ROWS, str(self.places.database), sql)
        return found

    def read(self, path: object) -> bytes:
        """A file's content."""
        return self.run(["cat", str(path)]).stdout

    def write_file(self, path: object, content: bytes) -> None:
        """Make a file, or replace what is in one; its folder must be there."""
        self.run(["sh", "-c", f"cat > '{path}'"], given=content)

    def keep_class(self, class_id: str, end_of_url: str, push_url: str, start: float, end: float) -> None:
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
        self.write_file(f"{folder}/lectern_fault.py", (HERE / "step_fault.py").read_bytes())
        self.write_file(f"{folder}/lectern_fault.pth", b"import lectern_fault\n")
        self.write_file(f"{folder}/lectern_fault.json", json.dumps({"step": step, **orders}).encode())

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
        found: Facts = self.printed((HERE / "snapshot.py").read_text(), json.dumps(wanted))
        return found


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
