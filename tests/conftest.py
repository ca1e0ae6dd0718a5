"""What all rings have: the options, the depth, the seed; servers and hosts are in a plugin, `tests.stage.plugin`."""

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import marks

PURE = [Path(__file__).parent / ring for ring in ("decide", "text")]
"""Rings that need no servers, and wait for no import of them."""


def pytest_configure(config: pytest.Config) -> None:
    """Load what the depth and the rings need."""
    marks.configure(config)
    asked = [Path(one.partition("::")[0]).resolve() for one in config.args]
    if not all(any(one.is_relative_to(ring) for ring in PURE) for one in asked):
        config.pluginmanager.import_plugin("tests.stage.plugin")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name what fails at once: whoever reads the log of a run of half an hour need not wait for its end."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(f"\nfailed: {report.nodeid} ({report.when}): {str(report.longrepr).splitlines()[-1]}\n")


def pytest_report_header(config: pytest.Config) -> str:
    return marks.again(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The seed once more, where it is looked for."""
    if terminalreporter.getreports("failed"):
        terminalreporter.write_line(marks.again(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> marks.OneTown | None:
    """Start one stage for all that share it."""
    return marks.OneTown(config, log) if config.getoption("--depth") in ("commit", "ci") else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of another depth."""
    return True if marks.is_for_later(config, collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the depth."""
    marks.select(config, items)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the CI end in time on a machine that is slow today, and say what it has not looked at."""
    marks.add_options(parser)
    what = "the teacher of the ordinary day keeps its rows in PostgreSQL"
    parser.addoption("--postgresql", action="store_true", help=what)
    what = "begin no test after this time, in epoch seconds, but skip it"
    parser.addoption("--until", type=float, default=math.inf, metavar="TIME", help=what)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Whatever is started from now on is started for this test."""
    marks.begin(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin nothing after the time that was given."""
    if time.time() > item.config.getoption("--until"):
        pytest.skip("the time for tests is over")
