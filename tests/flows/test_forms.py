"""What a person fills in for a quick run is explained, and no queue of ours looks out of order."""

import inspect
import re

import pytest

from flows.resident.deployments import PARAMETERS, STREAMER, TEACHER, UNUSED
from tests.stage import Stage

pytestmark = pytest.mark.live


def test_each_parameter_of_a_quick_run_is_explained() -> None:
    flows = [*TEACHER.values(), *STREAMER.values()]
    assert {name for flow in flows for name in inspect.signature(flow.fn).parameters} == PARAMETERS.keys()


DEPLOYMENTS = [
    (flow.name, who) for who, flows in (("teacher", TEACHER), ("streamer1", STREAMER)) for flow in flows.values()
]


@pytest.mark.parametrize(("flow", "who"), DEPLOYMENTS)
def test_a_deployment_says_what_it_does_and_its_form_what_is_to_be_filled_in(stage: Stage, flow: str, who: str) -> None:
    """Deployments bear the name of their host, so the description says what they do; it is shown as Markdown."""
    found = stage.town.api.get(f"/deployments/name/{flow}/{stage.name(who)}").raise_for_status().json()
    said = found["description"]
    assert re.match(r"[A-Z][^.]{20,}\.", said)
    assert not re.search(r"^(    |Args:)", said, re.MULTILINE), "it would be shown as a program"
    fields = found["parameter_openapi_schema"]["properties"]
    assert {name: one["description"] for name, one in fields.items()} == {name: PARAMETERS[name] for name in fields}


def test_the_queue_that_nobody_polls_is_paused(stage: Stage) -> None:
    """Else it is a red dot on the dashboard for ever, for which each new operator looks."""
    queues = stage.town.api.post("/work_pools/resident/queues/filter", json={}).json()
    assert [one["status"] for one in queues if one["name"] == UNUSED] == ["PAUSED"]
