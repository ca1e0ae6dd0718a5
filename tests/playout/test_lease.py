"""Nothing is sent without a lease, whatever state the worker is in: so that two never air one class."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lectern.playout import kernel
from tests.playout import flvs
from tests.playout.receiver import Receiver, wait_until
from tests.playout.stage import Playout

pytestmark = pytest.mark.live


def on_air(playout: Playout, receiver: Receiver, folder: Path) -> None:
    path = flvs.write(folder / "a.flv", flvs.lesson(60))
    playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
    wait_until(lambda: playout.told("on_air"), description="on air")


def test_nothing_is_sent_before_a_lease_is_held(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=0) as playout:
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        time.sleep(1)
        assert receiver.sessions == []
        assert playout.status("c1")["state"] == "no_lease"
        playout.lease(60)
        wait_until(lambda: receiver.of("c1"), description="on air")


@pytest.mark.parametrize("state", ["running", "stopped", "dead"])
def test_nothing_comes_after_the_leases_end(tmp_path: Path, state: str) -> None:
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        on_air(playout, receiver, tmp_path)
        worker = playout.worker()
        until = kernel.boot_now() + 0.8
        playout.ask("lease", until=until)
        over_at = time.monotonic() + until - kernel.boot_now()
        if state == "stopped":
            os.kill(worker, signal.SIGSTOP)
        elif state == "dead":
            os.kill(worker, signal.SIGKILL)
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the reset")
        assert "reset" in str(session.ended).lower()
        assert time.monotonic() < over_at + 1.0
        with suppress(ProcessLookupError):  # the holder may have killed it meanwhile
            os.kill(worker, signal.SIGCONT)
        time.sleep(1.5)
        assert session.media[-1].at < over_at + 0.15
        assert len(receiver.sessions) == 1
        playout.again("lease", until=kernel.boot_now() + 60)
        wait_until(lambda: len(receiver.of("c1")) == 2, description="a new session under a new lease")


def test_a_running_worker_says_that_the_lease_is_over(tmp_path: Path) -> None:
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        on_air(playout, receiver, tmp_path)
        playout.ask("lease", until=0)
        wait_until(lambda: playout.told("lease_over"), description="the event")
        assert playout.status("c1")["state"] == "no_lease"


def test_what_the_kernel_has_queued_is_thrown_away_at_the_leases_end(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60, size=8000))
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        receiver.small_buffer(8192)
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: playout.told("on_air"), description="on air")
        (session,) = receiver.of("c1")
        receiver.frozen.set()
        time.sleep(2)
        playout.lease(0.1)
        time.sleep(0.5)
        came = session.bytes_in
        receiver.frozen.clear()
        wait_until(lambda: session.ended, description="the reset")
        assert session.bytes_in - came < 100_000, "no more than the receiver's own kernel had"


def test_a_lease_that_is_renewed_by_another_client_is_not_noticed(tmp_path: Path) -> None:
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=3) as playout:
        on_air(playout, receiver, tmp_path)
        for _ in range(8):
            playout.lease(2)
            time.sleep(0.4)
        assert len(receiver.sessions) == 1
        assert receiver.sessions[0].ended is None
