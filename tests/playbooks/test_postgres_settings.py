"""PostgreSQL lets new hosts of the inventory in without a restart, and gets a restart where a setting wants one."""

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from sqlalchemy import URL

from tests.playbooks import here
from tests.playbooks.here import ROOT
from tests.stage.postgres import postgres_server

pytestmark = pytest.mark.live
TASKS = ROOT / "playbooks/roles/provision/tasks/postgres.yml"


class Server:
    """A PostgreSQL whose folder of data is also that of its settings."""

    def __init__(self, folder: Path, url: URL) -> None:
        self.folder, self.url = folder, url
        self.cluster = Path(self.asked("SHOW data_directory"))
        (self.cluster / "conf.d").mkdir()
        with (self.cluster / "postgresql.conf").open("a") as file:
            file.write("include_dir 'conf.d'\n")

    def asked(self, what: str) -> str:
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url) as connection:
            row = connection.execute(what).fetchone()
            assert row is not None
            return str(row[0])

    def provisioned(self, hosts: list[str], setting: str, *, fails: bool = False) -> tuple[int, bool, bool]:
        """The exit status of a run, whether the server has read its files anew, and whether it would be restarted."""
        before = self.asked("SELECT pg_conf_load_time()")
        tasks = [found for one in self._tasks() if (found := self._stub(one, setting)) is not None]
        after = next(at for at, one in enumerate(tasks) if "ansible.builtin.blockinfile" in one) + 1
        tasks.insert(after, {"fail": {}, "when": fails})
        restart = {"name": "r", "listen": "PostgreSQL is begun anew", "command": f"touch {self.folder}/did-restart"}
        at = {"PGHOST": self.url.host, "PGPORT": str(self.url.port), "PGUSER": self.url.username}
        given = {"provision_cluster": str(self.cluster), "provision_fleet_addresses": hosts}
        done, did = here.tasks_played(self.folder, tasks, given, handlers=[restart], environment=at)
        return done.returncode, self.asked("SELECT pg_conf_load_time()") != before, bool(did)

    def _tasks(self) -> list[dict[str, Any]]:
        [block] = [one["block"] for one in yaml.safe_load(TASKS.read_text()) if "block" in one]
        until = next(at for at, one in enumerate(block) if "ansible.builtin.meta" in one)
        return list(block[: until + 1])

    def _stub(self, task: dict[str, Any], setting: str) -> dict[str, Any] | None:
        """The task, without what it needs of a real host; None if nothing of it is left."""
        task.pop("become", None), task.pop("become_user", None)
        if "ansible.builtin.template" in task:
            task["ansible.builtin.copy"] = {"content": setting, "dest": task.pop("ansible.builtin.template")["dest"]}
        kept = ("copy", "blockinfile", "command", "meta")
        return task if {f"ansible.builtin.{one}" for one in kept} & set(task) else None


@pytest.mark.skipif(os.geteuid() != 0, reason="the server belongs to another user")
def test_a_new_host_is_let_in_without_a_restart_which_would_cut_off_all_others(tmp_path: Path) -> None:
    """Also if the run that named it ended before the server had read that; the next one sees no change."""
    with postgres_server() as url:
        server = Server(tmp_path, url)
        assert server.provisioned(["192.0.2.21"], "work_mem = '5MB'\n") == (0, True, False)
        two = ["192.0.2.21", "192.0.2.22"]
        assert server.provisioned(two, "work_mem = '5MB'\n", fails=True) == (2, False, False)
        assert server.provisioned(two, "work_mem = '5MB'\n") == (0, True, False)
        assert server.provisioned(two, "max_locks_per_transaction = 100\n") == (0, True, True)
