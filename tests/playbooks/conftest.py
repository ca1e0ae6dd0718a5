"""Fixtures of the playbooks' tests: the release that they roll out, built once a session."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from tests.playbooks.hosts import engine
from tests.playbooks.hosts.fleet import COMPOSE, PORTS, UP, Fleet, Keys

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
            shutil.rmtree(folder / "staged", ignore_errors=True)


@pytest.fixture(scope="session")
def release_file(built_release: Build) -> Path:
    """The release for hosts that have the Python of the tests."""
    return built_release(f"{sys.version_info.major}.{sys.version_info.minor}")


# -- hosts in containers, if there is a Docker engine -------------------------------------------------------------


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="lt-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Without an engine the tests are skipped."""
    reason = engine.absent()
    if reason is not None:
        assert os.environ.get("CI") != "true", f"{reason}, and the CI must try the playbooks on real hosts"
        pytest.skip(reason)


@pytest.fixture(scope="session")
def keys(docker_engine: None, short_folder: Path) -> Iterator[Keys]:
    """The session's SSH key, which compose.yml gives to the containers."""
    engine.have_base()
    found = Keys(short_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LECTERN_TEST_KEYS", str(found.shared))
        yield found


@pytest.fixture(scope="session")
def docker_compose_file(keys: Keys) -> str:
    """For pytest-docker; there is an engine once there are keys."""
    return str(COMPOSE)


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """For pytest-docker: nothing of an earlier session stays, and all are healthy before any test."""
    return ["down -v --remove-orphans", UP]


@pytest.fixture(scope="session")
def fleet(
    keys: Keys, docker_services: Services, docker_compose_project_name: str, short_folder: Path
) -> Iterator[Fleet]:
    """A control host, a teacher and two streamers, bare: nothing of lectern is on them."""
    ports = {(name, port): docker_services.port_for(name, port) for name, port in PORTS}
    found = Fleet(short_folder, docker_compose_project_name, keys, ports)
    found.meet()
    yield found
    found.redis.close()


def _built(folder: Path, python: str) -> Path:
    argv = [sys.executable, "-m", "playbooks.release", "--python-version", python, "--dist", str(folder)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if "could not be fetched" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip(f"no release can be built here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
