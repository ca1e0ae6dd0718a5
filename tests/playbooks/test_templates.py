"""What provision.yml writes for the playout and for the night's backup, started."""

import getpass
import os
import pwd
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path

import jinja2
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import PROVISION, ROOT
from tests.playout.stage import Playout
from tests.waiting import wait_until

LIBRARY = ROOT / "lib/lectern"


def rendered(template: str, folder: Path) -> RawConfigParser:
    """A template with the role's variables, for a root and a home in *folder*."""
    variables = yaml.safe_load((PROVISION / "vars/main.yml").read_text())
    given = {
        "provision_root": str(folder / "opt"),
        "provision_playout_home": str(folder / "playout"),
        "provision_owner": getpass.getuser(),
    }
    for name in ("provision_playout_venv", "provision_playout_command"):
        given[name] = jinja2.Template(variables[name]).render(given)
    found = RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    found.read_string(jinja2.Template((PROVISION / "templates" / template).read_text()).render(given))
    return found


def release(folder: Path, name: str, version: str) -> None:
    """Let the playout's link lead to a release whose environment has this Python, and the product's playout in it."""
    made, link = folder / "opt/releases" / name, folder / "opt/playout"
    library = made / f"venv/lib/python{version}/site-packages/lectern"
    library.mkdir(parents=True)
    (library / "__init__.py").symlink_to(LIBRARY / "__init__.py")
    (library / "playout").symlink_to(LIBRARY / "playout")
    (made / "venv/bin").mkdir(parents=True)
    (made / "venv/bin/python").symlink_to(sys.executable)
    link.unlink(missing_ok=True)
    link.symlink_to(made)


@contextmanager
def started(command: str, folder: Path) -> Iterator[Playout]:
    """The playout that *command* starts, as systemd or supervisord split it."""
    process = subprocess.Popen(shlex.split(command), cwd=folder)
    found = Playout(folder / "playout", lease_s=0)
    found.socket = folder / "playout/playout.sock"
    try:
        wait_until(found.is_there, description="a playout that answers")
        yield found
    finally:
        if found._connection is not None:
            found._connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.live
def test_the_unit_starts_it_and_an_upgrade_follows_the_link_to_another_python(tmp_path: Path) -> None:
    """One release may be for Python 3.12, and the next one for 3.13."""
    unit = rendered("lectern-playout.service.j2", tmp_path)
    release(tmp_path, "one", "3.12")
    with started(unit["Service"]["ExecStart"], tmp_path) as playout:
        program = Path(f"/proc/{playout.worker()}/cmdline").read_text().split("\0")[3]
        assert program.startswith(str(LIBRARY))  # a link, resolved
        release(tmp_path, "two", "3.13")
        with pytest.raises(OSError, match="ended"):
            playout.ask("upgrade")
        assert playout.again("status")["worker"]["taken_over"]["why"] == "upgrade"


def test_the_unit_gives_it_priority_and_no_new_rights(tmp_path: Path) -> None:
    service = rendered("lectern-playout.service.j2", tmp_path)["Service"]
    wanted = {"Nice": "-10", "CPUWeight": "1000", "OOMScoreAdjust": "-900", "NoNewPrivileges": "true"}
    assert {name: service[name] for name in wanted} == wanted


@pytest.mark.live
@pytest.mark.skipif(os.geteuid() != 0, reason="supervisord runs as root, and this test does not")
def test_the_program_of_the_supervisord_apart_starts_it_as_its_user_with_no_new_rights(tmp_path: Path) -> None:
    """The user is this test's own here; priority is given if the machine lets it."""
    (tmp_path / "playout").mkdir()
    program = rendered("program-playout.conf.j2", tmp_path)["program:playout"]
    release(tmp_path, "one", "3.12")
    with started(program["command"], tmp_path) as playout:
        holder = playout.ask("hello")["holder_pid"]
        assert "\nNoNewPrivs:\t1" in Path(f"/proc/{holder}/status").read_text()
        assert "setpriv" not in Path(f"/proc/{holder}/cmdline").read_text()


def typed(folder: Path, user: str, number: int) -> list[str]:
    """What is done when the user with *number* types the script of *user*."""
    (folder / "prefect.env").write_text("PREFECT_SERVER_DATABASE_CONNECTION_URL='sqlite:///x'\n")
    programs = {"lectern": 'echo "$*"', "setpriv": 'echo "setpriv $*"', "id": f"echo {number}"}
    for name, does in programs.items():
        here.program(folder / name, f"#!/bin/sh\n{does}\n")
    given = {
        "item": {"user": user, "program": str(folder / "lectern"), "into": "/backups", "what": "--name prefect"},
        "provision_backup_keep": 14,
        "provision_backup_to": "",
    }
    text = jinja2.Template((PROVISION / "templates/backup.sh.j2").read_text()).render(given)
    script = folder / "backup.sh"
    script.write_text(text.replace("/etc/lectern", str(folder)))
    env = {"PATH": f"{folder}:{os.defpath}"}
    done = subprocess.run(["sh", str(script)], env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_root_types_is_done_as_the_user_of_every_night(tmp_path: Path) -> None:
    """Else what it makes, and its lock, would be root's, and keep each later night from making one."""
    words = ["setpriv", "--reuid=nobody", "--regid=0", "--init-groups", "env", f"HOME={pwd.getpwnam('nobody').pw_dir}"]
    assert typed(tmp_path, "nobody", 0) == [*words, "sh", str(tmp_path / "backup.sh")]


@pytest.mark.parametrize(("user", "number"), [(getpass.getuser(), 1000), ("root", 0)])
def test_its_own_user_does_it_at_once(tmp_path: Path, user: str, number: int) -> None:
    assert typed(tmp_path, user, number) == ["backup", "--name", "prefect", "--into", "/backups"]
