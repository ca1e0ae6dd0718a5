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
from unittest.mock import Mock

import pytest

from lectern.playout import kernel
from lectern.playout.lease import LINES_AT_ONCE, MAX_CLIENTS, MAX_LINE_BYTES, LeaseSocket, Misuse, listening, locked
from lectern.playout.sentences import Isolated
from lectern.playout.supervisor import HeldSession
from lectern.playout.worker_process import Shared
from tests.playout import flvs
from tests.playout.receiver import sounds
from tests.playout.stage import Inside, loopback
from tests.waiting import wait_until


@pytest.mark.live
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_nothing_comes_after_the_leases_end(tmp_path: Path, number: int) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        worker = playout.worker()
        until = kernel.boot_now() + 0.8
        playout.lease_until(until)
        over_s = time.time() + until - kernel.boot_now() - playout.timetable["c1"]["start"]
        os.kill(worker, number)
        (session,) = receiver.of("c1")
        wait_until(lambda: session.ended, description="the reset")
        assert "reset" in str(session.ended).lower()
        with suppress(ProcessLookupError):  # the supervisor may have killed it meanwhile
            os.kill(worker, signal.SIGCONT)
        time.sleep(1.5)  # nothing comes after it
        assert flvs.number(sounds(session)[-1].body) * 0.04 < over_s + 0.15
        assert len(receiver.sessions) == 1
        playout.lease(60)
        wait_until(lambda: len(receiver.of("c1")) == 2, description="a new session under a new lease")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[LeaseSocket]:
    shared = Shared.at()
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
        assert len(served.sockets()) == MAX_CLIENTS + 1
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


def test_what_is_just_not_too_much_is_answered_though_it_comes_in_parts(tmp_path: Path, served: LeaseSocket) -> None:
    with connected(tmp_path) as client:
        client.settimeout(5)
        for part in (b" " * MAX_LINE_BYTES, b'{"until": 7}\n' + b"{}\n" * (LINES_AT_ONCE - 1)):
            client.sendall(part)
            for _ in range(3):
                served.serve()
        answers = [json.loads(line) for line in client.makefile("rb").readlines(LINES_AT_ONCE * 60)]
        assert [one["lease_until"] for one in answers[:2]] == [7, 7]
        client.sendall(b"{}\n" * (LINES_AT_ONCE + 1))
        served.serve()
        with suppress(ConnectionError):
            while client.recv(65_536):
                pass


@pytest.mark.parametrize(("boot", "until"), [(kernel.boot_id(), 7.0), ("another", 0.0)])
def test_a_lease_outlives_its_supervisor_but_not_the_machines_start(tmp_path: Path, boot: str, until: float) -> None:
    (tmp_path / "lease.json").write_text(json.dumps({"until": 7.0, "boot": boot}))
    shared = Shared.at()
    LeaseSocket(tmp_path, shared).close()
    assert shared.lease_until == until
    os.close(shared.file)


def test_a_folder_is_its_owners_and_one_that_cannot_be_used_is_told_with_what_to_type(tmp_path: Path) -> None:
    """Whoever tries it by hand has no rights in /var/lib; of two playouts the second one ends."""
    (tmp_path / "file").touch()
    (tmp_path / "folder/x").mkdir(parents=True)
    held = locked(tmp_path / "made/lock")
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    for attempt, says in (
        (lambda: locked(tmp_path / "file/lock"), "file: .*--dir$"),
        (lambda: locked(tmp_path / "folder"), "folder: .*--dir$"),
        (lambda: listening(tmp_path / "folder", "--option"), "folder: .*--option$"),
        (lambda: locked(tmp_path / "made/lock"), "lock: a playout runs"),
    ):
        with pytest.raises(Misuse, match=f"^{tmp_path}.*/{says}") as caught:
            attempt()
        assert "Errno" not in str(caught.value)
    os.close(held)


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


