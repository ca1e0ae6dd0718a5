"""kill -9 of a window or a rollback at every line of its journal: the same command goes on, or all is taken back."""

from pathlib import Path

import pytest
import redis

from tests.effects.redis_servers import url_of
from tests.rollout.host import NOTES, Host, a_host
from tests.rollout.steps import Fields
from tests.rollout.test_rollback import classes
from tests.rollout.test_window import program_pid
from tests.rollout.test_window_teacher import RULES, client, host, is_new, keys, wanted

pytestmark = pytest.mark.night(draw=3)  # each is a host rolled out on

__all__ = ["client", "host", "wanted"]

LINES = 10
"""Lines of a rollback: rollback, rolledback, two each for stop, withdraw, adopt and reload; a restore has two."""


def lines_of(host: Host, step: str, wanted: Fields | None = None) -> int:
    """How many lines a step writes; with fewer numbers above, a line would be left out."""
    log = host.root / "rollout" / "journal.jsonl"
    before = log.read_text().count("\n")
    host.done(step, wanted=wanted)
    return log.read_text().count("\n") - before


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_the_window_of_a_streamer_goes_on(tmp_path: Path, number: int) -> None:
    with a_host(tmp_path) as host:
        host.done("backup")
        host.killed("window", number)
        answer = host.done("window")
        assert answer["changed"]
        host.is_new()


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_a_rollback_takes_the_window_of_a_streamer_back(tmp_path: Path, number: int) -> None:
    with a_host(tmp_path) as host:
        before = host.tree()
        host.done("backup")
        host.killed("window", number)
        assert host.done("rollback")["changed"]
        host.is_old(before)
        host.done("verify")


@pytest.mark.parametrize("number", range(1, 13))
def test_a_change_of_settings_goes_back_or_on(tmp_path: Path, number: int) -> None:
    """It stops nothing, so its window has fewer lines."""
    with a_host(tmp_path) as host:
        host.roll_out()
        pid, wanted = program_pid(host, "lectern-streamer"), host.wanted()
        wanted["env"]["DOWNLOAD_RATE"] = "2000k"
        host.done("backup", wanted=wanted)
        for step in ("rollback", "window"):
            host.killed("window", number, wanted=wanted)
            host.done(step, wanted=wanted)
            host.done("verify", wanted=wanted)
            host.done("backup", wanted=wanted)
        assert program_pid(host, "lectern-streamer") == pid


@pytest.mark.parametrize("number", range(1, NOTES + 1))
def test_the_window_of_a_teacher_goes_back_or_on(tmp_path: Path, client: redis.Redis, number: int) -> None:
    with a_host(tmp_path, "teacher") as host:
        wanted = host.wanted(redis_url=url_of(client), rekey=RULES, order_key="class/{class_id}")
        before, kept = host.tree(), keys(client)
        host.done("backup", wanted=wanted)
        for step in ("rollback", "window"):
            host.killed("window", number, wanted=wanted)
            host.done(step, wanted=wanted)
            if step == "rollback":
                host.is_old(before)
                assert keys(client) == kept
                host.done("backup", wanted=wanted)
        is_new(host, wanted, client)


@pytest.mark.parametrize(
    ("restore", "number"), [(restore, n) for restore in (False, True) for n in range(1, LINES + 2 * restore + 1)]
)
def test_a_rollback_goes_on_where_it_was(tmp_path: Path, restore: bool, number: int) -> None:
    """Also where it restores the database: what the old program wrote after the first try is not thrown away."""
    with a_host(tmp_path) as host:
        before = host.tree()
        host.roll_out()
        host.book("new", 1, 2)
        wanted = host.wanted(restore_database=restore)
        host.killed("rollback", number, wanted=wanted)
        assert host.step("window").code == 2, "a window may not go over a half rollback"
        assert host.done("rollback", wanted=wanted)["changed"]
        host.is_old(before)
        assert ("new" in classes(host)) is not restore
        assert not host.done("rollback", wanted=wanted)["changed"]


def test_a_window_writes_so_many_lines(tmp_path: Path, host: Host, wanted: Fields) -> None:
    host.done("backup", wanted=wanted)
    assert lines_of(host, "window", wanted=wanted) == NOTES
    with a_host(tmp_path / "streamer") as streamer:
        streamer.done("backup")
        assert lines_of(streamer, "window") == NOTES


def test_a_rollback_writes_so_many_lines(tmp_path: Path) -> None:
    for restore in (False, True):
        with a_host(tmp_path / str(restore)) as host:
            host.roll_out()
            assert lines_of(host, "rollback", wanted=host.wanted(restore_database=restore)) == LINES + 2 * restore
