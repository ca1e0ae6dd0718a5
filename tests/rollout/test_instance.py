"""An instance holds all that a rollout runs, and one link switches it; the old .env gets what the note says."""

import shutil
import stat
from pathlib import Path

import pytest

from tests.rollout.host import ENV, Host
from tests.rollout.steps import Fields

pytestmark = pytest.mark.live

DOCUMENTED = "\nwget_path=/usr/bin/wget\nDOWNLOAD_RATE=1000k\nMAX_VIDEO_NUM=1000"


def rolled_out(host: Host, wanted: Fields) -> Path:
    """Roll out what is *wanted*; returns its instance."""
    host.done("backup", wanted=wanted)
    host.done("window", wanted=wanted)
    host.done("verify", wanted=wanted)
    return (host.root / "current").resolve()


def names(host: Host) -> set[str]:
    return {one.name for one in (host.root / "instances").iterdir()}


def test_the_old_env_gets_the_documented_lines_and_nothing_else(host: Host) -> None:
    rolled_out(host, host.wanted())
    assert (host.code / ".env").read_text() == ENV.replace("MAX_VIDEO_SIZE=10", "MAX_VIDEO_SIZE=1000") + DOCUMENTED


def test_all_other_settings_are_in_a_file_that_only_the_program_can_read(host: Host) -> None:
    instance = rolled_out(host, host.wanted())
    settings = instance / "settings.env"
    assert settings.read_text() == f"STREAMER_NAME=streamer1\nHEALTH_BIND=127.0.0.1:{host.health_port}\n"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(instance.stat().st_mode) == stat.S_IMODE(instance.parent.stat().st_mode) == 0o755


def test_it_is_written_before_the_stop(host: Host) -> None:
    host.done("backup")
    die = "import os\nfrom lectern.rollout import supervisord\n"
    die += "supervisord.Supervisord.stop_all = lambda _: os.kill(os.getpid(), 9)\n"
    assert host.step("window", fault=die).code == -9
    assert host.states() == {"idc_client": "RUNNING"}
    (instance,) = (host.root / "instances").iterdir()
    assert {one.name for one in instance.iterdir()} == {"venv", "settings.env", "program.conf"}
    assert not (host.root / "current").exists()


def test_from_one_rollout_to_the_next_and_back_the_link_is_all_that_changes(host: Host) -> None:
    """Also supervisor's file is reached by it, and a changed setting is another instance of the same release."""
    first = rolled_out(host, host.wanted())
    before, settings = host.tree(), first / "settings.env"
    other = host.wanted(env={**host.wanted()["env"], "DRAIN_TIMEOUT_S": "7"})
    second = rolled_out(host, other)
    assert (second / "settings.env").read_text() == f"{settings.read_text()}DRAIN_TIMEOUT_S=7\n"
    assert {path: kept for path, kept in host.tree().items() if before[path] != kept} == {
        "current": (f"instances/{second.name}",)
    }
    host.done("rollback", wanted=other)
    assert host.tree() == before
    host.is_new()


def test_a_setting_that_was_changed_and_changed_back_is_a_rollout_of_its_own(host: Host) -> None:
    """Under the name of the first one, it took that one's backup away: there was no way back to the old program."""
    before = host.tree()
    other = host.wanted(env={**host.wanted()["env"], "DRAIN_TIMEOUT_S": "7"})
    for wanted in (host.wanted(), other, host.wanted()):
        rolled_out(host, wanted)
    assert len(set(host.told()["standing"])) == 3
    assert not host.done("backup")["changed"], "a second run changes nothing"
    assert not host.done("window")["changed"]
    for left in (2, 1, 0):
        host.done("rollback", "--standing")
        assert len(host.told()["standing"]) == left
    host.is_old(before)


def test_what_neither_stands_nor_is_wanted_goes_with_the_next_rollout(host: Host) -> None:
    first = rolled_out(host, host.wanted())
    other = host.wanted(env={**host.wanted()["env"], "DRAIN_TIMEOUT_S": "7"})
    second = rolled_out(host, other)
    host.done("rollback", wanted=other)
    assert names(host) == {first.name, second.name}
    by_hand = host.root / "instances" / "by-hand"
    by_hand.mkdir()
    third = rolled_out(host, host.wanted(env={**host.wanted()["env"], "DRAIN_TIMEOUT_S": "8"}))
    assert names(host) == {first.name, third.name, by_hand.name}, "what no rollout made is left alone"


def test_where_the_release_before_is_gone_nothing_is_stopped_whatever_becomes_of_the_database(host: Host) -> None:
    """Old releases are deleted: after the stop nothing could start again."""
    rolled_out(host, host.wanted())
    host.stage_release("2.0.1")
    newer = host.wanted(version="2.0.1")
    rolled_out(host, newer)
    shutil.rmtree(host.root / "releases/2.0.0")
    for is_restored in (False, True):
        answered = host.step("rollback", wanted={**newer, "restore_database": is_restored})
        assert "the release that a rollback would start is gone. Nothing was stopped." in answered.msg
    host.done("verify", wanted=newer)
