"""Fixtures of the tests that need the whole system: real servers once a session, resident processes as children."""

from collections.abc import Generator, Iterator

import pytest

from lectern.demo import programs
from tests.stage import STAGES, Stage, Town, staged


@pytest.fixture(scope="session", autouse=True)
def _programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A machine without ffmpeg or wget gets those of the demo on its PATH."""
    found = programs.gather(tmp_path_factory.mktemp("bin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", programs.path(found))
        yield


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Redis, one Prefect server on SQLite, an origin, an RTMP receiver and an SSH server."""
    found = Town(tmp_path_factory.mktemp("town"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="session")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """An ordinary day: a teacher and one streamer, which all tests share that break neither."""
    with staged(town, tmp_path_factory.mktemp("stage"), MAX_VIDEO_SIZE="0.25") as found:
        found.up("teacher", "streamer1")
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the resident processes where a test fails."""
    report = yield
    if report.failed:
        for stage in STAGES:
            report.sections.extend((f"log of {stage.prefix}: {name}", text) for name, text in stage.logs())
    return report
