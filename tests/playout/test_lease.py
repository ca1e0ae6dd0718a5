"""Nothing is sent without a lease, whatever state the worker is in: so that two never air one class."""

import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from lectern.playout import kernel
from lectern.playout.kernel import StateFile
from lectern.playout.lease import LeaseSocket
from lectern.playout.worker_process import Shared
from tests.playout import flvs
from tests.playout.receiver import senders, sounds
from tests.playout.stage import Playout, loopback
from tests.waiting import wait_until

pytestmark = pytest.mark.live


def test_nothing_is_sent_before_a_lease_is_held(tmp_path: Path) -> None:
    with loopback(tmp_path, lease_s=0) as (playout, receiver, path):
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        time.sleep(1)  # nothing is pushed
        assert receiver.sessions == []
        wait_until(lambda: playout.status("c1")["state"] == "no_lease", description="it is told")
        playout.lease(60)
        wait_until(lambda: receiver.of("c1"), description="on air")


@pytest.mark.parametrize("state", ["running", "stopped", "dead"])
def test_nothing_comes_after_the_leases_end(tmp_path: Path, state: str) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        worker = playout.worker()
        until = kernel.boot_now() + 0.8
        playout.lease_until(until)
        over_s = time.time() + until - kernel.boot_now() - playout.timetable["c1"]["start"]
        if state == "stopped":
            os.kill(worker, signal.SIGSTOP)
        elif state == "dead":
            os.kill(worker, signal.SIGKILL)
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the reset")
        assert "reset" in str(session.ended).lower()
        with suppress(ProcessLookupError):  # the supervisor may have killed it meanwhile
            os.kill(worker, signal.SIGCONT)
        time.sleep(1.5)  # nothing comes after it
        assert flvs.number(sounds(session)[-1].body) * 0.04 < over_s + 0.15
        assert len(receiver.sessions) == 1
        if state == "running":
            wait_until(lambda: playout.told("lease_over"), description="the event")
            wait_until(lambda: playout.told("fenced") or playout.told("broke_off"), description="the class's own event")
            wait_until(lambda: playout.status("c1")["state"] == "no_lease", description="its state")
        playout.lease(60)
        wait_until(lambda: len(receiver.of("c1")) == 2, description="a new session under a new lease")


def test_a_worker_that_hangs_delays_no_renewal(tmp_path: Path) -> None:
    """The supervisor serves it itself, to whoever asks: else a busy worker would let it run out for all classes."""
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        (session,) = receiver.of("c1")
        worker, first_s = playout.worker(), 5
        over_at = time.monotonic() + first_s
        playout.lease(first_s)
        os.kill(worker, signal.SIGSTOP)
        assert playout.lease_until(kernel.boot_now() + 60)["durable"]
        assert time.monotonic() < over_at
        with suppress(ProcessLookupError):  # the supervisor may have killed it meanwhile
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: session.media[-1].at > over_at + 0.5, description="media after the first one's end")
        assert len(receiver.of("c1")) == 1


def test_what_the_kernel_has_queued_is_thrown_away_at_the_leases_end(tmp_path: Path) -> None:
    with loopback(tmp_path, flvs.lesson(60, size=8000)) as (playout, receiver, path):
        receiver.small_buffer(8192)
        playout.put_on_air("c1", path, receiver.url("c1"))
        (session,) = receiver.of("c1")
        receiver.frozen.set()
        time.sleep(2)  # what it does not read piles up
        playout.lease(0.1)
        wait_until(lambda: not senders(receiver.port), description="the lease's end")
        came = session.bytes_in
        receiver.frozen.clear()
        wait_until(lambda: session.ended, description="the reset")
        assert session.bytes_in - came < 100_000, "no more than the receiver's own kernel had"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[LeaseSocket]:
    shared = Shared()
    found = LeaseSocket(tmp_path, shared)
    yield found
    found.close()
    os.close(shared.file)


def asked(served: LeaseSocket, client: socket.socket, line: bytes) -> dict[str, Any]:
    """The answer to *line*, once the supervisor's loop has looked."""
    client.sendall(line + b"\n")
    for _ in range(3):
        served.serve()
    client.settimeout(5)
    found: dict[str, Any] = json.loads(client.recv(4096))
    return found


def connected(where: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(where / "lease.sock"))
    return client


