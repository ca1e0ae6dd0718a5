"""The metrics of the playout say what it does."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lectern import metrics
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.waiting import wait_until

pytestmark = pytest.mark.live


def read(text: bytes) -> dict[str, float]:
    """The value of each metric."""
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_metrics_tell_of_sessions_lateness_bytes_reconnects_and_the_lease(tmp_path: Path) -> None:
    """One class is on air, with one session; the other one's server is not there."""
    path = flvs.write(tmp_path / "a.flv", flvs.lesson(60))
    with Receiver() as receiver, Playout(tmp_path / "p", lease_s=100) as playout:
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        playout.air("c2", path, "rtmp://127.0.0.1:1/live/c2", starts_in_s=0.2)
        wait_until(lambda: playout.told("on_air"), description="on air")
        wait_until(lambda: playout.told("broke_off"), description="a try that failed")
        found = read(metrics.playout_exposition(playout.ask("status")))
    assert found["lectern_playout_up"] == 1
    assert found["lectern_playout_sessions"] == found["lectern_playout_classes_on_air"] == 1
    assert 90 < found["lectern_playout_lease_left_seconds"] <= 100
    assert found["lectern_playout_bytes_total"] > 0
    assert found["lectern_playout_reconnects_total"] >= 1
    assert found["lectern_playout_slate_seconds"] == 0
    assert 0 <= found["lectern_playout_lateness_seconds"] < 10


def test_a_playout_that_does_not_answer_is_down() -> None:
    assert read(metrics.playout_exposition(None)) == {"lectern_playout_up": 0}
