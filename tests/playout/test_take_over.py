"""A worker may be killed, hang or be replaced at any moment: the session goes on, no packet is missing, none twice."""

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lectern.playout import worker_process
from tests.playout import flvs, patient
from tests.playout.receiver import Receiver, sounds
from tests.playout.stage import Playout, loopback
from tests.waiting import wait_until

pytestmark = pytest.mark.live

CLASSES = 6


def on_air(playout: Playout, receiver: Receiver, path: Path) -> list[str]:
    names = [f"c{number}" for number in range(CLASSES)]
    start = time.time() + 4
    for name in names:
        playout.air(name, path, receiver.url(name), start=start)
    for name in names:
        receiver.session(name)
    return names


@pytest.mark.parametrize(("why", "hung_s"), [("upgrade", 60), ("hung", 4)])
def test_a_worker_that_is_replaced_is_not_missed_and_it_is_said_how_it_went(
    tmp_path: Path, why: str, hung_s: int
) -> None:
    """Each class has one session, and its packets are the file's; the slate and the recording after it go on, too."""
    tags = flvs.lesson(10)
    with loopback(tmp_path, tags, program=patient.PROGRAM, HUNG_S=str(hung_s)) as (playout, receiver, path):
        late = tmp_path / "late.flv"
        playout.air("late", late, receiver.url("late"), slate=str(path), length_s=600)
        names = on_air(playout, receiver, path)
        worker, began_at = playout.worker(), time.monotonic()
        if why == "upgrade":
            with pytest.raises(OSError, match="ended"):
                playout.ask("upgrade")
        else:
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: not Path(f"/proc/{worker}").exists(), description="the end of the worker")
            assert time.monotonic() - began_at > hung_s - 0.5
        status = playout.again("status")
        assert status["pid"] != worker
        assert (status["worker"]["taken_over"]["why"], status["worker"]["taken_over"]["kept"]) == (why, CLASSES + 1)
        flvs.write(tmp_path / "long.flv", flvs.lesson(600, size=60)).replace(late)
        wait_until(
            lambda: [one["source"] for one in playout.status("late")["as_run"]] == ["slate", "recording"],
            description="the recording after the slate, each in one row",
        )
        for name in names:
            wait_until(lambda name: receiver.of(name)[-1].ended, name, description=f"the end of {name}")
            (session,) = receiver.of(name)
            assert (session.ended, session.packets()) == ("eof", tags)
        assert len(receiver.of("late")) == 1


def end_with(file: Path, code: str) -> None:
    """Add to a file that must be there: one that was renamed would else be made, and change nothing."""
    file.write_text(file.read_text() + code)


def releases(folder: Path) -> Path:
    """Three releases: a good one, one that cannot be loaded, and one whose workers die; the link to the first."""
    package = worker_process.PROGRAM.parent
    for release in ("one", "two", "three"):
        target = folder / release / "lectern"
        shutil.copytree(package, target / "playout", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(package.parent / "__init__.py", target)
        end_with(target / "playout/supervisor.py", "\n\nHUNG_S = 60.0\n")  # one that a busy machine does not run
    end_with(folder / "two/lectern/playout/publisher.py", "import no_such_module\n")
    end_with(folder / "three/lectern/playout/worker.py", "\n\nWorker.tick = None\n")
    current = folder / "current"
    current.symlink_to(folder / "one")
    return current


def switch(current: Path, release: str) -> None:
    current.unlink()
    current.symlink_to(current.with_name(release))


def test_a_new_release_that_cannot_be_loaded_or_whose_workers_die_is_left_for_the_old(tmp_path: Path) -> None:
    """The supervisor follows the link to the release of the moment."""
    current = releases(tmp_path)
    with loopback(tmp_path, program=current / "lectern/playout/__main__.py") as (playout, receiver, path):
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
        before = playout.worker()
        assert before != worker
        assert [len(receiver.of(name)) for name in names] == [1] * CLASSES
        switch(current, "three")
        with pytest.raises(OSError, match="ended"):
            playout.ask("upgrade")

        def of_the_first() -> int | None:
            """The worker, if it is a new one of the first release."""
            worker: int = playout.worker()
            with suppress(FileNotFoundError, ProcessLookupError):  # it has died meanwhile
                if worker != before and f"\0{tmp_path}/one/" in Path(f"/proc/{worker}/cmdline").read_text():
                    return worker
            return None

        last = wait_until(of_the_first, description="a worker of the release before")
        time.sleep(1)  # no second worker is started
        assert playout.worker() == last


def test_a_holder_that_is_killed_takes_its_worker_along_and_the_next_one_connects_anew(tmp_path: Path) -> None:
    with loopback(tmp_path, flvs.lesson(30)) as (playout, receiver, path):
        assert playout.socket.stat().st_mode & 0o777 == 0o600
        names = on_air(playout, receiver, path)
        worker = playout.worker()
        playout.process.kill()
        playout.process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), description="the end of the worker")
        playout._lease_s = 0  # the lease outlives the supervisor
        playout.start()
        for name in names:
            second = receiver.session(name, 2, has=sounds)
            position_s = flvs.number(sounds(second)[0].body) * 0.04
            began_s = sounds(second)[0].at + time.time() - time.monotonic() - playout.timetable[name]["start"]
            assert -5 < position_s - began_s < 0.3, "a busy machine sends late, never early"