def test_a_hanging_disk_holds_up_one_thread_no_renewal_and_has_the_newest_lease_in_the_end(
    tmp_path: Path, served: LeaseSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that was ended must not be held again after a restart, because an older one was written late."""
    go, is_asked, replace, others = threading.Event(), threading.Event(), Path.replace, set(threading.enumerate())

    def hang(self: Path, target: Any) -> Path:
        if tmp_path in self.parents:  # else of another thread of the tests
            is_asked.set()
            assert go.wait(60)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", hang)
    monkeypatch.setattr(kernel, "SLOW_S", 0.0)
    with connected(tmp_path) as client:
        for until in (5e8, 0.0):
            answer = asked(served, client, json.dumps({"until": until}).encode())
            assert (answer["lease_until"], answer["durable"]) == (until, False)
            assert "hangs" in answer["why"]
            assert is_asked.wait(60)
        assert [one.name for one in set(threading.enumerate()) - others] == ["lease.json"]
        go.set()
        wait_until(lambda: asked(served, client, b"{}")["durable"], description="it is written")
    assert served._file.is_written
    assert json.loads((tmp_path / "lease.json").read_text())["until"] == 0.0


def test_a_lease_is_taken_though_no_thread_is_left_to_write_it_down(
    tmp_path: Path, served: LeaseSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error would end the supervisor, and all classes. A later lease is written down."""
    with connected(tmp_path) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
            answer = asked(served, client, b'{"until": 7}')
        assert (answer["lease_until"], answer["durable"], served._file.is_written) == (7, False, True)
        assert answer["why"] == "the lease cannot be written: can't start new thread"
        assert asked(served, client, b'{"until": 8}')["lease_until"] == 8
        wait_until(lambda: asked(served, client, b"{}")["durable"], description="it is written")
    assert json.loads((tmp_path / "lease.json").read_text())["until"] == 8


def test_drafts_of_processes_that_were_killed_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    names = ("timetable.jsonl", "aired.jsonl")
    drafts = [folder / f".{name}.{number}.tmp" for name in names for number in (1, 99_999_999)]
    for one in drafts:
        one.write_text("{")
    with Inside(folder) as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=-1, length_s=1.5)
        wait_until(lambda: not any(one.exists() for one in drafts), description="no draft is left")


# What else of the kernel is asked: counts of a connection, its reset, what is on the disk, and faults that are kept.


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over loopback."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as ours,
        listener.accept()[0] as theirs,
    ):
        ours.settimeout(0)
        yield ours, theirs


def filled(connection: socket.socket) -> int:
    """How many bytes a connection takes from which nobody reads."""
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += connection.send(bytes(65_536))
    return written


def test_what_was_written_taken_and_read_of_a_connection_is_known(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = connection
    theirs.sendall(b"0123456789")
    ours.settimeout(5)
    assert len(ours.recv(4)) == 4
    ours.settimeout(0)
    written = filled(ours)

    def counted() -> kernel.Counts:
        found = kernel.counts(ours)
        assert found is not None
        return found

    time.sleep(0.2)  # what is under way arrives
    found = counted()
    assert (found.written, found.read, found.waits) == (written, 4, True)
    ours.shutdown(socket.SHUT_WR)
    with theirs.makefile("rb") as lines:
        assert len(lines.read()) == written
    wait_until(lambda: not counted().waits, description="all is acknowledged")
    assert counted().acknowledged > found.acknowledged


def test_a_session_that_is_let_go_stands_for_others_and_one_that_is_reset_ends_for_all_and_drops_what_is_not_sent(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = connection
    theirs.settimeout(5)
    HeldSession(ours.dup(), None).close()
    ours.send(b"x")
    assert theirs.recv(1) == b"x"
    written = filled(ours)
    HeldSession(ours.dup(), None).close(is_reset=True)
    with pytest.raises(ConnectionResetError), theirs.makefile("rb") as lines:
        lines.read(written)


@pytest.mark.parametrize("is_synced", [True, False])
def test_a_file_is_on_the_disk_before_its_name_is_and_then_its_folder_if_it_must_be(
    tmp_path: Path, is_synced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, bool]] = []
    path, fsync = tmp_path / "a", os.fsync

    def noted(file: int) -> None:
        synced.append((Path(f"/proc/self/fd/{file}").readlink(), path.exists()))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    kernel.replace(path, b"text", is_synced=is_synced)
    assert [(one.suffix, was_there) for one, was_there in synced] == (
        [(".tmp", False), ("", True)] if is_synced else []
    )
    assert path.read_text() == "text"
    (tmp_path / "folder/x").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        kernel.replace(tmp_path / "folder", b"text", is_synced=is_synced)
    assert {one.name for one in tmp_path.iterdir()} == {"a", "folder"}, "no draft is left"


def test_a_fault_is_kept_unless_it_is_let_through_or_ends_the_process() -> None:
    with Isolated() as isolated:
        pass
    assert isolated.fault == ""
    with Isolated(KeyError) as isolated:
        raise AttributeError("odd")
    assert isolated.fault == "a fault of the playout: AttributeError: odd"
    for error in (KeyError, SystemExit):
        with pytest.raises(error), Isolated(KeyError) as isolated:
            raise error
        assert isolated.error is None


def test_a_start_of_the_machine_has_a_name_also_where_the_kernel_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "Path", lambda _: Path("/no/such/file"))
    monkeypatch.setattr(kernel, "boot_now", lambda: time.time() - 630)
    assert kernel.boot_id() == "pid 1 since 10"