def test_only_its_owner_can_renew_a_lease_and_who_was_left_behind_keeps_nobody_out(
    tmp_path: Path, served: LeaseSocket
) -> None:
    assert stat.S_IMODE((tmp_path / "lease.sock").stat().st_mode) == 0o600
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connected(tmp_path))
            served.serve()
        assert len(served.sockets()) <= 17
        assert asked(served, stack.enter_context(connected(tmp_path)), b'{"until": 7}')["ok"]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b'{"until": 1' + b"0" * 400 + b"}\n",
        b"x" * 20_000,
        b'{"until": 1}\n' * 3000,
    ],
    ids=["it goes", "no text", "deep", "no number of seconds", "no end of line", "a flood"],
)
def test_a_client_that_is_odd_harms_no_other(tmp_path: Path, served: LeaseSocket, odd: bytes) -> None:
    """It is cut off, or gets an answer; the lease of the one beside it is renewed."""
    with connected(tmp_path) as strange, connected(tmp_path) as good:
        strange.settimeout(0)
        with suppress(OSError):
            strange.sendall(odd)
            if not odd:
                strange.close()
        assert asked(served, good, b'{"until": 7}')["lease_until"] == 7
        assert asked(served, good, b"{}")["lease_until"] in (7, 1)


@pytest.mark.parametrize("odd", [b"7", b"null", b'{"until": true}', b'{"until": "7"}', b'{"until": NaN}'])
def test_a_request_without_a_number_changes_nothing(tmp_path: Path, served: LeaseSocket, odd: bytes) -> None:
    with connected(tmp_path) as client:
        assert not asked(served, client, odd)["ok"]
        assert asked(served, client, b"{}")["lease_until"] == 0


def test_who_reads_no_answer_is_cut_off(tmp_path: Path, served: LeaseSocket) -> None:
    """And the supervisor's loop has waited for nobody."""
    with connected(tmp_path) as deaf:
        deaf.settimeout(0)
        for _ in range(10_000):
            with suppress(BlockingIOError):
                deaf.sendall(b"{}\n" * 30)
            served.serve()
            if len(served.sockets()) == 1:
                break
        assert len(served.sockets()) == 1, "only the listener is left"


class Disk:
    """Hangs as long as `go` is not set; `at_work` counts the threads that it holds up."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.at_work = 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found, replace = Disk(), Path.replace

    def hang(self: Path, target: Any) -> Path:
        if tmp_path not in self.parents:  # of another thread of the tests
            return replace(self, target)
        found.at_work += 1
        assert found.go.wait(60)
        found.at_work -= 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", hang)
    monkeypatch.setattr(kernel, "SLOW_S", 0.1)
    yield found
    found.go.set()


def test_a_hanging_disk_holds_up_one_thread_and_has_the_newest_text_in_the_end(tmp_path: Path, disk: Disk) -> None:
    """An older text that is written late must not replace it."""
    texts = ["old", "new"]
    one = StateFile("it", tmp_path / "it.json", lambda: texts[0], is_synced=False)
    for _ in texts:
        one.write()
        wait_until(lambda: "hangs" in (one.problem or ""), description="it is told that the disk hangs")
        texts.reverse()
    texts[:] = ["newest"]
    wait_until(lambda: disk.at_work, description="the disk is asked")
    assert disk.at_work == 1
    disk.go.set()
    wait_until(lambda: one.is_written, description="all is written")
    assert (one.path.read_text(), one.problem) == ("newest", None)


def test_a_hanging_disk_holds_up_no_renewal_and_has_the_newest_lease_in_the_end(
    tmp_path: Path, served: LeaseSocket, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that was ended must not be held again after a restart, because an older one was written late."""
    monkeypatch.setattr(kernel, "SLOW_S", 0.0)
    path = tmp_path / "lease.json"
    with connected(tmp_path) as client:
        for until in (5e8, 0.0):
            answer = asked(served, client, json.dumps({"until": until}).encode())
            assert (answer["lease_until"], answer["durable"]) == (until, False)
            assert "hangs" in answer["why"]
        disk.go.set()
        wait_until(lambda: path.exists() and json.loads(path.read_text())["until"] == 0.0, description="the newest")
        wait_until(lambda: asked(served, client, b"{}")["durable"], description="it is written")


def test_drafts_of_processes_that_were_killed_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    names = ("timetable.jsonl", "aired.jsonl")
    drafts = [folder / f".{name}.{number}.tmp" for name in names for number in (1, 99_999_999)]
    for one in drafts:
        one.write_text("{")
    with Playout(folder) as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=-1, length_s=1.5)
        wait_until(lambda: not any(one.exists() for one in drafts), description="no draft is left")
