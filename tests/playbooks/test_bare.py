"""Bare Debian hosts become a fresh teacher, streamer and transcoder, by the words of README.md and RUNBOOK.md."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.playbooks.hosts.bare.clone import Clone, readme_commands
from tests.playbooks.hosts.bare.hosts import BareHosts, bare_hosts
from tests.playbooks.hosts.controller import Played
from tests.stage import runbook, wait_until

pytestmark = [
    pytest.mark.night,
    pytest.mark.timeout(3000),
]  # packages, a release that is built, and six playbooks on three hosts


@pytest.fixture(scope="module")
def hosts(docker_engine: None, short_folder: Path) -> Iterator[BareHosts]:
    with bare_hosts(short_folder) as found:
        yield found


@pytest.fixture(scope="module")
def clone(hosts: BareHosts, short_folder: Path) -> Clone:
    made = Clone(short_folder, hosts)
    for inventory in ("staging", "production"):
        made.name_the_hosts(inventory)
    return made


def test_the_readme_is_followed_from_the_clone_to_the_way_back(clone: Clone, hosts: BareHosts) -> None:
    typed = readme_commands("Roll it out")
    assert [one.split()[0] for one in typed[:2]] == ["make", "ansible-vault"]
    for line in typed[:2]:
        clone.type(line)
    provision, *rollout, back = typed[2:]
    assert min(Played(0, clone.type(provision), []).changed.values()) > 0
    assert set(Played(0, clone.type(provision), []).changed.values()) == {0}, "a second run changes nothing"
    _is_provisioned(hosts)
    for line in rollout:
        clone.type(line)
    _is_at_work(hosts)
    clone.type(back)
    assert "no release is rolled out" in hosts.run("teacher", "lectern", "status", check=False)


def test_the_runbook_is_followed_on_hosts_that_were_rolled_back(clone: Clone, hosts: BareHosts) -> None:
    vault = clone.folder / "inventory/production.vault.yml"
    vault.write_bytes((clone.folder / "inventory/staging.vault.yml").read_bytes())
    # The names of production's hosts are other ones; the same machines have them.
    typed = runbook.commands("How do I roll out?", "ansible-playbook")
    for line in sorted(typed, key=lambda one: "rollout.yml" in one):  # a sentence before it says what comes first
        clone.type(line.replace("VERSION", "2.0.0"))
    _is_at_work(hosts, streamer="streamer1")


def _is_provisioned(hosts: BareHosts) -> None:
    control, streamer, stranger = (hosts.addresses[name] for name in ("teacher", "streamer", "stranger"))
    assert stranger not in hosts.run("teacher", "nft", "list", "table", "inet", "lectern")
    for port in (6379, 4200, 5432):
        assert hosts.reaches("streamer", control, port)
        assert not hosts.reaches("stranger", control, port), "the firewall is closed to who is not in the inventory"
    assert hosts.reaches("stranger", streamer, 22), "and has nothing to do with SSH"
    redis = hosts.run("teacher", "cat", "/etc/lectern/redis.conf")
    assert "appendonly yes" in redis
    assert "maxmemory-policy noeviction" in redis
    for name in ("teacher", "streamer"):
        users = hosts.run(name, "ps", "-eo", "user:20,args")
        ours = [line.split()[0] for line in users.splitlines() if "/opt/lectern/" in line and "ps -eo" not in line]
        assert ours
        assert set(ours) == {"lectern"}, "nothing of ours runs as root"
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/etc/lectern/ecs_known_hosts"
    come_in = f"{ssh} -i /etc/lectern/ecs_key transcode@{hosts.addresses['ecs']} ffmpeg -version"
    assert "ffmpeg version" in hosts.run("teacher", "runuser", "-u", "lectern", "--", *come_in.split())
    assert "restrict ssh-ed25519" in hosts.run("ecs", "cat", "/var/lib/transcode/.ssh/authorized_keys")


def _is_at_work(hosts: BareHosts, streamer: str = "staging-streamer") -> None:
    wait_until(
        lambda: streamer in hosts.run("teacher", "lectern", "status", check=False),
        timeout_s=90,
        description="the teacher has heard the streamer",
    )
    assert "agree" in hosts.run("streamer", "lectern", "cache", "reconcile")
    for name, host in (
        ("lectern-backup", "teacher"),
        ("lectern-backup-prefect", "teacher"),
        ("lectern-backup", "streamer"),
    ):
        user = ["runuser", "-u", "lectern", "--"]
        assert "Its restore was tried." in hosts.run(host, *user, f"/etc/lectern/{name}.sh")
    kept = hosts.run("teacher", "sh", "-c", "cat /var/backups/lectern-prefect/prefect-*/manifest.json")
    told = json.JSONDecoder().raw_decode(kept)[0]
    assert told["database"] == "localhost/prefect", "with more than one machine it is PostgreSQL"
    assert told["rows"]["deployment"] > 0
