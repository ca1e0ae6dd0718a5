"""The worker is killed at each instruction while 3 % of all packets are lost, in a network that the test has alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

LOSS = """
tc qdisc add dev lo root netem loss 3% 2>/dev/null ||
iptables -A INPUT -p tcp -m statistic --mode random --probability 0.03 -j DROP 2>/dev/null ||
nft 'add table ip loss; add chain ip loss in { type filter hook input priority 0; }; add rule ip loss in ip protocol tcp
  numgen random mod 100 < 3 counter drop' 2>/dev/null || exit 77
"""
"""Whichever of the three the kernel has."""
LOST = """
tc -s qdisc show dev lo | sed -n 's/.*(dropped \\([0-9]*\\).*/lost \\1/p'
iptables -nvxL INPUT 2>/dev/null | awk '/statistic/ {print "lost", $1}'
nft list ruleset 2>/dev/null | sed -n 's/.*counter packets \\([0-9]*\\) .*drop.*/lost \\1/p'
"""
KILLS = Path(__file__).with_name("test_kills.py")
NO_SUCH_KERNEL = 77
FEWEST = 20
END_S = 280


def alone(script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script where loopback is all there is; who is not root becomes root there, and only there.

    Its processes have numbers of their own, too, and end with it.
    """
    argv = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    argv += [*([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    script = f"ip link set lo up || exit {NO_SUCH_KERNEL}\n{script}"
    return subprocess.run(
        [*argv, script], capture_output=True, text=True, timeout=END_S, check=False, cwd=KILLS.parents[2]
    )


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is missing: no packets are lost")
def test_a_death_is_not_noticed_where_packets_are_lost() -> None:
    """The kernel sends again what was lost, and counts it: what it tells of the stream's bytes stays exact."""
    tests = f"'{sys.executable}' -m pytest -q -n 0 -x -p no:cacheprovider '{KILLS}'"
    found = alone(f"{LOSS}\n{tests}; code=$?\n{LOST}\nexit $code")
    if found.returncode == NO_SUCH_KERNEL or "unshare: " in found.stderr:
        pytest.skip(f"no network of its own in which packets are lost: {found.stderr.strip() or 'no netem, no filter'}")
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    lost = [int(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("lost ")]
    assert sum(lost) >= FEWEST, f"so few packets were lost that nothing is shown: {lost}"
