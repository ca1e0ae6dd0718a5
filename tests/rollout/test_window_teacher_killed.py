"""kill -9 of the teacher's window at every line of its journal: a rollback takes all back, or the window goes on."""

from pathlib import Path

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.rollout.host import Host, a_host
from tests.rollout.steps import Fields
from tests.rollout.test_window_killed import KILL
from tests.rollout.test_window_teacher import RULES, client, host, is_new, keys, server, wanted

pytestmark = pytest.mark.night

__all__ = ["client", "host", "server", "wanted"]

NOTES = 20
"""So many lines does the window of a teacher write."""


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_killed_anywhere_it_goes_back_or_on(tmp_path: Path, client: redis.Redis, number: int) -> None:
    with a_host(tmp_path, "teacher") as host:
        wanted = host.wanted(redis_url=url_of(client), rekey=RULES, order_key="class/{class_id}")
        before, kept = host.tree(), keys(client)
        host.done("backup", wanted=wanted)
        for step in ("rollback", "window"):
            answered = host.step("window", wanted=wanted, fault=KILL.format(number=number))
            assert answered.code == -9, f"the fault did not fire: {answered}"
            host.done(step, wanted=wanted)
            if step == "rollback":
                host.is_old(before)
                assert keys(client) == kept
                host.done("backup", wanted=wanted)
        is_new(host, wanted, client)


def test_the_window_of_a_teacher_writes_so_many_lines(host: Host, wanted: Fields) -> None:
    """Otherwise a step would be left out above."""
    host.done("backup", wanted=wanted)
    log = host.root / "rollout" / "journal.jsonl"
    lines = log.read_text().count("\n")
    host.done("window", wanted=wanted)
    assert log.read_text().count("\n") - lines == NOTES
