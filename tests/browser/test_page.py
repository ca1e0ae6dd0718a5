"""The teacher's page as somebody reads it who has only a phone at hand."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.night


@pytest.fixture(scope="module")
def address(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where somebody is let in to the page of a day with a class that was refused."""
    with staged(town, tmp_path_factory.mktemp("page")) as stage:
        bind = f"{HOST}:{free_port()}"
        stage.own["teacher"] = {"API_BIND": bind}
        stage.up("teacher", "streamer1")
        _refused(stage)
        _on_air(stage)
        token = json.loads(stage.lectern("teacher", "viewer", "add", "phone", "--json").stdout)["token"]
        yield f"http://{bind}/?token={token}"


def _refused(stage: Stage) -> None:
    class_id = stage.book(stage.booking(stage.town.record(), starts_in_s=-60, length_s=1))
    assert stage.answer(class_id)["code"] == 410
    stage.publish("order", "nonsense")
    wait_until(lambda: stage.rows("teacher", "select 1 from incident_list"), description="it is an incident")


def _on_air(stage: Stage) -> None:
    class_id = stage.book(stage.booking(stage.town.record(), starts_in_s=1, length_s=300))
    assert stage.answer(class_id)["result"] == "success"


def test_a_class_on_air_has_its_picture(page: Page, address: str) -> None:
    """It comes from its streamer by way of the teacher, and is drawn as soon as the class is on air."""
    page.goto(address)
    picture = page.locator("#on-air img.still")
    picture.wait_for()
    drawn = "image => image.complete && image.naturalWidth === 320"
    wait_until(lambda: picture.evaluate(drawn), description="its picture is drawn")
    answer = page.context.request.get(f"{address.partition('/?')[0]}{picture.get_attribute('src')}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
