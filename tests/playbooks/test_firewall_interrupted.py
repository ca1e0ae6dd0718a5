"""New rules of the firewall count also if the run that wrote them failed on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live
TASKS = ROOT / "playbooks/roles/provision/tasks/firewall.yml"
NFT = """\
#!/bin/sh
case $1 in
    list) test -e {folder}/loaded ;;
    *) touch {folder}/loaded {folder}/did-load ;;
esac
"""


def provisioned(folder: Path, rules: str, *, fails: bool = False) -> tuple[int, bool]:
    """The exit status of a run that writes *rules*, and whether it loaded them; it *fails* after it wrote them."""
    tasks: list[dict[str, Any]] = []
    for one in yaml.safe_load(TASKS.read_text().replace("/etc/lectern", str(folder))):
        if "ansible.builtin.template" in one:
            written = {"content": rules, "dest": one.pop("ansible.builtin.template")["dest"]}
            tasks += [{**one, "ansible.builtin.copy": written}, {"fail": {}, "when": fails}]
        elif {"ansible.builtin.command", "ansible.builtin.file"} & set(one):
            tasks.append(one)
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": tasks,
        "environment": {"PATH": f"{folder}:/usr/bin:/bin"},
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    done = here.played(folder / "play.yml", "-i", "localhost,", "-e", json.dumps({"ansible_connection": "local"}))
    did = (folder / "did-load").exists()
    (folder / "did-load").unlink(missing_ok=True)
    return done.returncode, did


def test_rules_that_a_failed_run_wrote_are_loaded_by_the_next_one_and_once(tmp_path: Path) -> None:
    """Else a streamer that is new in the inventory would be shut out, and the run would say that all is well."""
    (tmp_path / "nft").write_text(NFT.format(folder=tmp_path))
    (tmp_path / "nft").chmod(0o755)
    assert provisioned(tmp_path, "old") == (0, True)
    assert provisioned(tmp_path, "new", fails=True) == (2, False)
    assert provisioned(tmp_path, "new") == (0, True)
    assert provisioned(tmp_path, "new") == (0, False)
