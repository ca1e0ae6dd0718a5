"""kill -9 of a window or a rollback at every line of its journal: the same command goes on, or all is taken back."""

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.rollout.host import NOTES, Host, classes
from tests.rollout.steps import Fields
from tests.rollout.test_adopt_teacher import keys
from tests.rollout.test_window_teacher import NEW_NAMES, client, is_new

pytestmark = pytest.mark.night(draw=3)  # each is a host rolled out on

__all__ = ["client"]

LINES = 10
"""Lines of a rollback: rollback, rolledback, two each for stop, withdraw, adopt and reload; a restore has two."""
of_both_roles = pytest.mark.parametrize("role", ["streamer", "teacher"])


@pytest.fixture
def wanted(host: Host, client: redis.Redis) -> Fields:
    return host.wanted(redis_url=url_of(client), **NEW_NAMES) if host.role == "teacher" else host.wanted()


@of_both_roles
@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_a_window_goes_back_or_on(host: Host, wanted: Fields, client: redis.Redis, number: int) -> None:
    kept = keys(client)
    host.done("backup", wanted=wanted)
    host.killed("window", number, wanted)
    assert host.done("rollback", wanted=wanted)["changed"]
    host.is_old()
    assert keys(client) == kept
    host.done("verify", wanted=wanted)
    host.done("backup", wanted=wanted)
    host.killed("window", number, wanted)
    assert host.done("window", wanted=wanted)["changed"]
    if host.role == "teacher":
        is_new(host, wanted, client)
    else:
        host.is_new()


@pytest.mark.parametrize("number", range(1, 13))
def test_a_change_of_settings_goes_back_or_on(host: Host, number: int) -> None:
    """It stops nothing, so its window has fewer lines."""
    host.roll_out()
    pid, wanted = host.pid(), host.wanted({"DOWNLOAD_RATE": "2000k"})
    host.done("backup", wanted=wanted)
    for step in ("rollback", "window"):
        host.killed("window", number, wanted=wanted)
        host.done(step, wanted=wanted)
        host.done("verify", wanted=wanted)
        host.done("backup", wanted=wanted)
    assert host.pid() == pid


@pytest.mark.parametrize(
    ("restore", "number"), [(restore, n) for restore in (False, True) for n in range(1, LINES + 2 * restore + 1)]
)
def test_a_rollback_goes_on_where_it_was(host: Host, restore: bool, number: int) -> None:
    """Also where it restores the database: what the old program wrote after the first try is not thrown away."""
    host.roll_out()
    host.book("new", 1, 2)
    wanted = host.wanted(restore_database=restore)
    host.killed("rollback", number, wanted=wanted)
    assert host.step("window").code == 2, "a window may not go over a half rollback"
    assert host.done("rollback", wanted=wanted)["changed"]
    host.is_old()
    assert ("new" in classes(host.database)) is not restore
    assert not host.done("rollback", wanted=wanted)["changed"]


@of_both_roles
def test_a_window_and_a_rollback_write_so_many_lines(host: Host, wanted: Fields) -> None:
    """With fewer numbers above, a line would be left out."""

    def lines_of(step: str, wish: Fields) -> int:
        before = host.journal().count("\n")
        host.done(step, wanted=wish)
        return host.journal().count("\n") - before

    for restore in (False, True) if host.role == "streamer" else (False,):
        wish = {**wanted, "restore_database": restore}
        host.done("backup", wanted=wish)
        assert lines_of("window", wish) == NOTES
        if host.role == "streamer":
            assert lines_of("rollback", wish) == LINES + 2 * restore
