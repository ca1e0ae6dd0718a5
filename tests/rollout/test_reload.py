"""A rollout of settings that need no restart: the program reads them anew, also while a class is on air."""

import json
import time

import httpx
import pytest

from tests.rollout.host import Host
from tests.rollout.steps import Fields
from tests.rollout.test_window import program_pid

pytestmark = pytest.mark.live
PROGRAM = "lectern-streamer"


def wish(host: Host, **env: str) -> Fields:
    """What was wanted, with some settings differently."""
    fields = host.wanted()
    return {**fields, "env": {**fields["env"], **env}}


@pytest.fixture
def new(host: Host) -> Host:
    """A host of this release, on which a class is on air that no playout holds."""
    host.roll_out()
    host.book("on air", int(time.time()) - 60, int(time.time()) + 3600)
    return host


def says(host: Host) -> Fields:
    found: Fields = httpx.get(host.wanted()["health_url"], trust_env=False, timeout=20).json()["settings"]
    return found


def test_settings_that_need_no_restart_change_and_go_back_while_the_program_works(new: Host) -> None:
    """A check says what changes and when it counts; a second time nothing changes; the old .env is put back."""
    wanted, dotenv, pid = (
        wish(new, DOWNLOAD_RATE="2000k", MAX_DOWNLOADS="2"),
        new.code / ".env",
        program_pid(new, PROGRAM),
    )
    text, before = dotenv.read_bytes(), says(new)
    planned = new.done("open", "--check", wanted=wanted)
    assert f"{PROGRAM}: DOWNLOAD_RATE 1000k -> 2000k: live." in planned["plan"]["reload"]["said"]
    assert f"{PROGRAM}: MAX_DOWNLOADS 4 -> 2: live." in planned["said"]
    assert {task for task, answer in planned["plan"].items() if answer["changed"]} == {
        "switch",
        "env",
        "reload",
        "commit",
    }
    assert "DOWNLOAD_RATE=2000k" in "".join(one["after"] for one in planned["diff"])
    assert (dotenv.read_bytes(), says(new)) == (text, before)

    new.done("backup", wanted=wanted)
    lines, answer = new.journal(), new.done("window", wanted=wanted)
    assert "Nothing is stopped" in answer["said"][0]
    assert "downtime_s" not in answer
    assert '"stop"' not in new.journal().removeprefix(lines)
    assert (says(new)["DOWNLOAD_RATE"], says(new)["MAX_DOWNLOADS"]) == ("2000k", "2")
    assert not new.done("window", wanted=wanted)["changed"]
    new.done("verify", wanted=wanted)

    answered = new.step("rollback", wanted={**wanted, "restore_database": True})
    assert answered.code == 2
    assert "no database was copied" in answered.msg
    assert "Down for" not in " ".join(new.done("rollback", wanted=wanted)["said"])
    assert (dotenv.read_bytes(), says(new)) == (text, before)
    assert program_pid(new, PROGRAM) == pid
    new.done("verify")


def test_what_the_program_refuses_changes_nothing_and_is_named(new: Host) -> None:
    wanted, pid = wish(new, DOWNLOAD_RATE="2000k", ALARM_URLS="nonsense://"), program_pid(new, PROGRAM)
    new.done("backup", wanted=wanted)
    (new.code / "refuses-2.0.0").touch()
    die = "import pathlib\nfrom lectern.rollout import rollback\nreal = rollback.take_back\n"
    die += f"gone = pathlib.Path({str(new.code / 'refuses-2.0.0')!r}).unlink\n"
    die += "rollback.take_back = lambda *given: (gone(), real(*given))[1]\n"  # what it refuses is what is new
    before, text = says(new), (new.code / ".env").read_bytes()
    answered = new.step("window", wanted=wanted, fault=die)
    assert answered.code == 1
    assert "ALARM_URLS: nonsense. Nothing is changed." in answered.msg
    assert "The host was rolled back" in answered.msg
    assert not new.done("rollback", wanted=wanted)["changed"], "as the playbook asks then: the one below it stays"
    assert (says(new), (new.code / ".env").read_bytes(), program_pid(new, PROGRAM)) == (before, text, pid)
    new.done("verify")


def test_a_value_that_no_program_takes_is_refused_before_anything_changes(new: Host) -> None:
    wanted = wish(new, DOWNLOAD_RATE="fast")
    assert "DOWNLOAD_RATE: " in new.step("preflight", wanted=wanted).msg
    assert json.loads(new.journal().splitlines()[-1])["step"] == "committed"


def test_else_the_host_is_stopped_as_ever(new: Host) -> None:
    """If a setting needs a restart, more than settings change, or the program is dead."""
    wanted = wish(new, DOWNLOAD_RATE="2000k")

    def plan(fields: Fields) -> str:
        return str(new.done("open", "--check", wanted=fields)["said"])

    assert "Nothing is stopped" in plan(wanted)
    assert "Stop all programs" in plan(wish(new, DOWNLOAD_RATE="2000k", LEASE_S="90"))
    assert "Stop all programs" in plan({**wanted, "program_conf": wanted["program_conf"] + "startretries=9\n"})
    new.ctl("stop", PROGRAM)
    assert "Stop all programs" in plan(wanted)


def test_a_program_that_died_since_is_started_anew_on_the_way_back(new: Host) -> None:
    wanted = wish(new, DOWNLOAD_RATE="2000k")
    new.roll_out(wanted)
    new.ctl("stop", PROGRAM)
    new.done("rollback", wanted={**wanted, "even_on_air": True})
    assert says(new)["DOWNLOAD_RATE"] == "1000k"
