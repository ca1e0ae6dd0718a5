"""Programs end, with all their children, however we are ended."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lectern import subprocesses
from lectern.errors import Misuse, TryAgain
from tests.effects.conftest import FAMILY, STUBBORN, alive, ended
from tests.waiting import async_wait_until, cancelled, wait_until


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "GRACE_S", 0.4)


async def test_a_program_that_ends_is_returned_with_its_words_fit_for_logs() -> None:
    """They are what a server in between said, or a file name: in GBK, in colour, or without an end."""
    finished = await subprocesses.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=10)
    assert (finished.returncode, finished.output, finished.errors) == (7, "out\n", "err\n")
    assert finished.last_words == "err"
    code = "import os; os.write(2, '\\x1b[31mred\\x1b[0m \\0'.encode() + '过期'.encode('gbk') + b'x' * 900 + b'\\r\\n')"
    done = await subprocesses.run([sys.executable, "-c", code], timeout_s=30)
    assert done.last_words.startswith("red \N{REPLACEMENT CHARACTER}")
    assert done.last_words.isprintable()
    assert len(done.last_words) == 300


async def test_arguments_input_and_lines_reach_the_program_and_us_as_they_are() -> None:
    """Input is empty, or read to its end if the program wants it."""
    odd = ["it's", 'a "b" $HOME', "-x; rm", "二"]
    finished = await subprocesses.run(["printf", "%s\n", *odd], timeout_s=10)
    assert finished.output.splitlines() == odd
    lines: list[str] = []
    await subprocesses.run(["printf", r"a\rb\r\nc\n\nd"], timeout_s=10, on_line=lines.append)
    assert lines == ["a", "b", "c", "d"]
    finished = await subprocesses.run(["sh", "-c", "cat; echo $MORE$HOME"], timeout_s=10, env={"MORE": "more"})
    assert finished.output.strip() == f"more{os.environ.get('HOME', '')}"
    much = b"x" * 1_000_000
    assert (await subprocesses.run(["wc", "-c"], timeout_s=10, stdin=much)).output.strip() == "1000000"
    assert (await subprocesses.run(["true"], timeout_s=10, stdin=much)).returncode == 0
    with pytest.raises(subprocesses.TimedOut):
        await subprocesses.run(["sleep", "60"], timeout_s=0.3, stdin=much)


async def test_memory_is_bounded_whatever_is_printed() -> None:
    """50 MB without one newline leave 8 KiB, and lines of 64 KiB."""
    sizes: list[int] = []
    finished = await subprocesses.run(
        ["head", "-c", "50000000", "/dev/zero"], timeout_s=30, on_line=lambda line: sizes.append(len(line))
    )
    assert len(finished.output) == subprocesses.KEPT_BYTES
    assert max(sizes) <= 4 * 65536


@pytest.mark.parametrize("script", [FAMILY, STUBBORN], ids=["polite", "stubborn"])
async def test_a_program_that_takes_too_long_is_ended_with_its_children(script: str) -> None:
    """It gets more time where it had none of the processor, and so has no children yet."""
    assert issubclass(subprocesses.TimedOut, TryAgain)
    lines: list[str] = []
    for timeout_s in (0.5, 30):
        with pytest.raises(subprocesses.TimedOut, match=r"^sh: not done after"):
            await subprocesses.run(["sh", "-c", script], timeout_s=timeout_s, on_line=lines.append)
        if lines:
            break
    assert ended(map(int, lines[0].split()))


async def test_a_program_that_stalls_is_ended_and_its_last_word_is_told() -> None:
    """Not one that shows progress, which need not be what it says."""
    works, same = "for i in $(seq 40); do echo $i; sleep 0.1; done", "while :; do echo same; sleep 0.1; done"
    assert (await subprocesses.run(["sh", "-c", works], timeout_s=60, stall_s=3)).returncode == 0
    with pytest.raises(subprocesses.Stalled):
        await subprocesses.run(["sh", "-c", same], timeout_s=60, stall_s=0.5, on_line=lambda _: False)
    lines: list[str] = []
    argv = ["sh", "-c", f"echo hmm >&2; {FAMILY}"]
    with pytest.raises(subprocesses.Stalled, match="hmm"):
        await subprocesses.run(argv, timeout_s=60, stall_s=3, on_line=lines.append)  # in which it has its first turn
    assert ended(map(int, lines[0].split()))


async def test_a_cancelled_run_leaves_nobody() -> None:
    """Even when it is cancelled twice, and the child does not listen to TERM."""
    lines: list[str] = []
    run = subprocesses.run(["sh", "-c", STUBBORN], timeout_s=60, on_line=lines.append)
    task = asyncio.create_task(run)
    await async_wait_until(lambda: lines, description="it has begun")
    task.cancel()
    await asyncio.sleep(0.1)
    await cancelled(task)
    assert ended(map(int, lines[0].split()))


async def test_what_on_line_raises_ends_the_program_and_a_grandchild_holds_nobody_up() -> None:
    def on_line(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match=r"^\d+ \d+$") as raised:
        await subprocesses.run(["sh", "-c", FAMILY], timeout_s=60, on_line=on_line)
    assert ended(map(int, str(raised.value).split()))
    finished = await subprocesses.run(["sh", "-c", "sleep 300 & echo $!"], timeout_s=60)
    assert (finished.returncode, ended([int(finished.output)])) == (0, True)


@pytest.fixture
def _nobody_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program that was started stays, as on a disk that hangs."""
    left = list["subprocess.Popen[bytes]"]()
    monkeypatch.setattr(subprocesses._Program, "_end_group", lambda _, popen, sign: left.append(popen))
    monkeypatch.setattr(subprocesses, "_REAP_S", 0.05)
    yield
    left[0].kill()
    left[0].wait(10)


