"""Two Prefect servers of an inventory get what those of the trial cluster have, and one of them is as it was."""

import configparser
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live

CLUSTER = ROOT / "town" / "cluster"
TEMPLATES = {
    "env": "prefect.env.j2",
    "service": "lectern-prefect.service.j2",
    "services": "program-prefect-services.conf.j2",
    "program": "program-prefect.conf.j2",
    "balancer": "haproxy.cfg.j2",
    "firewall": "firewall.nft.j2",
    "postgres": "postgresql.conf.j2",
}
RENDER = """
- hosts: control:prefect
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: prefect_restart, public: true, apply: {when: false}}
    - ansible.builtin.template:
        src: "{{ templates }}/{{ item.value }}"
        dest: "{{ out }}/{{ inventory_hostname }}.{{ item.key }}"
      loop: "{{ files | dict2items }}"
      vars: {provision_program: "{{ 'prefect-services' if item.key == 'services' else 'prefect' }}"}
    - ansible.builtin.copy:
        content: "{{ {'programs': provision_prefect_programs, 'others': provision_prefect_others} | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}.told"
"""
ASK = """
- hosts: prefect
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: provision, tasks_from: prefect}
"""
UPGRADE = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: provision, tasks_from: prefect_alone}
"""
TOGETHER = """
- hosts: {hosts}
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {{name: provision, tasks_from: prefect_together}}
      vars: {{release_asked: {{version: 2.2.0}}}}
"""
LOOK = yaml.safe_load((ROOT / "playbooks/roles/provision/tasks/prefect.yml").read_text())[1]
SAME = f"""
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: provision, tasks_from: command, public: true, apply: {{when: false}}}}
    - {json.dumps(LOOK)}
    - ansible.builtin.copy:
        content: "{{{{ {{'from': provision_prefect_from, 'upgraded': provision_prefect_upgraded}} | to_json }}}}"
        dest: "{{{{ out }}}}/told"
"""
TWO = """
prefect:
  hosts:
    teacher1:
    prefect2:
      ansible_host: 192.0.2.61
