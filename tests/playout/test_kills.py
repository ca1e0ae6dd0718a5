"""A worker is killed at any moment, as a process: what the receiver gets is the file, in one session.

At which instruction it may be, `test_airing` says; what a kernel has of a dead process is seen here, also if it loses
packets.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.playout import flvs, patient
from tests.playout.stage import loopback
from tests.waiting import wait_until

pytestmark = pytest.mark.live

ONE_BATCH_S = 0.6
"""The end cuts off the batch of which a full socket holds a part: 128 KB, and a picture, at 350 KB a second."""


@pytest.mark.parametrize("is_full", [False, True], ids=["a socket that takes all", "a full one"])
def test_a_death_is_not_noticed(tmp_path: Path, is_full: bool) -> None:
    """Of a batch that is half in the socket the next worker sends the other half."""
    tags = flvs.lesson(60, size=12_000 if is_full else 600)  # it outlasts the deaths
    with loopback(tmp_path, tags, program=patient.PROGRAM) as (playout, receiver, path):
        receiver.ping_every_s, receiver.window = 0.1, 2000
        if is_full:
            receiver.small_buffer(8192)
        playout.air("c1", path, receiver.url("c1"), starts_in_s=3)
        session = receiver.session("c1")
        for _ in range(5):
            count = len(session.packets())
            wait_until(lambda: len(session.packets()) > count + 20, description="more packets")  # noqa: B023
            if is_full:
                receiver.frozen.set()
                time.sleep(0.5)  # the socket fills
            taken_over = playout.kill_worker()
            receiver.frozen.clear()
            assert (taken_over["sessions"], taken_over["kept"]) == (1, 1)
        count, lesson = len(session.packets()), playout.timetable["c1"]
        length_s = time.time() + 3 - lesson["start"]
        playout.air("c1", path, receiver.url("c1"), start=lesson["start"], length_s=length_s)
        wait_until(lambda: session.ended, description="the end")
        assert (session.ended, receiver.of("c1")) == ("eof", [session])
        (ended,) = playout.told("ended")
        assert {one["event"] for one in playout.events} <= {"connected", "on_air", "ended"}
        packets = session.packets()
        assert len(packets) > count
        assert packets == tags[: len(packets)]
        (sent,) = ended["as_run"]  # the clock may be ahead of it, where much must be sent again
        said_s = sent["position_s"] + sent["sent_s"]
        lacks_s = said_s - packets[-1][1] / 1000
        assert lacks_s < (ONE_BATCH_S if is_full else 0.04), "what is said to be sent has come, but for a last batch"
        assert len(session.pong_numbers) > 10
        assert session.pong_numbers == session.ping_numbers[: len(session.pong_numbers)], "each ping has its one pong"


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
    tests = f"'{sys.executable}' -m pytest -q -n 0 -x -p no:cacheprovider -k 'not packets_are_lost' '{KILLS}'"
    found = alone(f"{LOSS}\n{tests}; code=$?\n{LOST}\nexit $code")
    if found.returncode == NO_SUCH_KERNEL or "unshare: " in found.stderr:
        pytest.skip(f"no network of its own in which packets are lost: {found.stderr.strip() or 'no netem, no filter'}")
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    lost = [int(line.split()[1]) for line in found.stdout.splitlines() if line.startswith("lost ")]
    assert sum(lost) >= FEWEST, f"so few packets were lost that nothing is shown: {lost}"
