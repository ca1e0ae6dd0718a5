"""The playbooks can be read by Ansible, each with each inventory; ``make check`` has the linter look at them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.playbooks import here
from tests.playbooks.here import ROOT

BIN = Path(sys.executable).parent
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
INVENTORIES = sorted(path.name for path in (ROOT / "inventory").iterdir() if path.is_dir())


def run(home: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """A tool of Ansible's, in the project's folder, with a home of its own."""
    tool, *arguments = argv
    return subprocess.run(
        [str(BIN / tool), *arguments],
        cwd=ROOT,
        env={**here.environment(home), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_every_playbook_can_be_read_with_every_inventory(inventory: str, tmp_path: Path) -> None:
    names = [f"playbooks/{name}.yml" for name in PLAYBOOKS]
    done = run(tmp_path, "ansible-playbook", "--syntax-check", *names, "-i", f"inventory/{inventory}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("playbook: ") == len(PLAYBOOKS)
    assert "WARNING" not in done.stderr
