"""A host of this machine on which the steps of a rollout are typed one by one, with a stand-in for the new program."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from lectern.rollout.journal import History, RolloutJournal
from lectern.rollout.spec import Spec
from tests.playbooks.here import program
from tests.playbooks.hosts import old_world
from tests.playbooks.hosts.host import differences
from tests.playbooks.hosts.local import LocalHost
from tests.playbooks.hosts.old.streamer.code.model import TASK_LIST
from tests.playbooks.hosts.places import Role
from tests.playbooks.hosts.snapshot import entry
from tests.rollout.steps import Answered, Fields, Step
from tests.stage import wait_until

HERE, ROOT = Path(__file__).parent, Path("/")
DOCUMENTED = {"wget_path": "/usr/bin/wget", "DOWNLOAD_RATE": "1000k", "MAX_VIDEO_NUM": "1000", "MAX_VIDEO_SIZE": "1000"}
QUICK = {"startsecs": "0", "stopwaitsecs": "5", "redirect_stderr": "false"}
"""Lines of the supervisor files here."""

NOTES = 20
"""Number of lines that a window writes, of a streamer and of a teacher."""

KILL = """
import os, signal
from lectern.rollout.journal import RolloutJournal
calls, real = [0], RolloutJournal.note
def note(self, id_, step, state, detail=None):
    calls[0] += 1
    last = calls[0] == {number}
    if last and state == "done":
        os.kill(os.getpid(), signal.SIGKILL)  # the work is done, and the line that says so is missing
    real(self, id_, step, state, detail)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)  # the line says that it is begun, and nothing is done
