"""Fixtures of many rings: real servers once a session, resident processes as children, a teacher's databases."""

import math
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lectern.effects.rows.tables.engine import open_database
from tests import laid, marks
from tests.stage import STAGES, Stage, Town, staged
from tests.stage.postgres import Databases, postgres_server
from town import programs


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
        yield SLEEPER.watch(found)
    finally:
        found.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Databases]:
    """A PostgreSQL server, of which each test takes a database of its own."""
    with postgres_server() as url:
        yield Databases(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.night)])
def teacher_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of a teacher with its tables: whatever is claimed of its rows holds on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{laid.database('teacher', tmp_path / 'teacher.db')}"
    found: Databases = request.getfixturevalue("postgresql")
    return found.laid()


@pytest.fixture
def teacher_engine(teacher_url: str) -> Iterator[Engine]:
    """The same, opened."""
    engine = open_database(teacher_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """An ordinary day: a teacher and one streamer, which all tests share that break neither."""
    own = {}
    if request.config.getoption("--postgresql"):
        databases: Databases = request.getfixturevalue("postgresql")
        own["TEACHER_DATABASE_URL"] = databases.fresh()
    with staged(town, tmp_path_factory.mktemp("stage"), MAX_VIDEO_SIZE="0.25", **own) as found:
        found.up("teacher", "streamer1")
        yield found


def _needing(items: list[pytest.Item]) -> set[Path]:
    """The modules with a test that needs the town."""
    return {one.path for one in items if "town" in getattr(one, "fixturenames", ())}


class Sleeper:
    """Lets the town and its ordinary day rest while modules of tests are run that need neither.

    Four Prefect servers, and the hosts that ask them each second, take half a processor from whoever is at work.
    """

    def __init__(self) -> None:
        self._town: Town | None = None
        self._resting: list[tuple[Stage, list[str]]] | None = None
        self._modules: set[Path] = set()

    def watch(self, town: Town) -> Town:
        """The town, from now on."""
        self._town = town
        return town

    def comes(self, item: pytest.Item) -> None:
        """Before each test: wake the town for a module that needs it, let it rest in one that does not."""
        if not self._modules:
            self._modules = _needing(item.session.items)
        if self._town is None:
            return
        is_needed = item.path in self._modules
        if is_needed and self._resting is not None:
            self._town.wake()
            for stage, living in self._resting:
                stage.up(*living)
            self._resting = None
        elif not is_needed and self._resting is None:
            self._resting = [(stage, stage.rest()) for stage in STAGES]
            self._town.rest()


SLEEPER = Sleeper()


def pytest_configure(config: pytest.Config) -> None:
    """By the depth: how much is drawn; and from what."""
    marks.configure(config)


def pytest_report_header(config: pytest.Config) -> str:
    """The seed."""
    return marks.again(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The seed once more, where it is looked for."""
    if terminalreporter.getreports("failed"):
        terminalreporter.write_line(marks.again(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Modules that need the town come first, so that each worker starts it once, and lets it rest once."""
    marks.select(config, items)
    needing = _needing(items)
    items.sort(key=lambda one: one.path not in needing)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the CI end in time on a machine that is slow today, and say what it has not looked at."""
    what = "begin no test after this time, in epoch seconds, but skip it"
    marks.add_options(parser)
    what = "the teacher of the ordinary day keeps its rows in PostgreSQL"
    parser.addoption("--postgresql", action="store_true", help=what)
    parser.addoption("--until", type=float, default=math.inf, metavar="TIME", help=what)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Whatever is started from now on is started for this test."""
    marks.begin(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Who needs no servers is not to wait for them."""
    if time.time() > item.config.getoption("--until"):
        pytest.skip("the time for tests is over")
    SLEEPER.comes(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the resident processes where a test fails."""
    report = yield
    if report.failed:
        for stage in STAGES:
            report.sections.extend((f"log of {stage.prefix}: {name}", text) for name, text in stage.logs())
    return report