@pytest.mark.usefixtures("_nobody_ends")
async def test_a_program_that_nobody_can_end_is_tried_again() -> None:
    """Its disk hangs, and says nothing of the file: a booking was refused because of a look at its recording."""
    with pytest.raises(TryAgain, match="does its disk hang"):
        await subprocesses.run(["sleep", "60"], timeout_s=0.05)


@pytest.mark.usefixtures("_nobody_ends")
async def test_a_run_that_is_cancelled_ends_by_that_though_nobody_can_end_its_program() -> None:
    """A download that a person had cancelled in the UI was tried again, because its disk hung."""
    lines: list[str] = []
    run = subprocesses.run(["sh", "-c", "echo begun; exec sleep 60"], timeout_s=60, on_line=lines.append)
    task = asyncio.create_task(run)
    await async_wait_until(lambda: lines, description="it has begun")
    await cancelled(task)


async def test_what_is_missing_is_named_and_no_file_grows_over_its_limit(tmp_path: Path) -> None:
    """A program with what to install, a folder as such."""
    with pytest.raises(Misuse, match="apt-get install wgett"):
        await subprocesses.run(["/usr/bin/wgett"], timeout_s=10)
    with pytest.raises(Misuse, match="no such folder"):
        await subprocesses.run(["true"], timeout_s=10, cwd=tmp_path / "none")
    target = tmp_path / "large"
    argv = ["dd", "if=/dev/zero", f"of={target}", "bs=1000", "count=99"]
    finished = await subprocesses.run(argv, timeout_s=10, file_limit_bytes=5000)
    assert (finished.returncode, target.stat().st_size) == (-signal.SIGXFSZ, 5000)


