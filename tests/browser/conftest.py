"""A browser without a screen."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
WANTED = f"{CHROMIUM} is not there: apt install chromium"
SHOTS = Path(__file__).parent / "screenshots"
"""Kept after a test, for whoever wants to see what it saw."""

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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """An empty page of a browser that nobody has used before; it reaches nothing but this machine.

    It lives as long as a module: beside it no other loop of asyncio runs in this thread.
    """
    if not CHROMIUM.exists() and os.environ.get("CI") != "true":  # the CI has one, or fails
        pytest.skip(WANTED)
    assert CHROMIUM.exists(), WANTED
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=CHROMIUM, args=FLAGS, reduced_motion="reduce"
        )
        context.set_default_timeout(90_000)  # beside other tests it takes long to draw a page
        context.route(ELSEWHERE, lambda route: route.abort())
        yield context.pages[0]
        context.close()
