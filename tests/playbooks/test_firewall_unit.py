"""The unit of the firewall comes before the network on each kind of Debian, also those that a cloud starts."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

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
