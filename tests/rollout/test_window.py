"""The window: wholly new, or wholly as before."""


from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rollout.host import Host, a_host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with a_host(tmp_path) as found:
        yield found


def test_a_streamer_becomes_new_and_then_old_again(host: Host) -> None:
    before = host.tree()
    host.done("backup")
    answer = host.done("window")
    assert answer["changed"]
    assert answer["downtime_s"] < 30
    host.is_new()
    assert not host.done("window")["changed"]
    back = host.done("rollback")
    assert back["changed"]
    host.is_old(before)
    assert not host.done("rollback")["changed"]