RolloutJournal.note = note
"""


class Host(LocalHost):
    """The old program with one class that is over, and a staged release."""

    def __init__(self, folder: Path, role: Role = "streamer") -> None:
        old_redis, no_recording = "redis://:hidden@127.0.0.1:1/0", Path(os.devnull)
        super().__init__(folder, f"{role}1", role, old_redis, no_recording, dict(os.environ))
        at = self.places
        self.role, self.folder, self.root, self.code = role, Path(at.base), Path(at.root), Path(at.code_dir)
        self.programs, self.database = Path(at.programs_dir), Path(at.database)
        self.supervisorctl = [*at.supervisorctl]
        self.before: Mapping[str, object] = {}
        self._steps: list[Step] = []
        old_world.lay_out_program(at, ROOT, **QUICK)
        if role == "streamer":
            self.write(TASK_LIST)
            row = ("c-1", "http://o/6666.flv", "rtmp://a/b", 1, 2, 2, "Li")
            self.write("INSERT INTO task_list VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
        self.stage_release("2.0.0")

    def write_program(self, name: str, command: str, **options: str) -> None:
        """One of the old supervisor files."""
        old_world.write_program(self.places, ROOT, name, command, **{**QUICK, **options})

    def stage_release(self, version: str) -> None:
        """A complete release whose `lectern` is the stand-in."""
        release = self.root / "releases" / version
        program(release / "venv/bin/lectern", f"#!{sys.executable} -S\n{(HERE / 'new_program.py').read_text()}")
        manifest = json.dumps({"version": version})
        (release / "manifest.json").write_text(manifest)
        (release / ".complete").write_text(hashlib.sha256(manifest.encode()).hexdigest())

    # -- what is wanted -------------------------------------------------------------------------------------------

    def wanted(self, settings: Mapping[str, str] = {}, /, **other: Any) -> Fields:
        """What the playbook would send, with these *settings* and *other* fields."""
        at, bind = self.places, f"127.0.0.1:{self.places.port}"
        command = f"{sys.executable} -S {self.root}/current/venv/bin/lectern serve {self.role}"
        env = {
            "streamer": {"STREAMER_NAME": at.name, "HEALTH_BIND": bind, **DOCUMENTED},
            "teacher": {"TEACHER_NAME": at.name, "API_BIND": bind, "TRANSCODE_SIGN_KEY": "made-up secret"},
        }[self.role]
        fields: Fields = {
            "role": self.role,
            "name": at.name,
            "version": "2.0.0",
            "root": str(at.root),
            "code_dir": str(at.code_dir),
            "programs_dir": str(at.programs_dir),
            "user": at.user,
            "supervisorctl": self.supervisorctl,
            "program": at.program,
            "program_conf": f"[program:{at.program}]\ncommand={command}\ndirectory={self.code}\nstartsecs=0\n",
            "old_programs": [at.old_conf.name],
            "env": {**env, **settings},
            "database": str(at.database),
            "video_root": str(at.video_root) if self.role == "streamer" else None,
            "redis_url": "redis://127.0.0.1:1/0",
            "prefect_api_url": "http://127.0.0.1:1/api",
            "health_url": f"http://{bind}/health",
            "health_timeout_s": 15,
        }
        if self.role == "teacher":
            fields["config_file"] = "config/default.json"
            fields["config"] = {"order_warn_time_out": 86400000, "transcoding_time_out": 120000}
        return {**fields, **other}

    def parsed(self, settings: Mapping[str, str] = {}, /, **other: Any) -> Spec:
        return Spec.parse(json.dumps(self.wanted(settings, **other)))

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start supervisord alone, and wait until the old program is at work."""
        self._start_supervisord()
        self._works()
        self.before = self.tree()

    def _works(self) -> None:
        """Wait until the old program answers, and a streamer's goes on writing."""
        number = len(self.acknowledged())
        wait_until(lambda: self.answer() == self.places.old_version, description="the old program answers")
        if self.role == "streamer":
            wait_until(lambda: len(self.acknowledged()) > number, description="the old program writes")

    def close(self) -> None:
        for step in self._steps:
            step.end()
        if self.supervisord is not None:  # it and its programs are killed: to end takes a second, and is no claim here
            programs = psutil.Process(self.supervisord.pid).children(recursive=True)
            self.supervisord.kill()
            for one in programs:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        shutil.rmtree(self.short)

    def begin(self, step: str, *options: str, wanted: Fields | None = None, fault: str = "") -> Step:
        """Begin `lectern rollout STEP`."""
        text = json.dumps(self.wanted() if wanted is None else wanted)
        self._steps.append(Step([step, *options], text, fault, self.folder / f"step{len(self._steps)}"))
        return self._steps[-1]

    def step(self, step: str, *options: str, wanted: Fields | None = None, fault: str = "") -> Answered:
        """`lectern rollout STEP`, with a *fault* put into the process before it begins."""
        return self.begin(step, *options, wanted=wanted, fault=fault).answered()

    def fails(self, step: str, *options: str, wanted: Fields | None = None, fault: str = "", code: int = 1) -> str:
        """Why a step fails that must."""
        answered = self.step(step, *options, wanted=wanted, fault=fault)
        assert answered.code == code, answered
        return answered.msg

    def refuses(self, step: str, *options: str, wanted: Fields | None = None) -> list[str]:
        """What a step that only looks finds wrong, in sentences; no secret is in them."""
        answered = self.step(step, *options, wanted=wanted)
        assert (answered.code, answered.fields["failed"], answered.fields["changed"]) == (1, True, False), answered
        said: list[str] = answered.fields["said"]
        assert all(one in answered.msg for one in said)
        assert "hidden" not in json.dumps(answered.fields) + answered.errors
        return said

    def killed(self, step: str, number: int, wanted: Fields | None = None) -> None:
        """A step that is killed at the line *number* of its journal."""
        self.fails(step, wanted=wanted, fault=KILL.format(number=number), code=-signal.SIGKILL)

    def dies(self, step: str, place: str, wanted: Fields | None = None) -> None:
        """A step that dies where it would call *place* of `lectern.rollout`."""
        fault = f"import os\nfrom lectern.rollout import {place.partition('.')[0]}\n"
        fault += f"{place} = lambda *_: os.kill(os.getpid(), 9)\n"
        self.fails(step, wanted=wanted, fault=fault, code=-signal.SIGKILL)

    def history(self) -> History:
        """The rollouts that stand on this host."""
        return RolloutJournal.of(self.parsed()).history()

    def done(self, step: str, *options: str, wanted: Fields | None = None, fault: str = "") -> Fields:
        """The answer of a step that must succeed."""
        answered = self.step(step, *options, wanted=wanted, fault=fault)
        assert answered.code == 0, f"{step}: {answered.fields} {answered.errors[-3000:]}"
        return answered.fields

    def roll_out(self, wanted: Fields | None = None) -> Fields:
        """A backup, and a window; returns the answer of the window."""
        self.done("backup", wanted=wanted)
        return self.done("window", wanted=wanted)

    def write(self, sql: str, *values: object) -> None:
        """A row that a program has written meanwhile, or a table that was changed."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            connection.execute(sql, values)

    def book(self, class_id: str, start: float, end: float) -> None:
        """A class that the streamer has."""
        columns = "class_id, video_url, push_url, start_time, end_time"
        row = (class_id, "http://o/6666.flv", "rtmp://a/b", start, end)
        self.write(f"INSERT INTO task_list ({columns}) VALUES (?, ?, ?, ?, ?)", *row)

    # -- what is there --------------------------------------------------------------------------------------------

    def journal(self) -> str:
        """What the rollouts have noted so far."""
        file = self.root / "rollout" / "journal.jsonl"
        return file.read_text() if file.exists() else ""

    def pid(self, program: str = "lectern-streamer") -> int:
        return int(self.ctl("pid", program))

    def acknowledged(self) -> list[str]:
        """The classes that the old program was told are kept."""
        diary = Path(self.places.diary)
        return diary.read_text().split("\n")[:-1] if diary.exists() else []

    def lost(self) -> list[str]:
        """Acknowledged classes that are not in the database."""
        return sorted({*self.acknowledged()} - classes(self.database)) if self.role == "streamer" else []

    def tree(self) -> dict[str, list[object]]:
        """All that a rollout changes but the database: bytes, modes, owners, links."""
        paths = [path for folder in (self.code, self.programs) for path in sorted(folder.rglob("*")) if path.is_file()]
        current = self.root / "current"
        return {str(one): entry(one) for one in paths if not one.name.startswith(("task_list.db", "teacher.db"))} | {
            "current": [str(current.readlink()) if current.is_symlink() else None]
        }

    def everything(self) -> dict[str, list[object]]:
        """All under the host's folder but logs, files with their times: what a look must not change."""
        return {
            str(one): [*entry(one), one.is_dir() or one.lstat().st_mtime_ns]
            for one in sorted(self.folder.rglob("*"))
            # In a -shm every reader of a database marks himself.
            if one.suffix not in {".log", ".out"} and not one.name.endswith("-shm")
        }

    def is_old(self, before: Mapping[str, object] | None = None) -> None:
        """The host is wholly as when it was started, or *before*, its old program at work, no row lost."""
        assert differences(self.before if before is None else before, self.tree()) == []
        states = self.states()
        assert states.get(self.places.old_program) == "RUNNING"
        assert self.places.program not in states
        self._works()
        assert self.lost() == []

    def runs(self) -> str:
        """The release to which the link leads."""
        return (self.root / "current/venv").resolve().parent.name

    def is_new(self) -> None:
        """The host is wholly the new one, and no row is lost."""
        assert self.runs() == "2.0.0"
        assert self.states() == {self.places.program: "RUNNING"}
        assert not Path(self.places.old_conf).exists()
        assert self.lost() == []
        self.done("verify")


def classes(file: Path) -> set[str]:
    """Those in a streamer's database."""
    with closing(sqlite3.connect(file, timeout=20)) as connection:
        return {row[0] for row in connection.execute("SELECT class_id FROM task_list")}


@contextmanager
def a_host(folder: Path, role: Role = "streamer", *, start: bool = True) -> Iterator[Host]:
    host = Host(folder, role)
    try:
        if start:
            host.start()
        yield host
    finally:
        host.close()
