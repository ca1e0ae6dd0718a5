"""The supervisor goes on, whatever becomes of its workers: with it all classes would end."""

import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lectern.playout import __main__ as playout_program
from lectern.playout import supervisor as holder_module
from lectern.playout import worker_process
from lectern.playout.supervisor import HeldSession, PlayoutSupervisor
from lectern.playout.worker_process import Gone, Pipe
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/playout.md", "examples/units/lectern-playout.service"])
def test_the_supervisor_starts_as_it_is_written_down(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies the line into a unit of theirs finds out otherwise when the classes should be on air."""
    (part,) = re.findall(r"__main__\.py (\w+) --dir", (ROOT / name).read_text())
    monkeypatch.setattr(sys, "argv", ["playout", part, "--help"])
    with pytest.raises(SystemExit) as ended:
        playout_program.main()
    assert ended.value.code == 0


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[PlayoutSupervisor]:
    found = PlayoutSupervisor(tmp_path / "p", tmp_path / "s", None)
    yield found
    found.close()
    os.close(found._lock)
    os.close(found.shared.file)


def look_until_on_air(holder: PlayoutSupervisor) -> worker_process.Child:
    def on_air() -> list[worker_process.Child]:
        holder.look()
        return [holder.worker] if holder.worker is not None else []

    return wait_until(on_air, description="a worker on air")[0]


def test_a_worker_that_cannot_start_starts_later(holder: PlayoutSupervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may have no process or memory left for it, or its program may be gone for a moment."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        before = set(Path("/proc/self/fd").iterdir())
        for _ in range(3):
            holder.look()
            holder._start_at = 0.0
        assert holder.standby is None
        assert set(Path("/proc/self/fd").iterdir()) <= before
    look_until_on_air(holder)


def test_an_upgrade_whose_worker_cannot_be_started_fails_and_the_old_worker_goes_on(
    holder: PlayoutSupervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = look_until_on_air(holder)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr(worker, "hear", lambda: [({"say": "upgrade"}, [])])
    holder._take(worker)
    holder.look()
    assert holder.worker is worker
    assert "the upgrade failed: the new worker cannot be started: No such file or directory" in capfd.readouterr().err


def test_a_release_that_cannot_be_loaded_leaves_nobody_without_a_worker_that_waits(
    holder: PlayoutSupervisor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The link was led to it, and no upgrade asked for: what is on air must outlive the death of two workers."""
    worker, ran = look_until_on_air(holder), holder._program.resolve()
    broken = tmp_path / "__main__.py"
    broken.write_text("raise SystemExit('broken')")
    holder._program = broken
    for _ in range(2):
        worker.kill()
        holder._lost("died", "was ended by this test")
        worker = look_until_on_air(holder)
    assert worker.program == ran
    assert f"a worker that should wait is of {ran} again" in capfd.readouterr().err


def test_a_worker_that_does_not_end_when_killed_keeps_nobody_from_its_place(
    holder: PlayoutSupervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A disk that hangs keeps the thread that reads from it; none of its code runs any more."""
    worker = look_until_on_air(holder)
    monkeypatch.setattr(worker_process, "KILL_S", 0.2)
    monkeypatch.setattr(worker.process, "kill", lambda: None)
    monkeypatch.setattr(holder, "_is_hung", lambda one, now: one is worker)
    holder.look()
    assert look_until_on_air(holder) is not worker
    assert f"process {worker.process.pid} was killed and has not ended" in capfd.readouterr().err
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()


def test_the_release_before_is_forgotten_an_hour_after_the_upgrade(holder: PlayoutSupervisor, tmp_path: Path) -> None:
    """Three deaths in a minute, weeks later, are no reason to air with an old release."""
    for minutes, program in ((30, tmp_path), (90, holder._program)):
        holder._good, holder._good_at, holder._deaths = tmp_path, time.monotonic() - minutes * 60, []
        before, holder._program = holder._program, holder._program
        for _ in range(holder_module.DEATHS):
            holder.worker = worker_process.Child(worker_process.PROGRAM, holder.folder, {}, None)
            holder.worker.kill()
            holder._lost("died", "was ended by this test")
        assert holder._program == program
        holder._program = before


def test_a_session_over_which_two_workers_hung_is_not_handed_to_a_third(
    holder: PlayoutSupervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever its server says or its recording holds: the classes beside it are not cut by it again and again."""
    here, there = socket.socketpair()
    holder.sessions["7\nc-odd\nrtmp://h/a/b"] = HeldSession(here, None)
    holder.sessions["8\nc-good\nrtmp://h/a/b"] = HeldSession(socket.socket(), None)
    for known in (["7", "8"], ["8"]):
        holder.worker = worker_process.Child(worker_process.PROGRAM, holder.folder, {}, None)
        holder.worker.kill()
        holder.shared.handle(7)
        holder._lost("hung", "hung, and was killed")
        assert [key.partition("\n")[0] for key in holder.sessions] == known
    assert there.recv(1) == b""
    there.close()
    assert "c-odd: 2 workers hung over its session, which is reset" in capfd.readouterr().err


def test_a_message_whose_files_find_no_room_is_left_out_and_next_one_heard(capfd: pytest.CaptureFixture[str]) -> None:
    """The kernel drops what would be above the limit of open files."""
    ours, theirs = socket.socketpair()
    holder, worker = Pipe(ours), Pipe(theirs)
    with Path(os.devnull).open() as file:
        worker.say("session", (file.fileno(), file.fileno()), key="k")
        worker.say("over", key="k")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 1, hard)
    )
    try:
        with suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        os.close(filling.pop())  # room for one of two
        heard = [message["say"] for message, _ in holder.hear()]
        os.close(os.open(os.devnull, os.O_RDONLY))  # which was given back
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in filling:
            os.close(one)
    assert heard == ["over"]
    assert "session: too many files are open" in capfd.readouterr().err
    worker.close()
    holder.close()


def test_what_a_worker_said_before_it_died_is_heard_though_it_had_not_read_all() -> None:
    """Else a session of it is unknown: it is neither handed over nor reset at the end of the lease."""
    ours, theirs = socket.socketpair()
    holder, worker = Pipe(ours), Pipe(theirs)
    holder.say("upgrade failed")
    with Path(os.devnull).open() as file:
        worker.say("session", (file.fileno(),), key="k")
    worker.close()
    ((message, files),) = holder.hear()
    assert message["key"] == "k"
    os.close(files[0])
    with pytest.raises(Gone):
        holder.hear()
    holder.close()
