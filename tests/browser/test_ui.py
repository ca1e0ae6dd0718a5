"""What an operator does at night, he does in Prefect's UI: found, read, retried, cancelled by clicks in a browser."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from playwright.sync_api import expect

from tests.browser.ui import Ui
from tests.stage import Stage, wait_until

pytestmark = pytest.mark.night


@contextmanager
def refusing(stage: Stage, class_id: str, why: str) -> Iterator[None]:
    """Meanwhile the teacher's database does not take this class."""
    with closing(sqlite3.connect(stage.database("teacher"), timeout=20)) as database:
        database.execute(
            f"create trigger no_room before insert on order_list when new.class_id = '{class_id}' "
            f"begin select raise(abort, '{why}'); end"
        )
        try:
            yield
        finally:
            database.execute("drop trigger no_room")


def test_a_booking_that_failed_is_found_by_its_class_read_and_retried(day: Stage, ui: Ui) -> None:
    """And the class is aired."""
    booking = day.booking(day.town.record(seconds=90), starts_in_s=30, length_s=80)
    class_id = booking["class_id"]
    with refusing(day, class_id, "there is no room for it"):
        day.book(booking)
        ui.open_run(f"booking {class_id}", searched=class_id)
        ui.state("Failed")
        reason = ui.tab("Details").get_by_text("there is no room for it")
        expect(reason).to_be_visible()
        reason.scroll_into_view_if_needed()
        ui.shot("a booking that failed")
    assert day.ear.answers[class_id] == []
    ui.choose("Retry")
    assert day.answer(class_id)["result"] == "success"
    ui.state("Completed")
    day.on_air(class_id, timeout_s=90)
    day.cancel(class_id)
    day.off_air(class_id)


def test_the_classes_of_tomorrow_are_seen(day: Stage, ui: Ui) -> None:
    """In the timetable, each with its sign, and as upcoming runs of the streamer's deployment."""
    hours = (2, 9, 17, 23)
    several = [day.booking(day.town.record(), starts_in_s=3600 * hour, length_s=2700) for hour in hours]
    for one in several:
        day.answer(day.book(one))
    shown = f"timetable-{day.name('streamer1')}"
    last = several[-1]["class_id"]
    wait_until(lambda: f'"{last}"' in day.artifact(shown), timeout_s=90, description="the timetable has the last one")
    ui.open_artifact(shown)
    for one in several:
        row = ui.page.get_by_role("row").filter(has_text=one["class_id"])
        expect(row).to_contain_text(time.strftime("%m-%d %H:%M:%S", time.localtime(one["start_time"])))
        expect(row).to_contain_text("○")
    ui.shot("the timetable")
    (run,) = wait_until(
        lambda: day.runs("streamer1", f"broadcast {several[-1]['class_id']}"), description="the last one has its run"
    )
    ui.open(f"/v2/deployments/deployment/{run['deployment_id']}?tab=Upcoming")
    expect(ui.page.get_by_role("link", name=re.compile("^broadcast .")).first).to_be_visible()
    ui.shot("upcoming runs")
    ui.page.get_by_placeholder("Search by run name").fill(last)  # they are shown five at a time
    expect(ui.page.get_by_role("link", name=f"broadcast {last}")).to_be_visible()
