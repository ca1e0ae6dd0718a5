"""The supervisord apart begins anew what has new settings; the playout goes on, because classes are on air."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.playbooks import here
from tests.playbooks.here import ROOT
from tests.stage import wait_until

pytestmark = pytest.mark.live
ROLE = ROOT / "playbooks/roles/provision"
BIN = Path(sys.executable).parent
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: provision, tasks_from: apart}
"""


class Host:
    """A host whose supervisord apart lies in a folder; its only program sleeps."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.program, self.role = folder, program, folder / "roles/provision"
        shutil.copytree(ROLE, self.role)
        for part in (self.role / "tasks/apart.yml", self.role / "templates/supervisord.conf.j2"):
            text = part.read_text().replace("[supervisord,", f"[{BIN / 'supervisord'},")
            for place in ("/etc/lectern", "/run", "/var/log"):
                text = text.replace(place, str(folder))
            part.write_text(text)
        self.conf = folder / "supervisord.conf"
        (folder / "play.yml").write_text(PLAY)

    def provisioned(self, seconds: int) -> str:
        """Provision the program so that it sleeps for *seconds*; returns what is running then."""
        program = f"[program:{self.program}]\ncommand={shutil.which('sleep')} {seconds}\nstartsecs=0\n"
        (self.role / f"templates/program-{self.program}.conf.j2").write_text(program)
        given = {
            "ansible_connection": "local",
            "provision_program": self.program,
            "provision_service": "",
            "provision_supervisord": str(self.conf),
            "provision_supervisorctl": [str(BIN / "supervisorctl"), "-c", str(self.conf)],
        }
        done = here.played(self.folder / "play.yml", "-i", "localhost,", "-e", json.dumps(given))
        assert done.returncode == 0, done.stdout + done.stderr
        line = Path(f"/proc/{int(self.told('pid', self.program))}/cmdline")
        wait_until(lambda: line.read_text().startswith(str(shutil.which("sleep"))), description="it is that program")
        return line.read_text().split("\0")[1]

    def told(self, *words: str) -> str:
        """What supervisord answers."""
        argv = [str(BIN / "supervisorctl"), "-c", str(self.conf), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout


@contextmanager
def host(folder: Path, program: str) -> Iterator[Host]:
    made = Host(folder, program)
    try:
        yield made
    finally:
        made.told("shutdown")


@pytest.mark.parametrize(
    ("program", "stopped", "expected"),
    [("cron", False, "2000"), ("playout", False, "1000"), ("playout", True, "2000")],
    ids=["another program", "the playout", "a playout that is stopped"],
)
def test_what_has_new_settings_is_begun_anew_but_a_playout_that_runs(
    tmp_path: Path, program: str, *, stopped: bool, expected: str
) -> None:
    """Begun anew, it would cut every class on air: its settings count from its next start, as under systemd."""
    with host(tmp_path, program) as there:
        assert there.provisioned(1000) == "1000"
        if stopped:
            there.told("stop", program)
        assert there.provisioned(2000) == expected