async def test_a_program_that_gives_way_does_so_to_us_and_not_only_within_its_own_session() -> None:
    """Linux shares the processors out between sessions first: in one of its own it would take as much as all of us."""
    looks = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0), os.getpgid(0) == os.getpid())"
    argv = [sys.executable, "-I", "-c", looks]
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    for nice, expected in ((0, ours), (subprocesses.GIVES_WAY, min(ours + subprocesses.GIVES_WAY, 19))):
        finished = await subprocesses.run(argv, timeout_s=20, nice=nice)
        assert finished.output.split() == [str(expected), str(os.getsid(0)), "True"]


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What children wait for between fork and exec, as on a busy machine: until it is there."""

    def wait() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        for _ in range(1000):
            if (tmp_path / "gate").exists():
                return
            time.sleep(0.01)
        os._exit(9)

    monkeypatch.setattr(subprocesses, "preexec", lambda *_: wait)
    return tmp_path / "gate"


async def given_up(gate: Path) -> int:
    """The child, which waits, of a run that was cancelled meanwhile."""
    pid = gate.with_name("pid")
    running = asyncio.create_task(subprocesses.run(["sleep", "300"], timeout_s=300))
    await async_wait_until(lambda: pid.exists() and pid.read_text(), description="the child waits")
    await cancelled(running)
    return int(pid.read_text())


async def test_a_child_that_waits_its_turn_holds_up_no_loop_and_may_be_given_up_meanwhile(gate: Path) -> None:
    """With fifty downloads on two processors, a lease was passed on a minute late."""
    pid = await given_up(gate)
    running = asyncio.create_task(subprocesses.run(["true"], timeout_s=30))
    await asyncio.sleep(0.1)
    gate.touch()
    assert (await running).returncode == 0
    await async_wait_until(lambda: not alive(pid), description="the child is gone")


async def test_a_run_that_is_cancelled_at_the_moment_its_program_is_there_leaves_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it runs on, and its pipes stay open: a download that nobody bounds any more."""
    loop = asyncio.get_running_loop()
    begun: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def at_that_moment(*argv: Any, **options: Any) -> "subprocess.Popen[bytes]":
        begun.append(start(*argv, **options))
        loop.call_soon_threadsafe(running.cancel)
        return begun[0]

    monkeypatch.setattr(subprocess, "Popen", at_that_moment)
    running = asyncio.create_task(subprocesses.run(["sleep", "300"], timeout_s=300))
    await asyncio.wait({running})
    (popen,) = begun
    await async_wait_until(lambda: not alive(popen.pid), description="the program is gone")
    assert running.cancelled()
    pipes = [pipe for pipe in (popen.stdout, popen.stderr) if pipe is not None]
    await async_wait_until(lambda: all(pipe.closed for pipe in pipes), description="its pipes are closed")


def test_a_program_that_begins_only_after_its_loop_was_closed_leaves_nobody_and_no_open_file(gate: Path) -> None:
    """As when a process ends just then: nobody is there to read it."""
    threads = threading.active_count()
    pid = asyncio.run(given_up(gate))
    gate.touch()
    wait_until(lambda: not alive(pid), description="the child is gone")
    wait_until(lambda: threading.active_count() <= threads, description="its thread, and with it its pipes")


def test_a_child_dies_with_us_even_by_kill_9(tmp_path: Path) -> None:
    script = (
        "import asyncio; from lectern import subprocesses; "
        "said = lambda line: print(line, flush=True); argv = ['sh', '-c', 'echo $$; exec sleep 300']; "
        "asyncio.run(subprocesses.run(argv, timeout_s=300, on_line=said))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as we:
        assert we.stdout is not None
        pid = int(we.stdout.readline())
        assert alive(pid)
        we.kill()
    wait_until(lambda: not alive(pid), description="the child is gone")


def test_many_run_at_once_in_any_thread_and_leave_no_open_files() -> None:
    async def many() -> list[subprocesses.Finished]:
        return await asyncio.gather(*(subprocesses.run(["sleep", "0.3"], timeout_s=20) for _ in range(30)))

    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor() as threads:
        results = threads.submit(lambda: asyncio.run(many())).result()
    assert [result.returncode for result in results] == [0] * 30
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
