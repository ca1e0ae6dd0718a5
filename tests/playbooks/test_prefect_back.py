"""The way back of a Prefect server stops nothing if what it would go back to is gone, or if another one serves."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.answering import Answer, serving
from tests.playbooks import here
from tests.playbooks.here import ROOT
from town.ports import free_port

pytestmark = pytest.mark.live

TASKS = ROOT / "playbooks/roles/provision/tasks/prefect_back.yml"
PLACES = ("backups/prefect-1/manifest.json", "releases/2.0.0/venv/bin/prefect")


class Healthy(Answer):
    def answer(self) -> None:
        self.say(200 if self.path == "/api/health" else 404)


@pytest.mark.parametrize("gone", [None, "another serves", *PLACES])
def test_nothing_is_stopped_if_its_backup_or_its_release_is_gone_or_another_serves(
    tmp_path: Path, gone: str | None
) -> None:
    """The nights' backups take that of an upgrade away after two weeks, and rollouts the release."""
    for name in PLACES:
        (tmp_path / name).parent.mkdir(parents=True)
        if name != gone:
            (tmp_path / name).touch()
    was = {"from": f"{tmp_path}/releases/2.0.0", "backup": f"{tmp_path}/backups/prefect-1"}
    (tmp_path / "prefect-upgrade.json").write_text(json.dumps(was))
    tasks = yaml.safe_load(TASKS.read_text().replace("/etc/lectern", str(tmp_path)))
    tasks[-1]["block"] = [{"command": f"touch {tmp_path}/did-stop"}]
    with serving(Healthy) as other:
        port = other.server_port if gone == "another serves" else free_port()
        given = {"provision_prefect_others": ["127.0.0.1"], "provision_prefect_listens_port": port}
        done, did = here.tasks_played(tmp_path, tasks, given, "-i", "localhost,127.0.0.1,")
    assert (done.returncode, bool(did)) == ((2, False) if gone else (0, True)), done.stdout
    assert ("Nothing was stopped" in done.stdout) is (gone is not None)
