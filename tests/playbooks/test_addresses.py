"""Where the hosts of an inventory are reached, and who is let in there, however the inventory writes them."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.playbooks.test_prefect_apart import RENDER, TEMPLATES, Written, played

FIREWALL = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: prefect_restart, public: true, apply: {when: false}}
    - ansible.builtin.import_role: {name: provision, tasks_from: firewall_addresses}
"""
ASKED = """
- hosts: streamers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: streamer, tasks_from: verify, public: true, apply: {when: false}}
    - ansible.builtin.copy:
        content: "{{ [streamer_health_bind, streamer_health_url] | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}.asked"
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.template: {src: "{{ templates }}/prometheus-targets.json.j2", dest: "{{ out }}/targets"}
"""
PREFECT = """
- hosts: control:prefect
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: prefect_restart, public: true, apply: {when: false}}
    - ansible.builtin.copy:
        content: "{{ [provision_prefect_health_url, provision_prefect_database_url] | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}"
"""
FILES = {name: TEMPLATES[name] for name in ("firewall", "postgres")}
STREAMERS = {
    "192.0.2.77": {},
    "called": {"ansible_host": "192.0.2.78"},
    "by-ipv6": {"ansible_host": "fd00::7"},
    "elsewhere": {"ansible_host": "192.0.2.79", "lectern_address": "fd00::7"},
    "everywhere": {"ansible_host": "192.0.2.7", "streamer_health_bind": "0.0.0.0:8802"},
    "everywhere-ipv6": {"ansible_host": "fd00::7", "streamer_health_bind": "[::]:8801"},
}
"""Hosts that have nothing but what is written here: one play says of all of them where they are asked."""


def more(group: str, hosts: Mapping[str, object]) -> str:
    return json.dumps({group: {"hosts": hosts}})


def closed(firewall: str) -> set[int]:
    [ports] = re.findall(r"tcp dport { (.*) } drop", firewall)
    return {int(one) for one in ports.split(", ")}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What is written for the inventory as it is shipped."""
    folder = tmp_path_factory.mktemp("shipped")
    done = played(folder, RENDER, "all: {}", files=FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    return Written(folder / "out")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """What is written where the teacher has another port, and an address that Ansible does not use."""
    folder, teacher = tmp_path_factory.mktemp("changed"), {"teacher_api_bind": "0.0.0.0:9900"}
    hosts = json.loads(more("streamers", STREAMERS)) | json.loads(
        more("teachers", {"teacher1": {**teacher, "lectern_address": "10.0.0.10"}})
    )
    done = played(folder, f"{RENDER}{ASKED}", json.dumps(hosts), files=FILES, host_role="streamer")
    assert done.returncode == 0, done.stdout + done.stderr
    return Written(folder / "out")


def test_the_firewall_closes_the_ports_at_which_the_hosts_answer(shipped: Written, changed: Written) -> None:
    """RUNBOOK.md has them changed, if another program has the port."""
    assert closed(shipped.text("teacher1", "firewall")) == {6379, 4200, 5432, 8800, 8801}
    assert closed(changed.text("teacher1", "firewall")) == {6379, 4200, 5432, 9900, 8801}


def test_a_host_whose_name_is_its_address_is_let_in(changed: Written) -> None:
    """An inventory need not name it twice."""
    [allowed] = re.findall(r"elements = { (127.*) }", changed.text("teacher1", "firewall"))
    assert {"192.0.2.77", "192.0.2.78", "192.0.2.21"} <= {*allowed.split(", ")}
    assert "called" not in allowed, "a name is no address"


def test_a_host_whose_address_nobody_knows_is_not_shut_out_but_named(tmp_path: Path) -> None:
    """Shut out, a streamer reaches no Redis, and the run would have said that all is well."""
    hosts = {"cafe": {}, "tea": {"ansible_host": "tea.example"}, "known": {"ansible_host": "fd00::7"}}
    done = played(tmp_path, FIREWALL, more("streamers", hosts))
    said = " ".join(done.stdout.split())
    assert (done.returncode, "of cafe, tea the inventory has only a name" in said) == (2, True), said


def test_postgresql_listens_at_the_address_by_which_the_others_reach_the_host(
    shipped: Written, changed: Written
) -> None:
    """By `lectern_address`, if Ansible reaches it by another one."""
    assert "= 'localhost, 192.0.2.10'" in shipped.text("teacher1", "postgres")
    assert "= 'localhost, 10.0.0.10, 192.0.2.10'" in changed.text("teacher1", "postgres")


@pytest.mark.parametrize("host", ["by-ipv6", "elsewhere"])
def test_a_streamer_is_asked_where_it_answers_also_at_an_address_of_ipv6(changed: Written, host: str) -> None:
    """Without brackets nobody knows where the address ends, and the rollout would take each such streamer back."""
    assert json.loads(changed.text(host, "asked")) == ["[fd00::7]:8801", "http://[fd00::7]:8801/health"]


@pytest.mark.parametrize(
    ("host", "url", "bind", "at"),
    [
        ("everywhere", "http://127.0.0.1:8802/health", "0.0.0.0", "127.0.0.1"),
        ("everywhere-ipv6", "http://[::1]:8801/health", "::", "::1"),
    ],
)
def test_a_streamer_that_answers_everywhere_is_asked_at_a_loopback_address_of_that_kind(
    changed: Written, host: str, url: str, bind: str, at: str
) -> None:
    """What listens at `[::]` takes no IPv4: the rollout would take each such streamer back."""
    assert json.loads(changed.text(host, "asked"))[1] == url
    assert asyncio.run(_reached(bind, at))


async def _reached(bind: str, address: str) -> bool:
    """Whether what listens at *bind*, as a host's HTTP server does, is reached at *address*."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), bind, 0)
    async with server:
        try:
            _, writer = await asyncio.open_connection(address, server.sockets[0].getsockname()[1])
        except OSError:
            return False
        writer.close()
        return True


def test_prometheus_scrapes_a_host_that_answers_everywhere_at_its_address_also_of_ipv6(changed: Written) -> None:
    """It refuses a target of which it cannot tell the port."""
    told = {one["labels"]["instance"]: one["targets"] for one in json.loads((changed.folder / "targets").read_text())}
    assert (told["everywhere-ipv6"], told["everywhere"]) == (["[fd00::7]:8801"], ["192.0.2.7:8802"])


def test_two_prefect_servers_may_have_addresses_of_ipv6(tmp_path: Path) -> None:
    """The URLs of each and of their database have brackets, or nothing could tell where the port begins."""
    two = json.dumps({"prefect": {"hosts": {"teacher1": {}, "prefect2": {"ansible_host": "fd00::61"}}}})
    done = played(tmp_path, PREFECT, two, lectern_prefect_api_url="http://[fd00::10]:4200/api")
    assert done.returncode == 0, done.stdout + done.stderr
    health, database = json.loads((tmp_path / "out/prefect2").read_text())
    assert health == "http://[fd00::61]:4201/api/health"
    assert database.endswith("@[fd00::10]/prefect")
