"""What an operator does at night he does in Prefect's UI, by clicks in a browser: find, read, retry, cancel."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import SHOTS
from tests.stage import Stage, Town, staged

pytestmark = pytest.mark.night
# The UI asks its server anew every few seconds; a machine with three tests at once is slow to draw.
expect.set_options(timeout=60_000.0)


@pytest.fixture(scope="module")
def day(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and a streamer; what a run left undone is not done by itself, a person has to come."""
    with staged(town, tmp_path_factory.mktemp("day"), INBOX_LEASE_S="900") as found:
        found.up("teacher", "streamer1")
        yield found


def open_run(page: Page, day: Stage, flow: str, class_id: str) -> None:
    """Search the runs for the class, and click the one of *flow*."""
    page.goto(f"http://127.0.0.1:{day.town.prefect_port}/v2/runs", wait_until="domcontentloaded")
    page.get_by_placeholder("Search by flow run name").fill(class_id)
    link = page.get_by_role("link", name=re.compile(f"^{flow} {class_id}")).first  # each try has a run
    expect(link).to_be_visible()
    others = page.get_by_role("link", name=re.compile("^(booking|prepare|broadcast) ")).filter(has_not_text=class_id)
    expect(others).to_have_count(0)  # the search has taken hold: what is left is this class's
    link.click()


def choose(page: Page, action: str) -> None:
    """Choose *action* in the menu of the run, and say yes to the question that follows."""
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name=action, exact=True).click()
    question = page.get_by_role("alertdialog").or_(page.get_by_role("dialog"))
    # "Cancel" alone would leave the run as it is.
    question.get_by_role("button", name=re.compile(f"^({action} Flow Run|Retry)$")).click()
    expect(question).to_have_count(0)


def state(page: Page, name: str) -> Locator:
    return page.get_by_role("main").get_by_text(name, exact=True).first


def test_a_booking_that_failed_is_found_by_its_class_read_and_retried_and_its_broadcast_cancelled(
    day: Stage, page: Page
) -> None:
    booking = day.booking(day.town.record(seconds=90), starts_in_s=30, length_s=80)
    class_id = booking["class_id"]
    when = f"when new.class_id = '{class_id}' begin select raise(abort, 'there is no room for it'); end"
    day.alter("teacher", f"create trigger no_room before insert on order_list {when}")
    day.book(booking)
    open_run(page, day, "booking", class_id)
    expect(state(page, "Failed")).to_be_visible()
    # Above the tabs the UI lays a veil over the graph of a run that has no tasks; a keyboard gets past it.
    page.get_by_role("tab", name="Details").press("Enter")
    reason = page.get_by_role("tabpanel", name="Details").get_by_text("there is no room for it")
    expect(reason).to_be_visible()
    reason.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "a-booking-that-failed.png")
    day.alter("teacher", "drop trigger no_room")
    assert day.ear.answers[class_id] == []
    choose(page, "Retry")
    assert day.answer(class_id)["result"] == "success"
    expect(state(page, "Completed")).to_be_visible()
    day.on_air(class_id, timeout_s=90)
    open_run(page, day, "broadcast", class_id)
    expect(state(page, "Running")).to_be_visible()
    choose(page, "Cancel")
    (push,) = day.off_air(class_id)
    assert push.ended_at is not None
    assert push.ended_at < booking["end_time"] - 5
    page.screenshot(path=SHOTS / "a-broadcast-that-was-cancelled.png")
