"""What has new settings is begun anew, also if a later task of the host fails: the next run would see no change."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live

HANDLERS = ROOT / "playbooks/roles/provision/handlers/main.yml"
NOTIFIED = sorted({one["listen"] for one in yaml.safe_load(HANDLERS.read_text())})
PLAYS = {
    "Redis is begun anew": "redis",
    "PostgreSQL is begun anew": "postgres",
    "The balancer is begun anew": "prefect_balancer",
}


def test_each_handler_is_tried() -> None:
    assert sorted(PLAYS) == NOTIFIED


@pytest.mark.parametrize("notified", NOTIFIED)
def test_what_has_new_settings_is_begun_anew_also_if_a_later_task_fails(tmp_path: Path, notified: str) -> None:
    plays = yaml.safe_load((ROOT / "playbooks/provision.yml").read_text())
    [play] = [one for one in plays if f"'{PLAYS[notified]}'" in str(one.get("tasks"))]
    del play["vars_files"]  # the secrets are given below
    play["tasks"] = [
        {"include_role": {"name": "provision", "tasks_from": "firewall_addresses"}},  # it only looks
        {"command": "true", "changed_when": True, "notify": notified},
        {"fail": {"msg": "a later task"}},
    ]
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    told = {
        "ansible_connection": "local",
        "ansible_become": False,
        "provision_has_systemd": False,
        "provision_supervisorctl": ["sh", "-c", 'echo "$@" >"$0"', str(tmp_path / "told")],
    }
    vault = ROOT / "inventory/vault.yml.example"
    done = here.played(tmp_path / "play.yml", "-i", "inventory/production", "-e", f"@{vault}", "-e", json.dumps(told))
    assert (done.returncode, "a later task" in done.stdout) == (2, True), done.stdout
    assert (tmp_path / "told").exists(), done.stdout
    assert (tmp_path / "told").read_text().startswith("restart "), done.stdout
