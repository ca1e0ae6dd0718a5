"""The servers and the ordinary day that tests share, and how they rest; pure rings do without this plugin."""

from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from flows.host import Host, StreamerHost, TeacherHost
from lectern.db.engine import open_database
from tests import laid, marks
from tests.faults import hosts
from tests.stage import STAGES, Stage, Town, staged
from tests.stage.postgres import Databases, postgres_server
from town import programs
from town.ports import HOST, free_port


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
    with Town(tmp_path_factory.mktemp("town")) as found:
        SLEEPER.town = found
        yield found


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Databases]:
    """A PostgreSQL server, of which each test takes a database of its own."""
    with postgres_server() as url:
        yield Databases(url)


def _url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{laid.database('teacher', folder / 'teacher.db')}"
    found: Databases = request.getfixturevalue("postgresql")
    return found.laid()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.night)])
def teacher_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of a teacher with its tables: whatever is claimed of its rows holds on both kinds."""
    return _url(request.param, request, tmp_path)


@pytest.fixture
def teacher_engine(teacher_url: str) -> Iterator[Engine]:
    """The same, opened."""
    engine = open_database(teacher_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live)])
def either_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A teacher's database for claims whose SQL differs: lists as one parameter, locks, numbers, who claims a row."""
    engine = open_database(_url(request.param, request, tmp_path))
    yield engine
    engine.dispose()


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[TeacherHost]:
    """A teacher in this process, with a database: no bus and no runs but those that a test gives it."""
    engine = laid.opened("teacher", tmp_path / "teacher.db")
    yield hosts.teacher(engine)
    engine.dispose()


@pytest.fixture
def streamer(tmp_path: Path) -> Iterator[StreamerHost]:
    """The same of a streamer, with an empty cache in a folder."""
    root = tmp_path / "videos"
    root.mkdir()
    engine = laid.opened("streamer", tmp_path / "task_list.db")
    yield hosts.streamer(engine, root, max_bytes=1 << 40, max_num=1000)
    engine.dispose()


@pytest.fixture(params=["teacher", "streamer"])
def host(request: pytest.FixtureRequest) -> Host[Any]:
    """One of the two, for what holds of both."""
    found: Host[Any] = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """An ordinary day: a teacher and one streamer, which all tests share that break neither."""
    own = {"API_BIND": f"{HOST}:{free_port()}"}
    if request.config.getoption("--postgresql"):
        databases: Databases = request.getfixturevalue("postgresql")
        own["TEACHER_DATABASE_URL"] = databases.fresh()
    with staged(town, tmp_path_factory.mktemp("stage"), MAX_VIDEO_SIZE="0.25", **own) as found:
        found.up("teacher", "streamer1")
        SLEEPER.day = found
        yield found


class Sleeper:
    """Lets the ordinary day, and the town, rest while modules of tests are run that do not need them.

    Four Prefect servers, and the hosts that ask them each second, take half a processor from whoever is at work.
    """

    def __init__(self) -> None:
        self.town: Town | None = None
        self.day: Stage | None = None
        self._living: list[str] | None = None  # of the day, while it rests
        self._town_rests = False
        self._needs: dict[Path, int] = {}

    def comes(self, item: pytest.Item) -> None:
        """Before each test: wake what its module needs, let rest what it does not."""
        if not self._needs:
            self._needs = needs(item.session.items)
        needed = self._needs[item.path]
        if self.town is not None and (needed == NOTHING) != self._town_rests:
            self._town_rests = not self._town_rests
            if not self._town_rests:
                self.town.wake()
        if self.day is not None and needed != DAY and self._living is None:
            self._living = self.day.rest()
        elif self.day is not None and needed == DAY and self._living is not None:
            self.day.up(*self._living)
            self._living = None
        if self.town is not None and self._town_rests:
            self.town.rest()


SLEEPER = Sleeper()
DAY, TOWN, NOTHING = range(3)


def needs(items: list[pytest.Item]) -> dict[Path, int]:
    """What each module needs: the ordinary day, the town for a stage of its own, or nothing of it."""
    found: dict[Path, int] = {}
    for one in items:
        defined = getattr(one, "_fixtureinfo", None)
        fixtures = defined.name2fixturedefs if defined is not None else {}
        asked = TOWN if "town" in fixtures else NOTHING
        if asked == TOWN and "stage" in fixtures and not fixtures["stage"][-1].baseid:  # a module's own has one
            asked = DAY
        found[one.path] = min(asked, found.get(one.path, NOTHING))
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, then the ordinary day, stages of modules, what needs no town; of each the longest first.

    A worker that has begun the last long file works on while the others have nothing left to do. Long is a file whose
    tests may take longer than others, as their marks `timeout` say in sum, that starts a town of its own, or that has
    many tests. What needs no town comes late: the town rests meanwhile, and to wake it takes a processor for seconds.
    """
    needed, live = needs(items), Counter(one.path for one in items if marks.is_live(one))
    may_last = Counter[Path]()
    for one in items:
        mark = one.get_closest_marker("timeout")
        may_last[one.path] += mark.args[0] if mark is not None else 0
    first = {path for path, seconds in may_last.most_common(1) if seconds}
    own = {one.path: hasattr(getattr(one, "module", None), "Town") for one in items}
    ranks = {at: (at not in first, need, -may_last[at], not own[at], -live[at]) for at, need in needed.items()}
    items.sort(key=lambda one: ranks[one.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Who needs no servers is not to wait for them."""
    SLEEPER.comes(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of the resident processes where a test fails."""
    report = yield
    if report.failed:
        for stage in STAGES:
            report.sections.extend((f"log of {stage.prefix}: {name}", text) for name, text in stage.logs())
    return report
