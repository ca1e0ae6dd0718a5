"""What a person fills in for a quick run is explained, and no queue of ours looks out of order."""

import inspect

import pytest

from flows.resident.prefect.deployments import PARAMETERS, STREAMER, TEACHER, UNUSED
from tests.stage import Stage

pytestmark = pytest.mark.live


def test_each_parameter_of_a_quick_run_is_explained() -> None:
    flows = [*TEACHER.values(), *STREAMER.values()]
    assert {name for flow in flows for name in inspect.signature(flow.fn).parameters} == PARAMETERS.keys()


def test_the_queue_that_nobody_polls_is_paused(stage: Stage) -> None:
    """Else it is a red dot on the dashboard for ever, for which each new operator looks."""
    queues = stage.town.api.post("/work_pools/resident/queues/filter", json={}).json()
    assert [one["status"] for one in queues if one["name"] == UNUSED] == ["PAUSED"]
