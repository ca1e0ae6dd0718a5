"""Fixtures of the playbooks' tests: the release that they roll out, built once a session."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_S = 400

Build = Callable[[str], Path]
"""Is given the hosts' Python, such as ``3.13``."""


@pytest.fixture(scope="session")
def built_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Builds a release for a Python, once for all workers of a session; the last of them removes the files."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "releases"
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())

    def build(python: str) -> Path:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            mine.touch()
            built = sorted(folder.glob(f"*-cp{python.replace('.', '')}-*.tar.gz"))
            return built[0] if built else _built(folder, python)

    yield build
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine.unlink(missing_ok=True)
        if not any(users.iterdir()):
            for file in folder.glob("*.tar.gz*"):
                file.unlink()


@pytest.fixture(scope="session")
def release_file(built_release: Build) -> Path:
    """The release for hosts that have the Python of the tests."""
    return built_release(f"{sys.version_info.major}.{sys.version_info.minor}")


def _built(folder: Path, python: str) -> Path:
    argv = [sys.executable, "-m", "playbooks.release", "--python-version", python, "--dist", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if "could not be fetched" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip(f"no release can be built here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
