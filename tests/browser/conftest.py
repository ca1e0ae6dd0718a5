"""A browser without a screen, and the hosts whose runs it looks at."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.browser.ui import SHOTS, Ui
from tests.stage import Stage, Town, staged

CHROMIUM = Path("/usr/bin/chromium")
BEGAN = time.time()
FLAGS = (
    "--no-sandbox",  # a CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ELSEWHERE = re.compile(r"^(?!https?://127\.0\.0\.1[:/]|data:|blob:)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine without a browser skips in a sentence; the CI has one, or fails."""
    if CHROMIUM.exists() or os.environ.get("CI") == "true":
        return
    skip = pytest.mark.skip(reason=f"{CHROMIUM} is not there: apt install chromium")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _shots() -> None:
    """What a browser saw in earlier runs goes; what another worker of this run sees stays."""
    SHOTS.mkdir(exist_ok=True)
    for one in SHOTS.iterdir():
        if one.stat().st_mtime < BEGAN:
            one.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """An empty page of a browser that nobody has used before; it reaches nothing but this machine.

    It lives as long as a module: beside it no other loop of asyncio runs in this thread.
    """
    assert CHROMIUM.exists(), f"{CHROMIUM} is not there: apt install chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1280, "height": 960},
            reduced_motion="reduce",
        )
        context.set_default_timeout(90_000)  # beside other tests Prefect's UI takes long to draw a page
        context.route(ELSEWHERE, lambda route: route.abort())
        yield context.pages[0]
        context.close()


@pytest.fixture(scope="module")
def day(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and a streamer; what a run left undone is not done by itself, a person has to come."""
    with staged(town, tmp_path_factory.mktemp("day"), INBOX_LEASE_S="900") as found:
        found.up("teacher", "streamer1")
        yield found


@pytest.fixture
def ui(page: Page, town: Town, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """Prefect's UI; how it looked at the end of the test is kept."""
    found = Ui(page, f"http://127.0.0.1:{town.prefect_port}")
    yield found
    found.shot(f"{request.node.name} at its end")
