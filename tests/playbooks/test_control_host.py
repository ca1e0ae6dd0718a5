"""What the control host gets: where the hosts are reached, who is let in, and what two Prefect servers share.

However the inventory writes its hosts. One Prefect server is as it was.
"""

import configparser
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks import here
from tests.playbooks.here import PROVISION, ROOT

pytestmark = pytest.mark.live

CLUSTER = ROOT / "town" / "cluster"
TEMPLATES = {
    "env": "prefect.env.j2",
    "service": "lectern-prefect.service.j2",
    "program": "program-prefect.conf.j2",
    "balancer": "haproxy.cfg.j2",
    "firewall": "firewall.nft.j2",
    "postgres": "postgresql.conf.j2",
}
SERVICES = {"services": "program-prefect-services.conf.j2"}
TEXTS = f"{here.texts(TEMPLATES)} | combine({here.texts(SERVICES, 'prefect-services')})"


def render(texts: str = TEXTS) -> str:
    return f"""
- hosts: control:prefect
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        {{name: provision, tasks_from: prefect_restart, public: true, apply: {{when: false}}}}
    - {here.told("texts", texts)}
    - {here.told("told", "[provision_prefect_programs, provision_prefect_others, provision_prefect_health_url]")}
"""


ASKED = f"""
- hosts: streamers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: streamer, tasks_from: verify, public: true, apply: {{when: false}}}}
    - {here.told("asked", "[streamer_health_bind, streamer_health_url]")}
- hosts: teacher1
  gather_facts: false
  tasks:
    - {here.told("targets", here.texts({"targets": "prometheus-targets.json.j2"}))}
"""
TASKS = yaml.safe_load((PROVISION / "tasks/prefect.yml").read_text())
SAME = f"""
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: provision, tasks_from: command, public: true, apply: {{when: false}}}}
    - {json.dumps(TASKS[1])}
    - {here.told("told", "{'from': provision_prefect_from, 'upgraded': provision_prefect_upgraded}")}
"""
STREAMERS = {
    "192.0.2.77": {},
    "called": {"ansible_host": "192.0.2.78"},
    "by-ipv6": {"ansible_host": "fd00::7"},
    "elsewhere": {"ansible_host": "192.0.2.79", "lectern_address": "fd00::7"},
    "everywhere": {"ansible_host": "192.0.2.7", "streamer_health_bind": "0.0.0.0:8802"},
    "everywhere-ipv6": {"ansible_host": "fd00::7", "streamer_health_bind": "[::]:8801"},
}
"""Hosts that have nothing but what is written here: one play says of all of them where they are asked."""


def more(**groups: Mapping[str, object]) -> str:
    return json.dumps({group: {"hosts": hosts} for group, hosts in groups.items()})


TWO = more(prefect={"teacher1": None, "prefect2": {"ansible_host": "192.0.2.61"}})
WRONG = more(prefect={"prefect2": {"ansible_host": "192.0.2.61"}, "teacher1": None})


