"""kill -9 of a window or a rollback at every line of its journal: the same command goes on, or all is taken back."""

from pathlib import Path

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.rollout.host import NOTES, Host, a_host, classes
from tests.rollout.steps import Fields
from tests.rollout.test_adopt_teacher import keys
from tests.rollout.test_window_teacher import RULES, client, host, is_new, wanted

pytestmark = pytest.mark.night(draw=3)  # each is a host rolled out on

__all__ = ["client", "host", "wanted"]

LINES = 10
"""Lines of a rollback: rollback, rolledback, two each for stop, withdraw, adopt and reload; a restore has two."""


@pytest.mark.parametrize("role", ["streamer", "teacher"])
@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_a_window_goes_back_or_on(tmp_path: Path, client: redis.Redis, role: str, number: int) -> None:
    with a_host(tmp_path, role) as host:
        of_teacher = {"redis_url": url_of(client), "rekey": RULES, "order_key": "class/{class_id}"}
        wanted = host.wanted(**(of_teacher if role == "teacher" else {}))
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
        if role == "teacher":
            is_new(host, wanted, client)
        else:
            host.is_new()


@pytest.mark.parametrize("number", range(1, 13))
def test_a_change_of_settings_goes_back_or_on(tmp_path: Path, number: int) -> None:
    """It stops nothing, so its window has fewer lines."""
    with a_host(tmp_path) as host:
        host.roll_out()
        pid, wanted = host.pid(), host.wanted()
        wanted["env"]["DOWNLOAD_RATE"] = "2000k"
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
def test_a_rollback_goes_on_where_it_was(tmp_path: Path, restore: bool, number: int) -> None:
    """Also where it restores the database: what the old program wrote after the first try is not thrown away."""
    with a_host(tmp_path) as host:
        host.roll_out()
        host.book("new", 1, 2)
        wanted = host.wanted(restore_database=restore)
        host.killed("rollback", number, wanted=wanted)
        assert host.step("window").code == 2, "a window may not go over a half rollback"
        assert host.done("rollback", wanted=wanted)["changed"]
        host.is_old()
        assert ("new" in classes(host.database)) is not restore
        assert not host.done("rollback", wanted=wanted)["changed"]


def test_a_window_and_a_rollback_write_so_many_lines(tmp_path: Path, host: Host, wanted: Fields) -> None:
    """With fewer numbers above, a line would be left out."""

    def lines_of(host: Host, step: str, wanted: Fields | None) -> int:
        before = host.journal().count("\n")
        host.done(step, wanted=wanted)
        return host.journal().count("\n") - before

    host.done("backup", wanted=wanted)
    assert lines_of(host, "window", wanted) == NOTES
    with a_host(tmp_path / "streamer") as streamer:
        for restore in (False, True):
            wish = streamer.wanted(restore_database=restore)
            streamer.done("backup", wanted=wish)
            assert lines_of(streamer, "window", wish) == NOTES
            assert lines_of(streamer, "rollback", wish) == LINES + 2 * restore
