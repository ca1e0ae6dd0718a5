"""The firewall: new rules count also after a failed run, and its unit comes before the network on each Debian."""

import shutil
import subprocess
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
    done, did = here.tasks_played(folder, tasks, {}, environment={"PATH": f"{folder}:/usr/bin:/bin"})
    return done.returncode, bool(did)


def test_rules_that_a_failed_run_wrote_are_loaded_by_the_next_one_and_once(tmp_path: Path) -> None:
    """Else a streamer that is new in the inventory would be shut out, and the run would say that all is well."""
    (tmp_path / "nft").write_text(NFT.format(folder=tmp_path))
    (tmp_path / "nft").chmod(0o755)
    assert provisioned(tmp_path, "old") == (0, True)
    assert provisioned(tmp_path, "new", fails=True) == (2, False)
    assert provisioned(tmp_path, "new") == (0, True)
    assert provisioned(tmp_path, "new") == (0, False)


TEMPLATE = Path(__file__).parents[2] / "playbooks/roles/provision/templates/lectern-firewall.service.j2"
SYSTEM = Path("/usr/lib/systemd/system")
NETWORKING = """\
[Unit]
DefaultDependencies=no
Wants=network.target
After=local-fs.target network-pre.target
Before=network.target shutdown.target network-online.target
Conflicts=shutdown.target
[Service]
Type=oneshot
ExecStart=/bin/true
"""
CLOUD_INIT = """\
[Unit]
DefaultDependencies=no
After=networking.service
Before=network-online.target sysinit.target shutdown.target
Conflicts=shutdown.target
[Service]
Type=oneshot
ExecStart=/bin/true
"""
"""As Debian's packages have them: cloud-init wants the network before anything else is started."""

BOOT = """\
[Unit]
Requires=basic.target networking.service cloud-init.service lectern-firewall.service
"""


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or not (SYSTEM / "basic.target").exists(), reason="no systemd is here"
)
def test_no_unit_of_a_machine_in_a_cloud_waits_for_itself(tmp_path: Path) -> None:
    """Systemd would leave one of them out at the start of the machine: the firewall, or the network."""
    (tmp_path / "networking.service").write_text(NETWORKING)
    (tmp_path / "cloud-init.service").write_text(CLOUD_INIT)
    (tmp_path / "boot.target").write_text(BOOT)
    (tmp_path / "lectern-firewall.service").write_text(TEMPLATE.read_text().replace("/usr/sbin/nft", "/bin/true"))
    argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "boot.target")]
    env = {"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:{SYSTEM}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "cycle" not in done.stderr
    unit = TEMPLATE.read_text()
    assert "Before=network-pre.target" in unit
