"""Prefect's UI in a browser: what an operator sees, and what he clicks."""

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SHOTS = Path(__file__).parent / "screenshots"
"""Kept after a test, for whoever wants to see what it saw."""

# The UI asks its server anew every few seconds; a machine with three tests at once is slow to draw.
expect.set_options(timeout=60_000.0)


class Ui:
    """The pages of one Prefect server, by what they are for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    def open(self, path: str) -> None:
        """Go to a page, as by its address."""
        self.page.goto(f"{self._url}{path}", wait_until="domcontentloaded")

    def open_run(self, name: str, searched: str) -> None:
        """Search the runs for *searched*, and click the one whose name begins with *name*."""
        self.open("/v2/runs")
        self.page.get_by_placeholder("Search by flow run name").fill(searched)
        link = self.page.get_by_role("link", name=re.compile(f"^{re.escape(name)}")).first  # each try has a run
        expect(link).to_be_visible()
        others = self.page.get_by_role("link", name=re.compile("^(booking|prepare|broadcast) ")).filter(
            has_not_text=searched
        )
        expect(others).to_have_count(0)  # the search has taken hold: what is left is this class's
        self.shot(f"search {searched}")
        link.click()
        expect(self.page.get_by_role("tab", name="Details")).to_be_visible()

    def tab(self, name: str) -> Locator:
        """Click a tab of the page; returns what it shows."""
        # Above the tabs the UI lays a veil over the graph of a run that has no tasks; a keyboard gets past it.
        self.page.get_by_role("tab", name=name).press("Enter")
        return self.page.get_by_role("tabpanel", name=name)

    def open_artifact(self, key: str) -> None:
        """Open an artifact as it is now."""
        self.open(f"/v2/artifacts/key/{key}")
        latest = self.page.get_by_role("main").get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first
        expect(latest).to_be_visible()
        latest.click()

    def state(self, name: str) -> None:
        """Wait until the run's page shows the state *name*."""
        expect(self.page.get_by_role("main").get_by_text(name, exact=True).first).to_be_visible()

    def choose(self, action: str) -> None:
        """Choose *action* in the menu of the run, and say yes to the question that follows."""
        self.page.get_by_role("button", name="Open menu").click()
        self.page.get_by_role("menuitem", name=action, exact=True).click()
        question = self.page.get_by_role("alertdialog").or_(self.page.get_by_role("dialog"))
        expect(question).to_be_visible()
        self.shot(f"{action} is asked for")
        # "Cancel" alone would leave the run as it is.
        question.get_by_role("button", name=re.compile(f"^({action} Flow Run|Retry)$")).click()
        expect(question).to_have_count(0)

    def shot(self, name: str) -> Path:
        """Keep a picture of what is seen now."""
        path = SHOTS / f"{re.sub('[^A-Za-z0-9]+', '-', name).strip('-').lower()}.png"
        self.page.screenshot(path=path)
        return path
