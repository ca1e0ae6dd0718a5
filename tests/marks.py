"""Which tests run when: the marks `live` and `night`, `--depth`, and one seed for all that is drawn."""

import math
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "tests" / "fundamentals"
EXAMPLES = {"commit": 25, "ci": 200, "night": 2000}
"""Examples of Hypothesis by depth; without a depth those of a commit."""
DRAWN = 5
"""Cases of each night matrix that the CI runs, if its mark does not say fewer: `night(draw=2)`."""

_current: list[pytest.Item] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "commit: unmarked tests and the live ones of the tutorial; ci: the other live ones, and some of the night's"
    parser.addoption("--depth", choices=sorted(EXAMPLES), help=f"{what}; night: all")
    what = "how many examples Hypothesis draws, if not as many as the depth says"
    parser.addoption("--examples", choices=sorted(EXAMPLES), help=what)
    what = "draws the examples and the night's cases; by default the number of the commit"
    parser.addoption("--seed", type=int, metavar="NUMBER", help=what)
    what = "the teacher of the ordinary day keeps its rows in PostgreSQL"
    parser.addoption("--postgresql", action="store_true", help=what)
    what = "begin no test after this time, in epoch seconds, but skip it"
    parser.addoption("--until", type=float, default=math.inf, metavar="TIME", help=what)


def configure(config: pytest.Config) -> None:
    """Load the depth's profile, and choose the seed; pytest-xdist hands both to its workers."""
    from hypothesis import HealthCheck, settings

    for name, number in EXAMPLES.items():
        # A claim is about values, not about how fast a busy machine draws them.
        slow = [HealthCheck.too_slow]
        settings.register_profile(name, max_examples=number, deadline=None, suppress_health_check=slow)
    settings.load_profile(config.getoption("--examples") or config.getoption("--depth") or "commit")
    if config.option.seed is None:
        config.option.seed = seed_of_the_commit()
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(config.option.seed)


def share(of_profile: float) -> int:
    """How many examples a costly claim draws: a share of the profile's number."""
    from hypothesis import settings

    return max(1, round(settings().max_examples * of_profile))


def pytest_report_header(config: pytest.Config) -> str:
    return f"SEED={config.option.seed} draws the same examples and cases"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files without a test of this depth, so that no worker imports them."""
    depth = config.getoption("--depth")
    if depth not in ("commit", "ci") or not collection_path.match("test_*.py"):
        return None
    if depth == "ci":
        return not _may_be_live(collection_path) or None
    return (TUTORIAL not in collection_path.parents and _says_so(collection_path)) or None


@cache
def _says_so(file: Path) -> bool:
    """Whether all of a file is marked live, or night."""
    says = re.compile(r"^pytestmark = .*\bmark\.(live|night)\b", flags=re.MULTILINE)
    return says.search(file.read_text()) is not None


@cache
def _may_be_live(file: Path) -> bool:
    """Whether a file has these marks, or asks for a fixture of `tests.stage.plugin` that has."""
    marked = re.compile(r"\bmark\.(live|night)\b|\b(either_engine|teacher_engine|teacher_url)\b")
    return marked.search(file.read_text()) is not None


@cache
def _asks_for_the_day(file: Path) -> bool:
    """Whether tests of a file are given the ordinary day of `tests.stage.plugin`, as far as its text tells."""
    text = file.read_text()
    return "\ndef stage(" not in text and re.search(r"\ndef test_\w+\((.*, |\n    )?stage: Stage\b", text) is not None


class OneTown(LoadFileScheduling):  # type: ignore[misc]
    """Sends each file to a worker, and all that share a stage to one, so that it is started once.

    These are the live files of the tutorial, for a commit, and those of the ordinary day, for the CI.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        if self.config.getoption("--depth") == "ci":
            return "the ordinary day" if _asks_for_the_day(ROOT / file) else file
        return "the tutorial" if (ROOT / file).is_relative_to(TUTORIAL) and _says_so(ROOT / file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneTown | None:
    return OneTown(config, log) if config.getoption("--depth") in ("commit", "ci") else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave those of the depth; a typed -m or the name of one test wins."""
    depth = config.getoption("--depth")
    if not depth and (config.getoption("-m") or any("::" in one for one in config.args)):
        return
    kept = _kept(items, depth, config.option.seed)
    left = [one for one in items if one not in kept]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [one for one in items if one in kept]


def _kept(items: Sequence[pytest.Item], depth: str | None, seed: int) -> set[pytest.Item]:
    if depth == "night":
        return set(items)
    days = [one for one in items if not one.get_closest_marker("night")]
    if depth is None:
        return set(days)
    is_told = {one: not is_live(one) or TUTORIAL in one.path.parents for one in days}
    if depth == "commit":
        overlooked = {str(one.path) for one in items if is_live(one) and not _may_be_live(one.path)}
        assert not overlooked, f"make test-all does not look at {overlooked}: _may_be_live has to see their marks"
        return {one for one in days if is_told[one]}
    return {one for one in days if not is_told[one]} | _drawn(items, seed)


def _drawn(items: Sequence[pytest.Item], seed: int) -> set[pytest.Item]:
    """Some cases of each function of the night, and of all in a file that the night runs on PostgreSQL once more.

    A case of the night beside those of the day is larger than they are, and the night's alone.
    """
    function = {one: one.nodeid.partition("[")[0] for one in items}
    days = {function[one] for one in items if not one.get_closest_marker("night")}
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for one in items:
        if not one.get_closest_marker("night") or not hasattr(one, "callspec"):
            continue
        if function[one] not in days:
            cases[function[one]].append(one)
        elif "postgresql" in one.callspec.params.values():
            cases[str(one.path)].append(one)
    chance, found = random.Random(seed), set[pytest.Item]()
    for _, some in sorted(cases.items()):
        number = next(some[0].iter_markers("night")).kwargs.get("draw", DRAWN)
        found.update(chance.sample(some, min(len(some), number)))
    return found


def is_live(item: pytest.Item) -> bool:
    """Whether a test may start programs of the project, and servers."""
    return bool(item.get_closest_marker("live") or item.get_closest_marker("night"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Whatever is started from now on is started for this test."""
    _current[:] = [item]


def starts(what: str) -> None:
    """Called before *what* is started; raises AssertionError if the test at work does not say that it does."""
    for item in _current:  # none outside of pytest
        assert is_live(item), f"{item.nodeid} starts {what}: mark it live (pytestmark = pytest.mark.live)"


def seed_of_the_commit() -> int:
    """The number of the commit; 0 without git."""
    argv = ["git", "rev-parse", "--short=8", "HEAD"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return 0
    return int(done.stdout.strip() or "0", 16)
