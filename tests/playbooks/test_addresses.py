"""Where the hosts of an inventory are reached, and who is let in there, however the inventory writes them."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.playbooks.test_prefect_apart import played, written

pytestmark = pytest.mark.live

FIREWALL = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: prefect_restart, public: true, apply: {when: false}}
    - ansible.builtin.import_role: {name: provision, tasks_from: firewall_addresses}
"""
TARGETS = """
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
HEALTH = """
- hosts: cafe
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: streamer, tasks_from: verify, public: true, apply: {when: false}}
    - ansible.builtin.copy:
        content: "{{ [streamer_health_bind, streamer_health_url] | to_json }}"
        dest: "{{ out }}/told"
"""


def more(group: str, **hosts: dict[str, str]) -> str:
    return json.dumps({group: {"hosts": hosts}})


def closed(firewall: str) -> set[int]:
    [ports] = re.findall(r"tcp dport { (.*) } drop", firewall)
    return {int(one) for one in ports.split(", ")}


def test_the_firewall_closes_the_ports_at_which_the_hosts_answer(tmp_path: Path) -> None:
    """RUNBOOK.md has them changed, if another program has the port."""
    for name in ("as shipped", "changed"):
        (tmp_path / name).mkdir()
    shipped = written(tmp_path / "as shipped", "all: {}")
    assert closed(shipped.text("teacher1", "firewall")) == {6379, 4200, 5432, 8800, 8801}
    changed = written(tmp_path / "changed", more("teachers", teacher1={"teacher_api_bind": "0.0.0.0:9900"}))
    assert closed(changed.text("teacher1", "firewall")) == {6379, 4200, 5432, 9900, 8801}


def test_a_host_whose_name_is_its_address_is_let_in(tmp_path: Path) -> None:
    """An inventory need not name it twice."""
    found = written(tmp_path, more("streamers", **{"192.0.2.77": {}, "cafe": {"ansible_host": "192.0.2.78"}}))
    [allowed] = re.findall(r"elements = { (127.*) }", found.text("teacher1", "firewall"))
    assert {"192.0.2.77", "192.0.2.78", "192.0.2.21"} <= {*allowed.split(", ")}
    assert "cafe" not in allowed, "a name is no address"


@pytest.mark.parametrize("given", [{}, {"ansible_host": "cafe.example"}, {"ansible_host": "fd00::7"}])
def test_a_host_whose_address_nobody_knows_is_not_shut_out_but_named(tmp_path: Path, given: dict[str, str]) -> None:
    """Shut out, a streamer reaches no Redis, and the run would have said that all is well."""
    done = played(tmp_path, FIREWALL, more("streamers", cafe=given))
    said = " ".join(done.stdout.split())
    assert (done.returncode, "cafe: lectern_address" in said) == ((0, False) if "::" in str(given) else (2, True)), said


def test_postgresql_listens_at_the_address_by_which_the_others_reach_the_host(tmp_path: Path) -> None:
    """By `lectern_address`, if Ansible reaches it by another one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert "= 'localhost, 192.0.2.10'" in written(tmp_path / "one", "all: {}").text("teacher1", "postgres")
    found = written(tmp_path / "two", more("control", teacher1={"lectern_address": "10.0.0.10"}))
    assert "= 'localhost, 10.0.0.10, 192.0.2.10'" in found.text("teacher1", "postgres")


@pytest.mark.parametrize("where", ["ansible_host", "lectern_address"])
def test_a_streamer_is_asked_where_it_answers_also_at_an_address_of_ipv6(tmp_path: Path, where: str) -> None:
    """Without brackets nobody knows where the address ends, and the rollout would take each such streamer back."""
    host = {"ansible_host": "192.0.2.77", where: "fd00::7"}
    done = played(tmp_path, HEALTH, more("streamers", cafe=host), host_role="streamer")
    assert done.returncode == 0, done.stdout + done.stderr
    bind, url = json.loads((tmp_path / "out/told").read_text())
    assert (bind, url) == ("[fd00::7]:8801", "http://[fd00::7]:8801/health")


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_a_streamer_that_answers_everywhere_is_asked_at_a_loopback_address_of_that_kind(
    tmp_path: Path, everywhere: str
) -> None:
    """What listens at `[::]` takes no IPv4: the rollout would take each such streamer back."""
    host = {"ansible_host": "fd00::7", "streamer_health_bind": f"{everywhere}:8801"}
    done = played(tmp_path, HEALTH, more("streamers", cafe=host), host_role="streamer")
    assert done.returncode == 0, done.stdout + done.stderr
    _, url = json.loads((tmp_path / "out/told").read_text())
    loopback, at = {"0.0.0.0": ("127.0.0.1",) * 2, "[::]": ("[::1]", "::1")}[everywhere]
    assert url == f"http://{loopback}:8801/health"
    assert asyncio.run(_reached(everywhere.strip("[]"), at))


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


def test_prometheus_scrapes_a_host_that_answers_everywhere_at_its_address_also_of_ipv6(tmp_path: Path) -> None:
    """It refuses a target of which it cannot tell the port."""
    hosts = {
        "cafe": {"ansible_host": "fd00::7", "streamer_health_bind": "[::]:8801"},
        "tea": {"ansible_host": "192.0.2.7", "streamer_health_bind": "0.0.0.0:8802"},
    }
    done = played(tmp_path, TARGETS, more("streamers", **hosts))
    assert done.returncode == 0, done.stdout + done.stderr
    told = {one["labels"]["instance"]: one["targets"] for one in json.loads((tmp_path / "out/targets").read_text())}
    assert (told["cafe"], told["tea"]) == (["[fd00::7]:8801"], ["192.0.2.7:8802"])


def test_two_prefect_servers_may_have_addresses_of_ipv6(tmp_path: Path) -> None:
    """The URLs of each and of their database have brackets, or nothing could tell where the port begins."""
    two = json.dumps({"prefect": {"hosts": {"teacher1": {}, "prefect2": {"ansible_host": "fd00::61"}}}})
    done = played(tmp_path, PREFECT, two, lectern_prefect_api_url="http://[fd00::10]:4200/api")
    assert done.returncode == 0, done.stdout + done.stderr
    health, database = json.loads((tmp_path / "out/prefect2").read_text())
    assert health == "http://[fd00::61]:4201/api/health"
    assert database.endswith("@[fd00::10]/prefect")
