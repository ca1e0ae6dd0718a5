"""kill -9 of a rollback at every line of its journal: the same command goes on."""

from pathlib import Path

import pytest

from tests.rollout.host import a_host
from tests.rollout.test_rollback import booked, classes, finished
from tests.rollout.test_window_killed import KILL

pytestmark = pytest.mark.night

LINES = 10
"""Lines of a rollback: rollback, rolledback, two each for stop, withdraw, adopt and reload; a restore has two."""


@pytest.mark.parametrize(
    ("restore", "number"), [(restore, n) for restore in (False, True) for n in range(1, LINES + 2 * restore + 1)]
)
def test_a_rollback_that_was_killed_goes_on_where_it_was(tmp_path: Path, restore: bool, number: int) -> None:
    """Also where it restores the database: what the old program wrote after the first try is not thrown away."""
    with a_host(tmp_path) as host:
        before = host.tree()
        finished(host)
        booked(host)
        wanted = host.wanted(restore_database=restore)
        answered = host.step("rollback", wanted=wanted, fault=KILL.format(number=number))
        assert answered.code == -9, f"the fault did not fire: {answered}"
        assert host.step("window").code == 2, "a window may not go over a half rollback"
        assert host.done("rollback", wanted=wanted)["changed"]
        host.is_old(before)
        assert ("new" in classes(host)) is not restore
        assert not host.done("rollback", wanted=wanted)["changed"]


@pytest.mark.parametrize("restore", [False, True])
def test_a_rollback_writes_so_many_lines(tmp_path: Path, restore: bool) -> None:
    """Otherwise a line would be left out above."""
    with a_host(tmp_path) as host:
        finished(host)
        log = host.root / "rollout" / "journal.jsonl"
        before = log.read_text().count("\n")
        host.done("rollback", wanted=host.wanted(restore_database=restore))
        assert log.read_text().count("\n") - before == LINES + 2 * restore
