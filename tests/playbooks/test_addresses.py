"""Where the hosts of an inventory are reached, and who is let in there, however the inventory writes them."""

import json
import re
from pathlib import Path

import pytest

from tests.playbooks.test_prefect_apart import played, written

pytestmark = pytest.mark.timeout(240)  # two or three playbooks, beside other tests
FIREWALL = """
- hosts: teacher1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: provision, tasks_from: prefect_restart, public: true, apply: {when: false}}
    - ansible.builtin.import_role: {name: provision, tasks_from: firewall_addresses}
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