"""
WRONG = "prefect: {hosts: {prefect2: {ansible_host: 192.0.2.61}, teacher1: }}"


def played(folder: Path, playbook: str, hosts: str, **more: object) -> "subprocess.CompletedProcess[str]":
    """What Ansible says of a playbook with the production inventory, to which *hosts* are added."""
    (folder / "play.yml").write_text(playbook)
    (folder / "more.yml").write_text(hosts)
    (folder / "out").mkdir()
    vault = ROOT / "inventory/vault.yml.example"
    templates = ROOT / "playbooks/roles/provision/templates"
    given: dict[str, object] = {
        "out": str(folder / "out"),
        "templates": str(templates),
        "files": TEMPLATES,
        "release": "2.0.0",
    }
    given |= {"ansible_connection": "local", "ansible_become": False, **more}
    inventories = ("-i", "inventory/production", "-i", str(folder / "more.yml"))
    return here.played(folder / "play.yml", *inventories, "-e", f"@{vault}", "-e", json.dumps(given))


@dataclass(frozen=True)
class Written:
    """What is written for the hosts of an inventory."""

    folder: Path

    def text(self, host: str, kind: str) -> str:
        return (self.folder / f"{host}.{kind}").read_text()

    def env(self, host: str) -> dict[str, str]:
        return dict(re.findall(r"^(PREFECT_\w+)='(.*)'$", self.text(host, "env"), re.MULTILINE))

    def program(self, host: str, kind: str) -> configparser.RawConfigParser:
        found = configparser.RawConfigParser()
        found.read_string(self.text(host, kind))
        return found

    def told(self, host: str) -> dict[str, Any]:
        return dict(json.loads(self.text(host, "told")))


def written(folder: Path, hosts: str) -> Written:
    done = played(folder, RENDER, hosts)
    assert done.returncode == 0, done.stdout + done.stderr
    return Written(folder / "out")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("two"), TWO)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """As the inventory is shipped."""
    return written(tmp_path_factory.mktemp("one"), "all: {}")


def test_two_servers_share_what_those_of_the_trial_cluster_share(two: Written) -> None:
    """Each setting that they have is written, and says the same but for where things are."""
    cluster = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["x-prefect"]["environment"]
    here = {"PREFECT_HOME", "PREFECT_UI_STATIC_DIRECTORY", "PREFECT_UI_API_URL", "DO_NOT_TRACK"}
    for host in ("teacher1", "prefect2"):
        env = two.env(host)
        assert set(cluster) - here <= set(env)
        same = {name for name in set(cluster) - here if "URL" not in name}
        assert {name: env[name] for name in same} == {name: cluster[name] for name in same}
    shared = {name for name in cluster if "URL" in name}
    assert {name: two.env("teacher1")[name] for name in shared} == {name: two.env("prefect2")[name] for name in shared}


def test_two_servers_find_the_database_and_redis_on_the_control_host(two: Written) -> None:
    env = two.env("prefect2")
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("@192.0.2.10/prefect")
    assert env["PREFECT_REDIS_MESSAGING_URL"] == "redis://lectern:CHANGE-ME@192.0.2.10:6379/1"
    assert env["PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL"] == env["PREFECT_REDIS_MESSAGING_URL"]
    assert env["PREFECT_SERVER_DOCKET_URL"] == "redis://lectern:CHANGE-ME@192.0.2.10:6379/2"
    assert "max_connections = 200" in two.text("teacher1", "postgres")


def test_a_redis_password_with_an_apostrophe_ends_no_line(tmp_path: Path) -> None:
    """It is written between apostrophes, and a URL may encode it."""
    done = played(tmp_path, RENDER, TWO, vault_redis_url="redis://lectern:it's@192.0.2.10:6379/0")
    assert done.returncode == 0, done.stdout + done.stderr
    found = Written(tmp_path / "out").env("prefect2")
    assert found["PREFECT_REDIS_MESSAGING_URL"] == "redis://lectern:it%27s@192.0.2.10:6379/1"


def test_each_serves_beside_the_balancer_and_only_the_first_has_the_services(two: Written) -> None:
    for host, address in (("teacher1", "192.0.2.10"), ("prefect2", "192.0.2.61")):
        env = two.env(host)
        assert (env["PREFECT_SERVER_API_HOST"], env["PREFECT_SERVER_API_PORT"]) == (address, "4201")
        assert env["PREFECT_API_URL"] == env["PREFECT_UI_API_URL"] == "http://192.0.2.10:4200/api"
        assert two.program(host, "program")["program:prefect"]["command"].endswith(
            'prefect server start --no-services"'
        )
        assert "prefect server start --no-services\n" in two.text(host, "service")
        assert f"server {host} {address}:4201" in two.text("teacher1", "balancer")
    services = two.program("teacher1", "services")["program:prefect-services"]
    assert services["command"].endswith('prefect server services start"')
    assert two.told("teacher1") == {"programs": ["prefect", "prefect-services"], "others": ["prefect2"]}
    assert two.told("prefect2") == {"programs": ["prefect"], "others": ["teacher1"]}


def test_the_balancer_asks_and_waits_as_that_of_the_trial_cluster(two: Written) -> None:
    """It goes by the addresses of the inventory, where that one asks Docker for them."""
    docker = re.compile(r"resolvers|parse-resolv|hold valid|bind |server |user |group |global")

    def said(text: str) -> set[str]:
        lines = {line.strip().removesuffix(" resolvers docker") for line in text.splitlines()}
        return {line for line in lines if line and not line.startswith("#") and not docker.match(line)}

    ours = two.text("teacher1", "balancer")
    assert said(ours) == said((CLUSTER / "haproxy.cfg").read_text())
    assert "bind 192.0.2.10:4200\n" in ours


def test_the_firewall_closes_the_servers_too_and_lets_them_in(two: Written, one: Written) -> None:
    text = two.text("teacher1", "firewall")
    assert "4200, 4201" in text
    assert "192.0.2.61" in text
    assert "4201" not in one.text("teacher1", "firewall")


def test_one_server_has_nothing_of_it(one: Written) -> None:
    env = one.env("teacher1")
    assert not [name for name in env if "REDIS" in name or "DOCKET" in name or "MIGRATE" in name]
    assert (env["PREFECT_SERVER_API_HOST"], env["PREFECT_SERVER_API_PORT"]) == ("192.0.2.10", "4200")
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("@localhost/prefect")
    assert one.program("teacher1", "program")["program:prefect"]["command"].endswith('prefect server start"')
    assert one.told("teacher1") == {"programs": ["prefect"], "others": []}
    assert "max_connections" not in one.text("teacher1", "postgres")


@pytest.mark.parametrize(
    ("hosts", "more"),
    [
        (WRONG, {}),
        (TWO, {"lectern_prefect_api_url": "http://127.0.0.1:4200/api", "lectern_prefect_api_auth_string": "a:b"}),
        (TWO, {"provision_prefect_database_url": "sqlite+aiosqlite:////var/lib/lectern/prefect/prefect.db"}),
        (TWO, {"lectern_redis_url": "redis+sentinel://192.0.2.10:26379/0"}),
    ],
    ids=["another host first", "loopback", "SQLite", "sentinel"],
)
def test_two_servers_without_what_they_share_are_refused(tmp_path: Path, hosts: str, more: dict[str, object]) -> None:
    done = played(tmp_path, ASK, hosts, provision_root=str(tmp_path / "opt"), **more)
    assert done.returncode == 2, done.stdout
    assert "the group prefect names 2 hosts" in " ".join(done.stdout.split())


@pytest.mark.parametrize("several", [False, True], ids=["alone", "one of several"])
def test_a_server_that_serves_alone_is_not_upgraded_and_joined_at_once(tmp_path: Path, *, several: bool) -> None:
    """After both there would be no way back; two that serve together are upgraded together."""
    (tmp_path / "env").write_text("PREFECT_MESSAGING_BROKER='x'\n" if several else "PREFECT_HOME='x'\n")
    link = {"stat": {"exists": True, "lnk_source": "/opt/lectern/releases/1.9.0"}}
    done = played(tmp_path, UPGRADE, TWO, provision_prefect_env=str(tmp_path / "env"), provision_prefect_link=link)
    assert done.returncode == (0 if several else 2), done.stdout
    assert ("with -e release=1.9.0" in " ".join(done.stdout.split())) is not several
    tasks = yaml.safe_load((ROOT / "playbooks/roles/provision/tasks/prefect.yml").read_text())
    [asked] = [one for one in tasks if one.get("ansible.builtin.include_tasks") == "prefect_alone.yml"]
    assert "provision_prefect_upgraded" in asked["when"]


@pytest.mark.parametrize(("hosts", "status"), [("prefect2", 2), ("prefect", 0)])
def test_no_server_goes_ahead_of_the_first_which_changes_their_database(
    tmp_path: Path, hosts: str, status: int
) -> None:
    """As `provision.yml --limit prefect2` with a newer release would have it."""
    done = played(tmp_path, TOGETHER.format(hosts=hosts), TWO)
    assert done.returncode == status, done.stdout
    assert ("Type this again with --limit teacher1:prefect2." in " ".join(done.stdout.split())) is bool(status)
    tasks = yaml.safe_load((ROOT / "playbooks/roles/provision/tasks/prefect.yml").read_text())
    [asked] = [one for one in tasks if one.get("ansible.builtin.include_tasks") == "prefect_together.yml"]
    assert asked["when"] == "not provision_prefect_first and provision_prefect_from != release_asked.into"


def test_the_database_is_backed_up_and_migrated_by_the_first_before_any_serves() -> None:
    tasks = ROOT / "playbooks/roles/provision/tasks"
    server = (tasks / "prefect_server.yml").read_text()
    order = [
        "include_tasks: prefect_backup.yml",
        "- upgrade",
        'dest: "{{ provision_root }}/prefect"',
        "prefect_program.yml",
    ]
    assert sorted(order, key=server.index) == order
    assert server.count("provision_prefect_first") == 2
    [play] = [one for one in yaml.safe_load((ROOT / "playbooks/provision.yml").read_text()) if "serial" in one]
    assert (play["hosts"], play["serial"]) == ("control:prefect", 1)


@pytest.mark.parametrize("moved", [False, True], ids=["a folder", "a link"])
def test_a_server_of_the_same_release_is_not_upgraded_again(tmp_path: Path, *, moved: bool) -> None:
    """Also if its folder is a link to another disk: to be upgraded again would lose the way back of the last time."""
    root = tmp_path / "opt"
    (tmp_path / "disk" if moved else root).mkdir()
    if moved:
        root.symlink_to("disk")
    (root / "releases/2.0.0").mkdir(parents=True)
    (root / "prefect").symlink_to("releases/2.0.0")
    asked = {"into": f"{root}/releases/2.0.0", "version": "2.0.0"}
    done = played(tmp_path, SAME, "all: {}", provision_root=str(root), release_asked=asked)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "out/told").read_text())
    assert told == {"from": asked["into"], "upgraded": False}
