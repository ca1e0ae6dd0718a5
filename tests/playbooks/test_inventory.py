"""The inventories that the project comes with: what must be changed is refused until it is, what is said is so."""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live

INVENTORY = ROOT / "inventory"
INVENTORIES = ("production", "staging")
SECRETS = here.play_of("teachers:streamers", "preflight", "secrets")


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_each_secret_that_is_still_that_of_the_example_is_named_and_refused(tmp_path: Path, inventory: str) -> None:
    done = here.played_with(tmp_path, SECRETS, "all: {}", inventory)
    said = here.refused(done)
    its_own = ("lectern_redis_url", "lectern_prefect_api_auth_string", "teacher_transcode_sign_key")
    for name in (*its_own, "vault_postgres_password"):
        assert name in said
    assert "ansible-vault edit" in said
    assert "lectern:CHANGE-ME" not in said, "values are not shown"
    names = ("vault_redis_url", "vault_prefect_api_auth_string", "vault_transcode_sign_key", "vault_postgres_password")
    changed = dict.fromkeys(names, "redis://x:other@192.0.2.1/0")
    assert here.played_with(tmp_path, SECRETS, "all: {}", inventory, **changed).returncode == 0


def test_each_key_that_the_vault_lacks_is_named(tmp_path: Path) -> None:
    """By its own name: what takes it, or what is refused without it later, is not what is to be written."""
    (tmp_path / "look.yml").write_text(SECRETS)
    given = {"ansible_connection": "local", "vault_redis_url": "redis://x:other@192.0.2.1/0"}
    done = here.played(tmp_path / "look.yml", "-i", "inventory/staging", "-e", json.dumps(given))
    said = here.refused(done)
    assert "staging-teacher: the vault lacks vault_prefect_api_auth_string, vault_transcode_sign_key. Type" in said
    assert "staging-streamer: the vault lacks vault_prefect_api_auth_string. Type ansible-vault edit" in said
    assert "inventory/staging.vault.yml" in said


def played(folder: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The project's playbook *name*, with a home in *folder*."""
    (folder / "play.yml").write_text(f"- import_playbook: {ROOT}/playbooks/{name}.yml\n")
    return here.played(folder / "play.yml", "-e", "release=2.0.0", *arguments)


@pytest.mark.parametrize("name", ["rollout", "provision", "rollback", "verify"])
def test_a_playbook_without_an_inventory_fails_in_words(tmp_path: Path, name: str) -> None:
    """Else it would skip all plays, and end as if all were well."""
    done = played(tmp_path, name)
    assert "Say which inventory: -i inventory/staging" in here.refused(done)


@pytest.mark.parametrize(("name", "is_opened"), [("rollout", True), ("rollback", False), ("verify", False)])
def test_only_what_needs_a_secret_opens_the_vault(tmp_path: Path, name: str, *, is_opened: bool) -> None:
    """Without its password it cannot be opened, so whoever opens it fails."""
    shutil.copytree(INVENTORY / "staging", tmp_path / "staging")
    (tmp_path / "staging.vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    more = ("-i", str(tmp_path / "staging"), "-e", "ansible_connection=local", "-e", "ansible_become=false")
    done = played(tmp_path, name, *more, "-e", f"lectern_root={tmp_path}", "--check")
    assert ("no vault secrets" in done.stdout + done.stderr) == is_opened, done.stdout + done.stderr


def test_a_host_that_is_teacher_and_streamer_is_refused(tmp_path: Path) -> None:
    """Each rollout would stop the other's program."""
    both, only = json.dumps({"teachers": {"hosts": {"staging-streamer": {}}}}), ("--limit", "staging-streamer")
    given = {"vault_transcode_sign_key": "of-the-key", "release": ""}
    play = here.play_of("teachers:streamers", "preflight")
    done = here.played_with(tmp_path, play, both, "staging", *only, **given)
    assert "staging-streamer is among the teachers and among the streamers" in here.refused(done)
    assert "No release is named" not in done.stdout, "nothing else is asked before"


@pytest.mark.parametrize("at", ["23:10", "'3:10 am'", "'24:00'"])
def test_a_time_of_the_backups_that_is_none_is_refused_in_words(tmp_path: Path, at: str) -> None:
    """YAML takes 23:10 for a number of minutes if it is not quoted; cron would make no backup, and say nothing."""
    (tmp_path / "at.yml").write_text(f"provision_backup_at: {at}\n")
    more = ("--check", "-e", f"@{tmp_path}/at.yml")
    play = here.play_of("teachers", "provision", "backups")
    done = here.played_with(tmp_path, play, "all: {}", "staging", *more)
    assert 'Write a time in quotes, such as provision_backup_at: "03:10"' in here.refused(done)


FILES = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: release, tasks_from: python}
    - ansible.builtin.import_role: {name: release, tasks_from: file}
    - ansible.builtin.import_role: {name: release, tasks_from: file}
"""


def test_a_release_is_read_through_once_a_run_and_not_for_each_host(tmp_path: Path) -> None:
    """Two hosts have the same file, a third another one, and each is prepared after it was looked at."""
    (tmp_path / "manifest.json").write_text("{}")
    for name in ("one", "other"):
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "manifest.json", "manifest.json")
        digest = hashlib.sha256((tmp_path / f"{name}.tar.gz").read_bytes()).hexdigest()
        (tmp_path / f"{name}.tar.gz.sha256").write_text(f"{digest}  {name}.tar.gz\n")
    files = {"a": "one", "b": "one", "c": "other"}
    hosts = {host: {"release_file": str(tmp_path / f"{name}.tar.gz")} for host, name in files.items()}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": {"ansible_connection": "local"}}}))
    (tmp_path / "play.yml").write_text(FILES)
    done = here.played(tmp_path / "play.yml", "-v", "-i", str(tmp_path / "hosts.json"))
    assert done.returncode == 0, done.stdout
    looked_at = done.stdout.split("The release file is looked at]")[1:]
    assert [sorted(re.findall(r"^ok: \[(\w)", one.split("TASK")[0], re.MULTILINE)) for one in looked_at] == [["a", "c"]]
    (tmp_path / "other.tar.gz.sha256").write_text("0  other.tar.gz\n")
    done = here.played(tmp_path / "play.yml", "-i", str(tmp_path / "hosts.json"))
    assert re.findall(r"fatal: \[(\w)", done.stdout) == ["c"]