@dataclass(frozen=True)
class Written:
    folder: Path

    def told(self, host: str, kind: str) -> Any:
        return json.loads((self.folder / f"{host}.{kind}").read_text())

    def text(self, host: str, kind: str) -> str:
        return str(self.told(host, "texts")[kind])

    def env(self, host: str) -> dict[str, str]:
        return dict(re.findall(r"^(PREFECT_\w+)='(.*)'$", self.text(host, "env"), re.MULTILINE))

    def command(self, host: str, kind: str, program: str) -> str:
        found = configparser.RawConfigParser()
        found.read_string(self.text(host, kind))
        return found[f"program:{program}"]["command"]

    def closed(self) -> set[int]:
        """The ports that the teacher's firewall closes."""
        [ports] = re.findall(r"tcp dport { (.*) } drop", self.text("teacher1", "firewall"))
        return {int(one) for one in ports.split(", ")}

    def let_in(self) -> set[str]:
        [allowed] = re.findall(r"elements = { (127.*) }", self.text("teacher1", "firewall"))
        return {*allowed.split(", ")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """For the inventory as it is shipped."""
    return Written(here.written(tmp_path_factory.mktemp("one"), render()))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """For two Prefect servers."""
    return Written(here.written(tmp_path_factory.mktemp("two"), render(), TWO))


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """For a teacher that has another port, and an address that Ansible does not use."""
    teacher = {"teacher_api_bind": "0.0.0.0:9900", "lectern_address": "10.0.0.10"}
    hosts = more(streamers=STREAMERS, teachers={"teacher1": teacher})
    folder = tmp_path_factory.mktemp("changed")
    return Written(here.written(folder, f"{render()}{ASKED}", hosts, host_role="streamer"))


# -- where hosts are reached, and who is let in ------------------------------------------------------------------------


def test_the_firewall_closes_the_ports_at_which_the_hosts_answer(one: Written, two: Written, changed: Written) -> None:
    """RUNBOOK.md has them changed, if another program has the port."""
    assert one.closed() == {6379, 4200, 5432, 8800, 8801}
    assert changed.closed() == {6379, 4200, 5432, 9900, 8801}
    assert two.closed() == one.closed() | {4201}


def test_several_sentinels_keep_no_host_without_its_firewall(tmp_path: Path) -> None:
    """docs/SCALING.md names them for whom one machine is too few; their URL has more than one port."""
    url = "redis+sentinel://:hidden@192.0.2.10:26379,192.0.2.11:26379/mymaster/0"
    firewall = render(here.texts({"firewall": TEMPLATES["firewall"]}))
    found = Written(here.written(tmp_path, firewall, lectern_redis_url=url))
    assert found.closed() == {26379, 4200, 5432, 8800, 8801}


def test_each_host_is_let_in_also_one_whose_name_is_its_address(two: Written, changed: Written) -> None:
    """An inventory need not name it twice."""
    assert "192.0.2.61" in two.let_in()
    assert {"192.0.2.77", "192.0.2.78", "192.0.2.21"} <= changed.let_in()
    assert "called" not in changed.let_in(), "a name is no address"


def test_a_host_whose_address_nobody_knows_is_not_shut_out_but_named(tmp_path: Path) -> None:
    """Shut out, a streamer reaches no Redis, and the run would have said that all is well."""
    hosts = {"cafe": {}, "tea": {"ansible_host": "tea.example"}, "known": {"ansible_host": "fd00::7"}}
    done = here.played_with(
        tmp_path, here.play_of("teacher1", "provision", "firewall_addresses"), more(streamers=hosts)
    )
    assert "of cafe, tea the inventory has only a name" in here.refused(done)


def test_postgresql_listens_at_the_address_by_which_the_others_reach_the_host(one: Written, changed: Written) -> None:
    """By `lectern_address`, if Ansible reaches it by another one."""
    assert "= 'localhost, 192.0.2.10'" in one.text("teacher1", "postgres")
    assert "= 'localhost, 10.0.0.10, 192.0.2.10'" in changed.text("teacher1", "postgres")


def test_a_streamer_is_asked_where_it_answers_also_at_an_address_of_ipv6(changed: Written) -> None:
    """Without brackets nobody knows where the address ends, and what listens at `[::]` takes no IPv4.

    The rollout would take each such streamer back, and Prometheus refuse it as a target.
    """
    told = {host: changed.told(host, "asked") for host in STREAMERS}
    for host in ("by-ipv6", "elsewhere"):
        assert told[host] == ["[fd00::7]:8801", "http://[fd00::7]:8801/health"]
    assert told["everywhere"][1] == "http://127.0.0.1:8802/health"
    assert told["everywhere-ipv6"][1] == "http://[::1]:8801/health"
    scraped = json.loads(changed.told("teacher1", "targets")["targets"])
    targets = {one["labels"]["instance"]: one["targets"] for one in scraped}
    assert (targets["everywhere-ipv6"], targets["everywhere"]) == (["[fd00::7]:8801"], ["192.0.2.7:8802"])


# -- two Prefect servers -----------------------------------------------------------------------------------------------


def test_two_servers_share_what_those_of_the_trial_cluster_share(two: Written) -> None:
    """Each setting that they have is written, and says the same but for where things are."""
    cluster = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["x-prefect"]["environment"]
    its_own = {"PREFECT_HOME", "PREFECT_UI_STATIC_DIRECTORY", "PREFECT_UI_API_URL", "DO_NOT_TRACK"}
    first, second = two.env("teacher1"), two.env("prefect2")
    for name in set(cluster) - its_own:
        assert first[name] == second[name]
        assert first[name] == cluster[name] or "URL" in name


def test_two_servers_find_the_database_and_redis_on_the_control_host(two: Written) -> None:
    env = two.env("prefect2")
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("@192.0.2.10/prefect")
    assert env["PREFECT_REDIS_MESSAGING_URL"] == "redis://lectern:CHANGE-ME@192.0.2.10:6379/1"
    assert env["PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL"] == env["PREFECT_REDIS_MESSAGING_URL"]
    assert env["PREFECT_SERVER_DOCKET_URL"] == "redis://lectern:CHANGE-ME@192.0.2.10:6379/2"
    assert "max_connections = 200" in two.text("teacher1", "postgres")


def test_two_servers_may_have_addresses_of_ipv6_and_an_apostrophe_in_redis_password_ends_no_line(
    tmp_path: Path,
) -> None:
    """Without brackets nothing could tell where the port begins; what is between apostrophes, a URL may encode."""
    hosts = more(prefect={"teacher1": {}, "prefect2": {"ansible_host": "fd00::61"}})
    odd = {"vault_redis_url": "redis://lectern:it's@192.0.2.10:6379/0"}
    odd |= {"lectern_prefect_api_url": "http://[fd00::10]:4200/api"}
    found = Written(here.written(tmp_path, render(), hosts, **odd))
    env = found.env("prefect2")
    assert env["PREFECT_REDIS_MESSAGING_URL"] == "redis://lectern:it%27s@192.0.2.10:6379/1"
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("@[fd00::10]/prefect")
    assert found.told("prefect2", "told")[2] == "http://[fd00::61]:4201/api/health"


def test_each_serves_beside_the_balancer_and_only_the_first_has_the_services(two: Written) -> None:
    for host, address in (("teacher1", "192.0.2.10"), ("prefect2", "192.0.2.61")):
        env = two.env(host)
        assert (env["PREFECT_SERVER_API_HOST"], env["PREFECT_SERVER_API_PORT"]) == (address, "4201")
        assert env["PREFECT_API_URL"] == env["PREFECT_UI_API_URL"] == "http://192.0.2.10:4200/api"
        assert two.command(host, "program", "prefect").endswith('prefect server start --no-services"')
        assert "prefect server start --no-services\n" in two.text(host, "service")
        assert f"server {host} {address}:4201" in two.text("teacher1", "balancer")
    assert two.command("teacher1", "services", "prefect-services").endswith('prefect server services start"')
    assert two.told("teacher1", "told")[:2] == [["prefect", "prefect-services"], ["prefect2"]]
    assert two.told("prefect2", "told")[:2] == [["prefect"], ["teacher1"]]


def test_the_balancer_asks_and_waits_as_that_of_the_trial_cluster(two: Written) -> None:
    """It goes by the addresses of the inventory, where that one asks Docker for them."""
    docker = re.compile(r"resolvers|parse-resolv|hold valid|bind |server |user |group |global|#|$")

    def said(text: str) -> set[str]:
        lines = {line.strip().removesuffix(" resolvers docker") for line in text.splitlines()}
        return {line for line in lines if not docker.match(line)}

    ours = two.text("teacher1", "balancer")
    assert said(ours) == said((CLUSTER / "haproxy.cfg").read_text())
    assert "bind 192.0.2.10:4200\n" in ours


def test_one_server_has_nothing_of_it(one: Written) -> None:
    env = one.env("teacher1")
    assert not [name for name in env if "REDIS" in name or "DOCKET" in name or "MIGRATE" in name]
    assert (env["PREFECT_SERVER_API_HOST"], env["PREFECT_SERVER_API_PORT"]) == ("192.0.2.10", "4200")
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("@localhost/prefect")
    assert one.command("teacher1", "program", "prefect").endswith('prefect server start"')
    assert one.told("teacher1", "told")[:2] == [["prefect"], []]
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
    play = here.play_of("prefect", "provision", "prefect")
    done = here.played_with(tmp_path, play, hosts, provision_root=str(tmp_path / "opt"), **more)
    assert "the group prefect names 2 hosts" in here.refused(done)


def asks(tasks: str) -> str:
    """When a file of tasks is included."""
    [asked] = [one for one in TASKS if one.get("ansible.builtin.include_tasks") == tasks]
    return str(asked["when"])


@pytest.mark.parametrize("several", [False, True], ids=["alone", "one of several"])
def test_a_server_that_serves_alone_is_not_upgraded_and_joined_at_once(tmp_path: Path, *, several: bool) -> None:
    """After both there would be no way back; two that serve together are upgraded together."""
    (tmp_path / "env").write_text("PREFECT_MESSAGING_BROKER='x'\n" if several else "PREFECT_HOME='x'\n")
    link = {"stat": {"exists": True, "lnk_source": "/opt/lectern/releases/1.9.0"}}
    given = {"provision_prefect_env": str(tmp_path / "env"), "provision_prefect_link": link}
    done = here.played_with(tmp_path, here.play_of("teacher1", "provision", "prefect_alone"), TWO, **given)
    assert done.returncode == (0 if several else 2), done.stdout
    assert ("with -e release=1.9.0" in " ".join(done.stdout.split())) is not several
    assert "provision_prefect_upgraded" in asks("prefect_alone.yml")


@pytest.mark.parametrize(("hosts", "status"), [("prefect2", 2), ("prefect", 0)])
def test_no_server_goes_ahead_of_the_first_which_changes_their_database(
    tmp_path: Path, hosts: str, status: int
) -> None:
    """As `provision.yml --limit prefect2` with a newer release would have it."""
    play = here.play_of(hosts, "provision", "prefect_together")
    done = here.played_with(tmp_path, play, TWO, release_asked={"version": "2.2.0"})
    assert done.returncode == status, done.stdout
    assert ("Type this again with --limit teacher1:prefect2." in " ".join(done.stdout.split())) is bool(status)
    assert (
        asks("prefect_together.yml") == "not provision_prefect_first and provision_prefect_from != release_asked.into"
    )


def test_the_database_is_backed_up_and_migrated_by_the_first_before_any_serves() -> None:
    server = (PROVISION / "tasks/prefect_server.yml").read_text()
    order = ["include_tasks: prefect_backup.yml", "- upgrade", 'dest: "{{ provision_root }}/prefect"', "program.yml"]
    assert sorted(order, key=server.index) == order
    assert server.count("provision_prefect_first") == 2
    [play] = [one for one in yaml.safe_load((ROOT / "playbooks/provision.yml").read_text()) if "serial" in one]
    assert (play["hosts"], play["serial"]) == ("control:prefect", 1)


def test_a_server_of_the_same_release_is_not_upgraded_again_also_if_its_folder_is_a_link(tmp_path: Path) -> None:
    """To another disk: to be upgraded again would lose the way back of the last time."""
    root = tmp_path / "opt"
    root.symlink_to("disk")
    (tmp_path / "disk/releases/2.0.0").mkdir(parents=True)
    (root / "prefect").symlink_to("releases/2.0.0")
    asked = {"into": f"{root}/releases/2.0.0", "version": "2.0.0"}
    out = here.written(tmp_path, SAME, provision_root=str(root), release_asked=asked)
    assert Written(out).told("teacher1", "told") == {"from": asked["into"], "upgraded": False}
