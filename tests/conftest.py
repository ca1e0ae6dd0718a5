"""What all rings have: the options, the depth, the seed; servers and hosts are in a plugin, `tests.stage.plugin`."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests import marks
from tests.marks import pytest_addoption as pytest_addoption  # noqa: PLC0414 (pytest finds its hooks here)
from tests.marks import pytest_collection_modifyitems as pytest_collection_modifyitems  # noqa: PLC0414
from tests.marks import pytest_ignore_collect as pytest_ignore_collect  # noqa: PLC0414
from tests.marks import pytest_report_header as pytest_report_header  # noqa: PLC0414
from tests.marks import pytest_runtest_protocol as pytest_runtest_protocol  # noqa: PLC0414
from tests.marks import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler  # noqa: PLC0414

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The seed once more, where it is looked for."""
    if terminalreporter.getreports("failed"):
        terminalreporter.write_line(pytest_report_header(config))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin nothing after the time that was given."""
    if time.time() > item.config.getoption("--until"):
        pytest.skip("the time for tests is over")
