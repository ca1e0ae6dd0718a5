"""The supervisor goes on, whatever becomes of its workers: with it all classes would end."""

import errno
import io
import json
import math
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lectern.playout import __main__ as playout_program
from lectern.playout import kernel, source, supervisor, worker_process
from lectern.playout.supervisor import PlayoutSupervisor
from lectern.playout.worker_process import Child, Gone, Pipe
from tests.playout.turned import Clock

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["README.md", "docs/playout.md", "examples/units/lectern-playout.service"])
def test_the_supervisor_starts_as_it_is_written_down(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever copies the line into a unit of theirs finds out otherwise when the classes should be on air."""
    (part,) = re.findall(r"__main__\.py (\w+) --dir", (ROOT / name).read_text())
    monkeypatch.setattr(sys, "argv", ["playout", part, "--help"])
    with pytest.raises(SystemExit) as ended:
        playout_program.main()
    assert ended.value.code == 0


def test_a_worker_that_cannot_be_started_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(FileNotFoundError):
        Child(worker_process.PROGRAM, tmp_path, {}, None)
    assert set(Path("/proc/self/fd").iterdir()) <= before


class Process:
    """What of `subprocess.Popen` a supervisor uses, without a process."""

    pid, returncode, hangs = 1, cast("int | None", None), False

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        if not self.hangs:
            self.returncode = self.returncode or -signal.SIGKILL

    def wait(self, timeout_s: float) -> None:
        if self.hangs:
            raise subprocess.TimeoutExpired("the worker", timeout_s)


class Actor(Child):
    """A worker that says and does what the test wants."""

    def __init__(self, program: Path, clock: Clock) -> None:
        ours, theirs = socket.socketpair()
        self.pipe, self.side, self.program = Pipe(ours), Pipe(theirs), program
        self.began_at, self.loaded, self.on_air_at = clock.monotonic(), None, None
        self.process = cast("Any", Process())

    def heard(self, what: str) -> list[dict[str, Any]]:
        """What the supervisor has said of a kind; its files are closed."""
        found = self.side.hear()
        for file in (file for _, files in found for file in files):
            os.close(file)
        return [message for message, _ in found if message["say"] == what]


class Scene:
    """A supervisor whose workers are actors, and whose clock the test turns."""

    def __init__(self, holder: PlayoutSupervisor, clock: Clock) -> None:
        self.holder, self.clock = holder, clock
        self.actors: list[Actor] = []
        self.peers: list[socket.socket] = []
        self.fault: OSError | None = None
        """Why no worker can be started."""
        holder.shared.lease_until = math.inf

    @property
    def worker(self) -> Actor:
        """The worker on air."""
        assert isinstance(self.holder.worker, Actor)
        return self.holder.worker

    def child(self, program: Path, *_: object) -> Actor:
        if self.fault is not None:
            raise self.fault
        self.actors.append(Actor(program, self.clock))
        return self.actors[-1]

    def look(self, seconds: float = 0.0) -> None:
        self.clock.mono += seconds
        self.holder.look()

    def until(self, condition: Callable[..., object], *arguments: object) -> float:
        """Look every 50 ms until *condition* is true; the seconds that it took."""
        began = self.clock.mono
        while not condition(*arguments):
            assert self.clock.mono < began + 100
            self.look(0.05)
        return self.clock.mono - began

    def on_air(self) -> Actor:
        """The next worker, once it is on air."""
        self.until(lambda: self.holder.standby is not None and self.holder.next is None)
        self.actors[-1].side.say("loaded", release="of the test")
        self.until(lambda: self.holder.worker is self.actors[-1])
        return self.worker

    def upgraded(self) -> Actor:
        """The worker to which an upgrade led, before it is loaded."""
        self.worker.side.say("upgrade")
        self.until(lambda: self.holder.next)
        return self.actors[-1]

    def say_session(self, number: int, *, has_journal: bool = True) -> socket.socket:
        """Let the worker tell of a session of that *number*; the peer of its connection."""
        key = f"{number}\nc\nurl"
        here, there = socket.socketpair()
        with here, Path(os.devnull).open() as journal:
            files = (here.fileno(), journal.fileno()) if has_journal else (here.fileno(),)
            self.worker.side.say("session", files, key=key)
        self.until(lambda: key in self.holder.sessions)
        there.settimeout(0)
        self.peers.append(there)
        return there


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    clock = Clock()
    for module in (supervisor, worker_process):
        monkeypatch.setattr(module, "time", clock)
    holder = PlayoutSupervisor(tmp_path / "p", tmp_path / "s", None)
    found = Scene(holder, clock)
    monkeypatch.setattr(supervisor, "Child", found.child)
    yield found
    holder.close()
    for file in (holder._lock, holder.shared.file):
        os.close(file)
    for one in found.actors:
        one.close()
        one.side.close()
    for peer in found.peers:
        peer.close()


def is_open(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True


def test_a_worker_that_does_not_tick_is_killed_and_the_one_that_waits_is_on_air(scene: Scene) -> None:
    first = scene.on_air()
    with socket.socket(socket.AF_UNIX) as client:  # whose renewal no worker delays
        client.connect(str(scene.holder.folder / "lease.sock"))
        client.sendall(b'{"until": 1e9}\n')
        for _ in range(2):
            scene.look()
        assert json.loads(client.recv(4096))["lease_until"] == scene.holder.shared.lease_until == 1e9
    assert scene.until(lambda: scene.holder.worker is not first) == pytest.approx(supervisor.START_S, abs=0.11)
    second = scene.on_air()
    assert second.heard("go")[0]["why"] == "hung"
    scene.holder.shared.tick()
    scene.look(supervisor.HUNG_S + 1)
    assert scene.holder.worker is second, "this process did not look either"
    scene.holder.shared.tick()
    assert scene.until(lambda: scene.holder.worker is not second) == pytest.approx(supervisor.HUNG_S, abs=0.11)
    assert (first.end, second.end) == ("was killed by SIGKILL", "was killed by SIGKILL")
    third = scene.on_air()
    scene.look(supervisor.START_S + 1)
    took_s = scene.until(lambda: scene.holder.worker is not third)
    assert took_s == pytest.approx(supervisor.START_S, abs=0.11), "its time counts anew"


@pytest.mark.parametrize("can_hand_over", [True, False])
def test_the_supervisor_sleeps_until_somebody_speaks_or_the_lease_is_over_and_ends_with_all_its_files(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], can_hand_over: bool
) -> None:
    worker, leases, waits = scene.on_air(), [0.05, math.inf, -1.0], list[float]()
    scene.until(lambda: scene.holder.standby)

    class Poll:
        def __init__(self) -> None:
            self.files: dict[int, int] = {}

        def register(self, connection: socket.socket, events: int) -> None:
            self.files[connection.fileno()] = events

        def poll(self, wait_ms: float) -> None:
            waits.append(wait_ms)
            heard = [scene.holder.lease.sockets()[0], scene.actors[-1].pipe.connection, worker.pipe.connection]
            events = [select.POLLIN, select.POLLIN, select.POLLIN | (select.POLLOUT if len(waits) > 1 else 0)]
            assert self.files == dict(zip([one.fileno() for one in heard], events, strict=True))
            while not worker.pipe.waits:  # as with the sessions of very many classes, which it reads one by one
                worker.pipe.say("session", key="k" * 1000)
            if leases:
                scene.holder.shared.lease_until = kernel.boot_now() + leases.pop(0)
            else:
                scene.holder._stop()

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    # Its alone: a thread that an earlier test has left polls, too.
    monkeypatch.setattr(supervisor, "select", SimpleNamespace(poll=Poll, POLLIN=select.POLLIN, POLLOUT=select.POLLOUT))
    monkeypatch.setattr(kernel, "HAND_OVER", can_hand_over)
    scene.holder.run()
    assert [waits[0], *waits[2:]] == [100, 100, 100]
    assert 0 < waits[1] <= 50
    assert (scene.holder.address.exists(), worker.process.returncode) == (False, -signal.SIGKILL)
    assert ("hand sessions over" in capfd.readouterr().err) is not can_hand_over


def test_a_worker_that_does_not_end_when_killed_keeps_nobody_from_its_place(scene: Scene) -> None:
    """A disk that hangs keeps the thread that reads from it; none of its code runs any more."""
    worker = scene.on_air()
    cast("Process", worker.process).hangs = True
    scene.until(lambda: scene.holder.worker is not worker)
    assert scene.on_air() is not worker


@pytest.mark.parametrize(
    ("deaths_before", "since_s", "deaths_s", "is_old"),
    [
        (0, 0, (0, 29, 29), True),
        (0, 0, (0, 31, 31), False),
        (0, 0, (0, 31, 31, 20), True),
        (0, supervisor.GOOD_S - 90, (0, 29, 29), True),
        (0, supervisor.GOOD_S + 1, (0, 29, 29), False),
        (0, 0, (0, 29), False),
        (2, 0, (0,), False),
        (2, 0, (0, 29, 29), True),
    ],
)
def test_three_deaths_in_a_minute_lead_back_to_the_release_before_until_an_hour_after_the_upgrade(
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deaths_before: int,
    since_s: float,
    deaths_s: tuple[float, ...],
    is_old: bool,
) -> None:
    """Three deaths in a minute, weeks later, are no reason to air with an old release. The link is followed anew.

    Nor are those of the release before, for which the new one was installed, perhaps.
    """
    old = scene.on_air()
    for _ in range(deaths_before):
        old.process.returncode = 1
        old = scene.on_air()
    for release in ("new", "newer"):
        (tmp_path / release).touch()
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "new")
    monkeypatch.setattr(worker_process, "PROGRAM", link)
    new = scene.upgraded()
    link.unlink()
    link.symlink_to(tmp_path / "newer")
    new.side.say("loaded", release="new")
    scene.until(lambda: scene.holder.worker is new)
    scene.clock.mono += since_s
    for pause_s in deaths_s:
        assert scene.worker.program == tmp_path / ("new" if scene.worker is new else "newer")
        scene.clock.mono += pause_s
        scene.holder.shared.tick()
        scene.worker.process.returncode = 1
        scene.on_air()
    assert (scene.worker.program == old.program) is is_old


def test_a_release_that_deaths_put_on_air_is_left_for_the_one_before_as_one_after_an_upgrade_is(
    scene: Scene, tmp_path: Path
) -> None:
    """Its link was led to it, and no upgrade asked for: else its workers die until somebody comes."""
    old = scene.on_air().program
    scene.holder._program = tmp_path / "new"
    for death in range(supervisor.DEATHS + 1):
        assert scene.worker.program == (tmp_path / "new" if death else old)
        scene.holder.shared.tick()
        scene.worker.process.returncode = 1
        scene.on_air()
    assert scene.worker.program == old


def test_workers_that_cannot_be_loaded_are_started_after_pauses_that_double_to_five_seconds(scene: Scene) -> None:
    scene.look()
    pauses = []
    for number in range(1, 8):
        scene.actors[-1].process.returncode = 1
        pauses.append(scene.until(lambda n: len(scene.actors) > n, number))
    assert pauses == pytest.approx([0.1, 0.3, 0.7, 1.5, 3.1, 5, 5], abs=0.11)
    scene.fault = BlockingIOError(errno.EAGAIN, "no process is left")
    scene.actors[-1].process.returncode = 1
    scene.until(lambda: scene.holder.standby is None)
    scene.clock.mono += 100
    scene.look()
    scene.fault = None
    assert scene.until(lambda: scene.holder.standby) == pytest.approx(5, abs=0.11)
    late = scene.actors[-1]
    assert scene.until(lambda: scene.holder.standby is not late) == pytest.approx(worker_process.LOAD_S, abs=0.11)
    scene.on_air()
    assert scene.until(lambda: scene.holder.standby) < 0.11, "a good one ends the pauses"


@pytest.mark.parametrize("fault", ["it ends", "it is late", "it cannot be started"])
def test_an_upgrade_that_fails_is_told_to_the_old_worker_which_goes_on(scene: Scene, fault: str) -> None:
    worker = scene.on_air()
    scene.look()
    if fault == "it cannot be started":
        scene.fault = FileNotFoundError(errno.ENOENT, "No such file")
        worker.side.say("upgrade")
        scene.look()
    else:
        new = scene.upgraded()
        count = len(scene.actors)
        worker.side.say("upgrade")
        scene.look()
        assert len(scene.actors) == count, "one is under way"
        new.process.returncode = 1 if fault == "it ends" else None
        for _ in range(int(worker_process.LOAD_S) + 1):
            scene.holder.shared.tick()
            scene.look(1.0)
    (told,) = worker.heard("upgrade failed")
    ends = {
        "it ends": "exited with 1",
        "it is late": "did not say within 30 s",
        "it cannot be started": ": No such file",
    }
    assert ends[fault] in told["why"]
    assert (scene.holder.worker, scene.holder.next) == (worker, None)


def test_sessions_are_handed_to_the_next_worker_and_reset_without_a_journal_or_a_lease(scene: Scene) -> None:
    first = scene.on_air()
    kept, secure, over = (scene.say_session(number, has_journal=number != 2) for number in (1, 2, 3))
    first.side.say("over", key="3\nc\nurl")
    first.process.returncode = -signal.SIGKILL
    second = scene.on_air()
    assert [one["key"][0] for one in second.heard("session")] == ["1"]
    assert [is_open(one) for one in (kept, secure, over)] == [True, False, False]
    for ticked_ago_s, is_killed in ((0.4, False), (0.6, True)):
        third = scene.worker
        peer = scene.say_session(4, has_journal=False)
        scene.holder.shared.tick()
        scene.holder.shared.lease_until = 0.0
        scene.look(ticked_ago_s)
        assert [is_open(one) for one in (kept, peer)] == [False, False]
        assert (third.process.returncode is not None) is is_killed, "it may have sessions that it did not tell of"
        assert scene.holder.sessions == {}
        scene.holder.shared.lease_until = math.inf


def test_a_session_over_which_two_workers_hung_is_not_handed_to_a_third(scene: Scene) -> None:
    """Whatever its server says or its recording holds: the classes beside it are not cut by it again and again."""
    scene.on_air()
    odd, good = scene.say_session(7), scene.say_session(8)
    for known in (["7", "8"], ["8"]):
        hangs = scene.worker
        scene.holder.shared.tick()
        scene.holder.shared.handle(7)
        scene.until(lambda hangs: scene.holder.worker is not hangs, hangs)
        assert [key[0] for key in scene.holder.sessions] == known
        assert [one["key"][0] for one in scene.on_air().heard("session")] == known
    assert [is_open(one) for one in (odd, good)] == [False, True]


def test_a_release_that_cannot_be_loaded_leaves_nobody_without_a_worker_that_waits(
    scene: Scene, tmp_path: Path
) -> None:
    """The link was led to it, and no upgrade asked for: what is on air must outlive the death of two workers."""
    ran = scene.on_air().program
    scene.holder._program = tmp_path / "broken"
    scene.until(lambda: scene.holder.standby)
    for _ in range(2):
        scene.actors[-1].process.returncode = 1 if scene.actors[-1].program == tmp_path / "broken" else None
        scene.worker.process.returncode = -9
        scene.look(0.1)
        scene.look(0.1)
        assert scene.on_air().program == ran


def test_a_log_that_takes_nothing_ends_no_class(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is full, or whoever reads it has been killed."""

    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    first = scene.on_air()
    first.process.returncode = -signal.SIGKILL
    assert scene.on_air() is not first


def test_what_a_worker_that_hung_left_undone_is_sent_by_the_next_one() -> None:
    """It is killed after a while, and another one starts: what is late by that much is not skipped."""
    a_start_s = 1.5
    assert supervisor.HUNG_S + supervisor.LOOK_S + a_start_s < source.BEHIND_MS / 1000


@contextmanager
def no_file_left() -> Iterator[list[int]]:
    """As many files are open as may be; a test may close some of those that are given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/proc/self/fd").iterdir()) + 1, hard)
    )
    try:
        with suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        yield filling
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in filling:
            os.close(one)


def test_where_too_many_files_are_open_only_the_class_whose_session_finds_no_room_gets_a_new_one(scene: Scene) -> None:
    first = scene.on_air()
    peers = [scene.say_session(1), scene.say_session(2)]
    scene.until(lambda: scene.holder.standby)
    second = scene.actors[-1]
    second.side.say("loaded", release="of the test")
    scene.look()
    first.process.returncode = -signal.SIGKILL
    with no_file_left():
        scene.look()
    assert scene.holder.worker is second
    assert [one["key"][0] for one in second.heard("session")] == ["2"]
    assert [is_open(peer) for peer in peers] == [False, True]


def test_a_client_for_whom_no_file_is_left_is_served_later_and_does_not_keep_the_supervisor_busy(scene: Scene) -> None:
    """Which would otherwise take a processor from the classes on air until a file is closed."""
    lease = scene.holder.lease

    def is_woken() -> bool:
        waits = select.poll()
        for connection in lease.sockets():
            waits.register(connection, select.POLLIN)
        return bool(waits.poll(0))

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(scene.holder.folder / "lease.sock"))
        client.sendall(b'{"until": 1e9}\n')
        assert is_woken()
        with no_file_left():
            lease.serve()
        assert not is_woken()
        for _ in range(2):
            lease.serve()
        assert json.loads(client.recv(4096))["lease_until"] == 1e9


def test_a_message_whose_files_find_no_room_is_left_out_and_next_one_heard(capfd: pytest.CaptureFixture[str]) -> None:
    """The kernel drops what would be above the limit of open files."""
    ours, theirs = socket.socketpair()
    holder, worker = Pipe(ours), Pipe(theirs)
    with Path(os.devnull).open() as file:
        worker.say("session", (file.fileno(), file.fileno()), key="k")
        worker.say("over", key="k")
    with no_file_left() as filling:
        os.close(filling.pop())  # room for one of two
        heard = [message["say"] for message, _ in holder.hear()]
        os.close(os.open(os.devnull, os.O_RDONLY))  # which was given back
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
