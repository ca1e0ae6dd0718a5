"""A push ends when the lease has run out, even while the process that began it is stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.stage import wait_until

HOLDER = """
import asyncio, subprocess, sys
from lectern.effects.files.fence import Fence, now

async def main() -> None:
    fence = Fence()
    fence.hold(now() + float(sys.argv[1]))
    for url in ("rtmp://push.example/live/key", "http://origin.example/file"):
        subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)", url])
    print("ready", flush=True)
    await fence.watch(lambda pid: print(pid, flush=True))

asyncio.run(main())
"""


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a lease for so many seconds, and has begun a push and a download."""
    argv = [sys.executable, "-c", HOLDER, str(request.param)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    children = psutil.Process(process.pid).children()
    yield process
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()
    process.stdout.close()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def lives(holder: "subprocess.Popen[str]", scheme: str) -> bool:
    """Whether the child with such a URL lives."""
    for child in psutil.Process(holder.pid).children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and any(one.startswith(scheme) for one in child.cmdline()):
                return True
    return False


@pytest.mark.parametrize("holder", [3], indirect=True)
def test_a_stopped_process_loses_its_pushes_with_its_lease(holder: "subprocess.Popen[str]") -> None:
    """Not before, and nothing else that it has begun."""
    wait_until(lambda: lives(holder, "rtmp:"), description="the push has begun")
    wait_until(lambda: len(psutil.Process(holder.pid).children()) == 3, description="the fence is watched")
    began = time.monotonic()
    os.kill(holder.pid, signal.SIGSTOP)
    wait_until(lambda: not lives(holder, "rtmp:"), timeout_s=10, description="the push has ended")
    assert time.monotonic() - began > 1.0
    assert lives(holder, "http:")


def watchers(holder: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [one for one in psutil.Process(holder.pid).children() if "fence.py" in " ".join(one.cmdline())]


@pytest.mark.parametrize("holder", [float("inf")], indirect=True)
def test_a_lease_without_end_ends_nothing(holder: "subprocess.Popen[str]") -> None:
    """And the watching process ends with the one that it watches, though that could not tell it."""
    wait_until(lambda: len(psutil.Process(holder.pid).children()) == 3, description="the fence is watched")
    (watcher,) = wait_until(lambda: watchers(holder), description="the watcher is itself, no copy of who began it")
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 1, description="the watcher has looked some times")
    assert lives(holder, "rtmp:")
    holder.kill()
    wait_until(lambda: not watcher.is_running(), timeout_s=10, description="the watcher has ended")


@pytest.mark.parametrize("holder", [0.5], indirect=True)
def test_the_process_hears_which_push_was_ended(holder: "subprocess.Popen[str]") -> None:
    assert holder.stdout is not None
    assert holder.stdout.readline().strip().isdecimal()
