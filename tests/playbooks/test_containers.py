"""Debian hosts with sshd, sudo and supervisor: provisioned, rolled out onto, cut off, and brought back."""

import pytest

from tests.playbooks.conftest import Build
from tests.playbooks.hosts.fleet import Fleet
from tests.playbooks.hosts.host import differences
from tests.stage.leases import granting

pytestmark = [pytest.mark.night, pytest.mark.timeout(1800)]  # the first one builds the image of the hosts
PYTHON = "3.13"
"""Of the Debian in compose.yml."""
ALL = ("teacher", "streamer1", "streamer2")


@pytest.fixture(scope="module")
def hosts(fleet: Fleet, built_release: Build) -> Fleet:
    fleet.use(built_release(PYTHON))
    return fleet


def test_hosts_go_out_one_after_the_other_and_back(hosts: Fleet) -> None:
    """By SSH and sudo, for an old program that is root's and one that is not; wget is installed where it is missing."""
    hosts.reset()
    assert hosts.run("provision").assert_ok().changed == dict.fromkeys(("control1", *ALL), 0)
    hosts.containers["streamer2"].run(["apt-get", "-qq", "remove", "-y", "wget"])
    hosts.run("rollout").assert_ok()
    assert [one for name in ALL for one in hosts.before[name].not_new()] == []
    assert hosts.run("rollout").assert_ok().changed == dict.fromkeys(ALL, 0)
    hosts.run("rollback").assert_ok()
    assert [one for name in ALL for one in hosts.before[name].not_old()] == []


def test_a_window_ends_by_itself_though_the_controller_lost_its_host_and_the_next_host_is_not_begun(
    hosts: Fleet,
) -> None:
    streamers = ("streamer1", "streamer2")
    hosts.reset(*streamers)
    first, second = hosts.hosts["streamer1"], hosts.hosts["streamer2"].snapshot()
    hosts.controller.cut = first.container.cut
    fault = {"kind": "cut", "task": "Streamer 5", "command": hosts.controller.cut}
    # As by a teacher that was rolled out before them: without a lease, they are not well for long.
    with granting(hosts.redis, streamers, key="streamers", stream="streamer:{}"):
        played = hosts.run("rollout", "--limit", "streamers", fault=fault)
        first.container.mend()

        assert played.fault_fired
        assert played.exit_code != 0
        assert any("unreachable" in one["how"] for one in played.tasks)
        assert differences(second, hosts.hosts["streamer2"].snapshot()) == []
        assert hosts.before["streamer2"].not_old() == []
        first.settle()
        hosts.run("rollout", "--limit", "streamers").assert_ok()
        assert [one for name in streamers for one in hosts.before[name].not_new()] == []
