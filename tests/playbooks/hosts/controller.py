"""The controller: writes an inventory for test hosts, runs ansible-playbook, and says what every task came to."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.playbooks.hosts.old_world import IDC_TOKEN, OSS_SECRET
from tests.playbooks.hosts.places import Places
from tests.stage import runbook

ROOT = Path(__file__).parents[3]
CALLBACKS, CONNECTIONS = (Path(__file__).parent / name for name in ("callback", "connection"))
SIGN_KEY, REDIS_PASSWORD = "made-up-sign-key", "made-up-redis-password"
PREFECT_PASSWORD = "made-up-prefect-password"
SECRETS = (IDC_TOKEN, OSS_SECRET, SIGN_KEY, REDIS_PASSWORD, PREFECT_PASSWORD)
"""No run of any playbook may show one of them."""
RUN_S = 900.0
LEAVING = "import ctypes,os,sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"
"""Starts a program that is asked to end where the tests are killed: it ends what it has started itself."""
_RECAP = re.compile(r"^(\S+)\s+: ((?:\w+=\d+\s*)+)$", re.MULTILINE)
Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    exit_code: int
    output: str
    tasks: list[dict[str, Any]] = field(repr=False)
    fault_fired: bool = False

    @cached_property
    def recap(self) -> dict[str, dict[str, int]]:
        found = _RECAP.findall(self.output)
        return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in found}

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks of each host changed something; the controller itself is none."""
        return {host: counts["changed"] for host, counts in self.recap.items() if host != "localhost"}

    def done(self, host: str) -> list[str]:
        return [one["task"] for one in self.tasks if one["host"] == host and one["how"] == "ok"]

    def failures(self) -> list[str]:
        failed = [one for one in self.tasks if one["how"] in ("failed", "unreachable")]
        return [f"{one['host']}: {one['task']}: {one['msg']}" for one in failed]

    def assert_ok(self) -> "Played":
        assert self.exit_code == 0, f"ended with {self.exit_code}\n{self.output[-6000:]}"
        return self

    def assert_failed(self) -> "Played":
        """It said no, and by Ansible's means."""
        assert self.exit_code in (2, 4), f"ended with {self.exit_code}\n{self.output[-6000:]}"
        return self


class Controller:
    """Runs playbooks on the hosts of one inventory; *folder* must be short, sockets lie in it."""

    def __init__(self, folder: Path, inventory: Mapping[str, Any], path: str) -> None:
        self.folder = folder
        self.cut: Sequence[str] = ()
        """The command that takes the network of a host away; if there is one, for faults of the kind *cut*."""
        self.inventory = folder / "inventory.json"
        self.write(inventory)
        kept = {name: os.environ[name] for name in ("TZ",) if name in os.environ}
        self._environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(folder / "a"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_PLUGINS": os.pathsep.join([str(ROOT / "playbooks/callback_plugins"), str(CALLBACKS)]),
            "ANSIBLE_CONNECTION_PLUGINS": str(CONNECTIONS),
            # As in ansible.cfg, but a host that is lost is noticed within seconds.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=2 "
            "-o ServerAliveCountMax=3 -o ForwardAgent=no",
        }

    def write(self, inventory: Mapping[str, Any]) -> None:
        """Take another inventory; JSON is YAML."""
        self.inventory.write_text(json.dumps(inventory, indent=1))

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        """Run `playbooks/PLAYBOOK.yml` in a process group of its own, which *fault* may kill."""
        return self.type(
            ["ansible-playbook", f"playbooks/{playbook}.yml", "-i", str(self.inventory), *arguments], fault=fault
        )

    def read_out(self, heading: str, *words: str, **names: str) -> Played:
        """Type the playbook's command that a section of RUNBOOK.md has with *words*; *names* stand for its capitals."""
        found = [one for one in runbook.commands(heading, "ansible-playbook") if all(word in one for word in words)]
        command = min(found, key=len)  # the others are the same with something added
        for capital, name in {"VERSION": "2.0.0", **names}.items():
            command = re.sub(rf"\b{capital}\b", name, command)
        command = command.replace(" --ask-vault-pass", "")
        command = command.replace("-i inventory/production", f"-i {shlex.quote(str(self.inventory))}")
        assert not re.search(r"inventory/production|\b(VERSION|HOST)\b", command), command
        return self.type(shlex.split(command))

    def type(self, argv: Sequence[str], *, fault: Fault | None = None) -> Played:
        facts, fired, log = (self.folder / name for name in ("tasks.jsonl", "fired", "output.txt"))
        for file in (facts, fired):
            file.unlink(missing_ok=True)
        environment = {**self._environment, "LECTERN_TASKS": str(facts)}
        if fault is not None:
            environment["LECTERN_FAULT"] = json.dumps({**fault, "fired": str(fired)})
        # Into a file: a worker that outlives a killed controller holds a pipe open for as long as it lives.
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-S", "-c", LEAVING, *argv],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
            (self.folder / "pid").write_text(str(process.pid))
            try:
                exit_code = process.wait(RUN_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise AssertionError(f"{argv} took longer than {RUN_S:g} s\n{log.read_text()[-6000:]}") from None
        text = log.read_text(errors="replace")
        shown = [one for one in SECRETS if one in text]
        assert not shown, f"{' '.join(argv)} shows secrets: {shown}"
        lines = facts.read_text().splitlines() if facts.exists() else []
        return Played(exit_code, text, [json.loads(line) for line in lines], fired.exists())


def variables(places: Places, **more: Any) -> dict[str, Any]:
    role, bind = places.role, f"127.0.0.1:{places.port}"
    own: dict[str, Any] = {
        "root": str(places.root),
        "code_dir": str(places.code_dir),
        "user": places.user,
        "programs_dir": str(places.programs_dir),
        "supervisorctl": list(places.supervisorctl),
        "log_dir": str(places.base),
        "old_programs": [places.old_conf.name],
        "quiet_minutes": 0.05,
        "health_timeout_s": 60,
    }
    if role == "streamer":
        own |= {
            "video_root": str(places.video_root),
            "wget_path": places.wget,
            "health_bind": bind,
            "max_video_size": 0.5,
            "lease_timeout_s": 0,
            "record_patterns": [
                r"(?:^|/)video_(?P<record_id>[0-9]+)_[0-9]+\.flv$",
                r"(?:^|/)(?P<record_id>[0-9]+)(?:_(?P<resolution>[0-9]{3,4}P))?\.flv$",
            ],
        }
    else:
        more.pop("allowed_origins", None)
        more.pop("allowed_push_hosts", None)
        # Old waiting lists are still there when a slow machine comes to look at them.
        more["more_settings"] = {**more.get("more_settings", {}), "TRANSCODING_TIME_OUT_S": "3600"}
        own |= {
            "api_bind": bind,
            "transcode_sign_key": SIGN_KEY,
            "rekey": [{"old": "waiting:{record_id}:{resolution}", "new": "{record_id}_{resolution}"}],
            "order_key": "class:{class_id}",
        }
    return {f"{role}_{name}": value for name, value in {**own, **more}.items()}
