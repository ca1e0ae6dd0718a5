"""A Prefect server gets its new settings also if the run that wrote them failed on the way."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live
TASKS = ROOT / "playbooks/roles/provision/tasks/prefect_server.yml"


class Host:
    """A host in a folder, whose Prefect server serves out of the wanted release, with older settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "opt").mkdir()
        (folder / "opt/prefect").symlink_to("releases/2.0.0")
        (folder / "prefect.env").write_text("old")

    def provisioned(self) -> tuple[int, set[str]]:
        """The exit status of a run that writes new settings, and what it did with the server."""
        [server] = [
            one for one in yaml.safe_load(TASKS.read_text().replace("/etc/lectern", str(self.folder))) if "block" in one
        ]
        server["block"] = [found for one in server["block"] if (found := self._stub(one)) is not None]
        del server["rescue"]
        into = f"{self.folder}/opt/releases/2.0.0"
        given = {
            "provision_root": f"{self.folder}/opt",
            "provision_prefect_apart": True,
            "provision_prefect_first": True,
            "provision_prefect_from": into,
            "provision_prefect_link": {"stat": {"exists": True}},
            "release_asked": {"into": into},
        }
        done, did = here.tasks_played(self.folder, [server], given)
        return done.returncode, did

    def _stub(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """The task, without what it needs of a real host; None if nothing of it is left."""
        command = task.get("ansible.builtin.command", {})
        if "ansible.builtin.template" in task:
            task["ansible.builtin.copy"] = {"content": "new", "dest": task.pop("ansible.builtin.template")["dest"]}
        elif "upgrade" in command.get("argv", ()):
            migrates = f"test ! -e {self.folder}/no-database; touch {self.folder}/did-migrate"
            task = {"ansible.builtin.command": {"argv": ["sh", "-ec", migrates]}, "when": task["when"]}
        elif task.get("ansible.builtin.include_tasks") == "prefect_restart.yml":
            task = {"ansible.builtin.command": {"argv": ["touch", f"{self.folder}/did-restart"]}, "when": task["when"]}
        elif {"ansible.builtin.include_tasks", "ansible.builtin.uri"} & set(task):
            return None
        return task


def test_what_a_failed_run_left_undone_is_done_by_the_next_one_and_once(tmp_path: Path) -> None:
    """As while PostgreSQL is away: a server that went on with its old settings would keep the balancer's port."""
    host = Host(tmp_path)
    (tmp_path / "no-database").touch()
    assert host.provisioned() == (2, set())
    (tmp_path / "no-database").unlink()
    assert host.provisioned() == (0, {"did-migrate", "did-restart"})
    assert host.provisioned() == (0, set())
