"""A worker may be killed, hang or be replaced at any moment: the session goes on, no packet is missing, none twice."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lectern.playout import source, supervisor, worker_process
from tests.playout import dying, flvs
from tests.playout.receiver import AHEAD_S, Receiver, late_s, sounds
from tests.playout.stage import Playout
from tests.waiting import wait_until

pytestmark = pytest.mark.live

CLASSES = 6
PATIENT = Path(dying.__file__)
"""A program that skips nothing, however late it is: on a busy machine a worker may take seconds to start."""


def on_air(playout: Playout, receiver: Receiver, path: Path, *, length_s: float = 60.0) -> list[str]:
    names = [f"c{number}" for number in range(CLASSES)]
    start = time.time() + 4
    for name in names:
        playout.air(name, path, receiver.url(name), start=start, length_s=length_s)
    wait_until(lambda: all(receiver.of(name) and receiver.of(name)[0].packets() for name in names), description="media")
    return names


def ended_exact(receiver: Receiver, names: list[str], tags: list[flvs.Tag]) -> None:
    """Each class had one session, and its packets are the file's."""
    for name in names:
        wait_until(lambda name: receiver.of(name)[-1].ended, name, description=f"the end of {name}")
        (session,) = receiver.of(name)
        assert session.ended == "eof"
        assert session.packets() == tags


def test_an_upgrade_is_not_noticed_and_says_how_it_went(tmp_path: Path) -> None:
    tags = flvs.lesson(10)
    path = flvs.write(tmp_path / "a.flv", tags)
    with Receiver() as receiver, Playout(tmp_path / "p", program=PATIENT) as playout:
        names = on_air(playout, receiver, path)
        worker = playout.worker()
        with pytest.raises(OSError, match="ended"):
            playout.ask("upgrade")
        status = playout.again("status")
        assert status["pid"] != worker
        assert status["worker"]["taken_over"]["why"] == "upgrade"
        assert status["worker"]["taken_over"]["kept"] == CLASSES
        assert status["worker"]["classes_on_air"] == CLASSES
        ended_exact(receiver, names, tags)


def end_with(file: Path, code: str) -> None:
    """Add to a file that must be there: one that was renamed would else be made, and change nothing."""
    file.write_text(file.read_text() + code)


def releases(folder: Path, file: str, fault: str) -> Path:
    """Two releases, in the second of which *file* ends with a *fault*; the link to the first."""
    package = worker_process.PROGRAM.parent
    for release in ("one", "two"):
        target = folder / release / "lectern"
        shutil.copytree(package, target / "playout", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(package.parent / "__init__.py", target)
        end_with(target / "playout/supervisor.py", "\n\nHUNG_S = 60.0\n")  # one that a busy machine does not run
    end_with(folder / "two/lectern/playout" / file, fault)
    current = folder / "current"
    current.symlink_to(folder / "one")
    return current


def switch(current: Path, release: str) -> None:
    current.unlink()
    current.symlink_to(current.with_name(release))


def test_a_new_release_that_cannot_be_loaded_leaves_the_old_one_on_air(tmp_path: Path) -> None:
    """The supervisor follows the link to the release of the moment."""
    current = releases(tmp_path, "publisher.py", "import no_such_module\n")
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    program = current / "lectern/playout/__main__.py"
    with Receiver() as receiver, Playout(tmp_path / "p", program=program) as playout:
        names = on_air(playout, receiver, path)
        worker = playout.worker()
        switch(current, "two")
        answer = playout.ask("upgrade")
        assert not answer["ok"]
        assert answer["why"] == "the new worker exited with 1; the old one goes on"
        assert playout.worker() == worker
        switch(current, "one")
        with pytest.raises(OSError, match="ended"):
            playout.ask("upgrade")
        assert playout.worker() != worker
        assert [len(receiver.of(name)) for name in names] == [1] * CLASSES


def test_a_new_release_whose_workers_die_is_left_for_the_one_before(tmp_path: Path) -> None:
    current = releases(tmp_path, "worker.py", "\n\nWorker.tick = None\n")
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    program = current / "lectern/playout/__main__.py"
    with Receiver() as receiver, Playout(tmp_path / "p", program=program) as playout:
        on_air(playout, receiver, path)
        before = playout.worker()
        switch(current, "two")
        with pytest.raises(OSError, match="ended"):
            playout.ask("upgrade")

        def of_the_first() -> int | None:
            """The worker, if it is a new one of the first release."""
            worker = playout.worker()
            with suppress(FileNotFoundError, ProcessLookupError):  # it has died meanwhile
                if worker != before and f"\0{tmp_path}/one/" in Path(f"/proc/{worker}/cmdline").read_text():
                    return worker
            return None

        worker = wait_until(of_the_first, description="a worker of the release before")
        time.sleep(1)  # no second worker is started
        assert playout.worker() == worker


def test_what_a_worker_that_hung_left_undone_is_sent_by_the_next_one() -> None:
    """It is killed after a while, and another one starts: what is late by that much is not skipped."""
    a_start_s = 1.5
    assert supervisor.HUNG_S + supervisor.LOOK_S + a_start_s < source.BEHIND_MS / 1000


def test_a_worker_that_hangs_is_replaced_and_nothing_that_it_left_undone_is_missing(tmp_path: Path) -> None:
    tags = flvs.lesson(8)
    path = flvs.write(tmp_path / "a.flv", tags)
    with Receiver() as receiver, Playout(tmp_path / "p", program=PATIENT, HUNG_S="4") as playout:
        names = on_air(playout, receiver, path)
        worker = playout.worker()
        os.kill(worker, signal.SIGSTOP)
        stopped_at = time.monotonic()
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), description="the end of the worker")
        assert time.monotonic() - stopped_at > 3.5
        status = playout.again("status")
        assert status["worker"]["taken_over"]["why"] == "hung"
        assert status["worker"]["taken_over"]["kept"] == CLASSES
        ended_exact(receiver, names, tags)


def test_a_holder_that_is_killed_takes_its_worker_along_and_the_next_one_connects_anew(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(30))
    with Receiver() as receiver, Playout(tmp_path / "p") as playout:
        names = on_air(playout, receiver, path)
        worker = playout.worker()
        playout.process.kill()
        playout.process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), description="the end of the worker")
        playout._lease_s = 0  # the lease outlives the supervisor
        playout.start()
        wait_until(
            lambda: all(len(receiver.of(name)) == 2 and receiver.of(name)[1].packets() for name in names),
            description="second sessions",
        )
        for name in names:
            _, second = receiver.of(name)
            wait_until(sounds, second, description="sound")
            position_s = flvs.number(sounds(second)[0].body) * 0.04
            assert -5 < position_s - late_s(second, playout.timetable[name]["start"]) < AHEAD_S


def test_only_one_playout_runs_in_a_folder(tmp_path: Path) -> None:
    with Playout(tmp_path / "p") as playout:
        second = Playout(tmp_path / "p", lease_s=0)
        second.socket = tmp_path / "other"
        second.start()
        assert second.process.wait(10) == 1
        assert playout.hello()["ok"]


def test_where_the_kernel_cannot_hand_over_a_class_gets_a_new_session(tmp_path: Path) -> None:
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", program=PATIENT, NO_HAND_OVER="1") as playout:
        assert not playout.hello()["hand_over"]
        names = on_air(playout, receiver, path)
        os.kill(playout.worker(), signal.SIGKILL)
        wait_until(lambda: all(len(receiver.of(name)) == 2 for name in names), description="new sessions")
        assert playout.again("status")["worker"]["taken_over"]["kept"] == 0
