"""An instance holds all that a rollout runs, and one link switches it; if only settings change, nothing stops."""

import json
import stat
import time
from pathlib import Path

import pytest

from tests.rollout.host import Host
from tests.rollout.steps import Fields
from tests.stage import wait_until

pytestmark = pytest.mark.live

DOCUMENTED = "\nDOWNLOAD_RATE=1000k\nMAX_VIDEO_NUM=1000\nMAX_VIDEO_SIZE=1000"


def rolled_out(host: Host, wanted: Fields) -> Path:
    """Roll out what is *wanted*; returns its instance."""
    host.roll_out(wanted)
    host.done("verify", wanted=wanted)
    return (host.root / "current").resolve()


def test_an_instance_is_written_before_the_stop_and_one_link_leads_to_it(host: Host) -> None:
    """The old .env gets the documented lines, and the program's file all others.

    From one rollout to the next and back the link is all that changes; what neither stands nor is wanted goes then.
    """
    old = (host.code / ".env").read_text()
    host.done("backup")
    host.dies("window", "supervisord.Supervisord.stop_all")
    assert host.states() == {"idc_client": "RUNNING"}
    (instance,) = (host.root / "instances").iterdir()
    assert {one.name for one in instance.iterdir()} == {"venv", "settings.env", "program.conf"}
    assert not (host.root / "current").exists()
    first = rolled_out(host, host.wanted())
    assert (host.code / ".env").read_text() == old.replace("/usr/local/bin/wget", "/usr/bin/wget") + DOCUMENTED
    before, settings = host.tree(), first / "settings.env"
    assert settings.read_text() == f"STREAMER_NAME=streamer1\nHEALTH_BIND=127.0.0.1:{host.places.port}\n"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (settings, first, first.parent)] == [0o600, 0o755, 0o755]
    second = rolled_out(host, host.wanted({"DRAIN_TIMEOUT_S": "7"}))
    assert (second / "settings.env").read_text() == f"{settings.read_text()}DRAIN_TIMEOUT_S=7\n"
    assert {path: kept for path, kept in host.tree().items() if before[path] != kept} == {
        "current": [f"instances/{second.name}"]
    }
    host.done("rollback", wanted=host.wanted({"DRAIN_TIMEOUT_S": "7"}))
    assert host.tree() == before
    host.is_new()
    by_hand = first.parent / "by-hand"
    by_hand.mkdir()
    assert {*first.parent.iterdir()} == {first, second, by_hand}
    third = rolled_out(host, host.wanted({"DRAIN_TIMEOUT_S": "8"}))
    assert {*first.parent.iterdir()} == {first, third, by_hand}, "what no rollout made is left alone"


def test_a_setting_that_was_changed_and_changed_back_is_a_rollout_of_its_own(host: Host) -> None:
    """Under the name of the first one, it took that one's backup away: there was no way back to the old program."""
    for wanted in (host.wanted(), host.wanted({"DRAIN_TIMEOUT_S": "7"}), host.wanted()):
        rolled_out(host, wanted)
    assert len(set(host.history().standing)) == 3
    assert not host.done("backup")["changed"], "a second run changes nothing"
    assert not host.done("window")["changed"]
    for left in (2, 1, 0):
        host.done("rollback", "--standing", wanted=host.wanted(further=True))
        assert len(host.history().standing) == left
    host.is_old()


# Verify only looks, and says in words what is not as the last step should have left it.


@pytest.fixture
def new(host: Host) -> Host:
    host.roll_out()
    return host


def test_a_host_without_a_rollout_is_not_as_wanted(host: Host) -> None:
    assert "was not rolled out on this host" in host.refuses("verify")[0]


def test_what_stands_tells_none_of_its_secrets(host: Host) -> None:
    """A way back has no vault, so only the host knows what is to be blotted out."""
    wanted = host.wanted(redis_url="redis://lectern:hidden%2Fpass@127.0.0.1:1/0")
    wanted["env"] |= {"PREFECT_API_AUTH_STRING": "admin:hidden words"}
    host.roll_out(wanted)
    leak = "from lectern.errors import CallAPerson\nfrom lectern.rollout import rollback, verify\n"
    leak += "def told(*_, **__): raise CallAPerson('it says admin:hidden words, hidden/pass, streamer1')\n"
    for step in ("rollback", "verify"):
        place = "rollback.of_standing" if step == "rollback" else "verify.run"
        answered = host.step(step, "--standing", wanted=wanted, fault=f"{leak}{place} = told\n")
        assert answered.msg == "it says ********, ********, streamer1"


def test_the_journal_has_what_was_done_and_another_version_or_copy_is_not_as_wanted(new: Host) -> None:
    steps = {"backup", "window", "stop", "copy", "schema", "switch", "env", "adopt", "reload", "healthy"}
    assert steps <= {json.loads(line)["step"] for line in new.journal().splitlines()}
    assert new.done("verify", "--standing", wanted=new.wanted(version=""))["state"] == "finished"
    answered = new.step("verify", "--standing", wanted=new.wanted(version="2.1.0"))
    assert (answered.code, "lectern 2.0.0 is at work" in answered.msg) == (2, True), answered.msg
    (copy,) = (new.root / "rollout" / "backups").glob("*/silent/task_list.db")
    with copy.open("r+b") as file:
        file.write(b"x")
    assert "it is not what was copied" in new.refuses("verify")[0]


def test_everything_that_is_not_as_wanted_is_said(new: Host) -> None:
    (new.root / "current").unlink()
    (new.root / "current").symlink_to("releases/1.9.9")
    (new.programs / "lectern-streamer.conf").unlink()
    (new.programs / "lectern-streamer.conf").write_text("; a person\n")
    (new.programs / "idc_client.conf").write_text("; is back\n")
    (settings,) = new.root.glob("instances/*/settings.env")
    settings.write_text("STREAMER_NAME=other\n")
    (new.code / ".env").write_text("wget_path=/usr/bin/wget\n")
    new.write("DROP TABLE dir_info")
    new.ctl("stop", "lectern-streamer")
    said = " ".join(new.refuses("verify"))
    for words in (
        "current: not as wanted",
        "lectern-streamer.conf: not as wanted",
        "idc_client.conf: not as wanted",
        "settings.env: not as wanted",
        ".env: DOWNLOAD_RATE, MAX_VIDEO_NUM, MAX_VIDEO_SIZE not as wanted",
        "no table dir_info",
        "lectern-streamer is STOPPED",
    ):
        assert words in said, words
    assert new.supervisord is not None
    new.supervisord.end()
    new.supervisord = None
    wait_until(lambda: not new.states(), description="supervisord is gone")
    assert "lectern-streamer is unknown" in " ".join(new.refuses("verify"))


def test_after_a_rollback_the_old_program_must_be_at_work_and_nothing_of_ours(new: Host) -> None:
    new.done("rollback")
    new.done("verify")
    new.ctl("stop", "idc_client")
    (new.programs / "lectern-streamer.conf").write_text("; ours again\n")
    said = " ".join(new.refuses("verify"))
    assert "idc_client: ran before the window, and is STOPPED now" in said
    assert "not as before the window" in said


# A rollout of settings that need no restart: the program reads them anew, also while a class is on air.

PROGRAM = "lectern-streamer"


@pytest.fixture
def busy(host: Host) -> Host:
    """A host of this release, on which a class is on air that no playout holds."""
    host.roll_out()
    host.book("on air", int(time.time()) - 60, int(time.time()) + 3600)
    return host


def says(host: Host) -> Fields:
    found: Fields = host.health()["settings"]
    return found


def test_settings_that_need_no_restart_change_and_go_back_while_the_program_works(busy: Host) -> None:
    """A check says what changes and when it counts; a second time nothing changes; the old .env is put back.

    Its backup stays as long as it stands, so neither code nor database is in it, and a full disk has room for it.
    """
    wanted, dotenv, pid = busy.wanted({"DOWNLOAD_RATE": "2000k", "MAX_DOWNLOADS": "2"}), busy.code / ".env", busy.pid()
    text, before = dotenv.read_bytes(), says(busy)
    planned = busy.done("open", "--check", wanted=wanted)
    assert f"{PROGRAM}: DOWNLOAD_RATE 1000k -> 2000k: live." in planned["plan"]["reload"]["said"]
    assert f"{PROGRAM}: MAX_DOWNLOADS 4 -> 2: live." in planned["said"]
    changing = {task for task, answer in planned["plan"].items() if answer["changed"]}
    assert changing == {"switch", "env", "reload", "commit"}
    assert "DOWNLOAD_RATE=2000k" in "".join(one["after"] for one in planned["diff"])
    assert (dotenv.read_bytes(), says(busy)) == (text, before)

    backups = busy.root / "rollout/backups"
    there = {*backups.iterdir()}
    full = "import shutil\nshutil.disk_usage = lambda _: shutil._ntuple_diskusage(0, 0, 0)\n"
    assert "the files of the settings would be" in busy.done("backup", "--check", wanted=wanted, fault=full)["said"][0]
    assert "only settings change" in busy.done("backup", wanted=wanted, fault=full)["said"][0]
    (backup,) = {*backups.iterdir()} - there
    assert {path.name for path in backup.iterdir()} == {"files", "manifest.json", "wanted.json"}

    lines, answer = busy.journal(), busy.done("window", wanted=wanted)
    assert "Nothing is stopped" in answer["said"][0]
    assert "downtime_s" not in answer
    assert '"stop"' not in busy.journal().removeprefix(lines)
    assert (says(busy)["DOWNLOAD_RATE"], says(busy)["MAX_DOWNLOADS"]) == ("2000k", "2")
    assert not busy.done("window", wanted=wanted)["changed"]
    busy.done("verify", wanted=wanted)

    answered = busy.step("rollback", wanted={**wanted, "restore_database": True})
    assert answered.code == 2
    assert "no database was copied" in answered.msg
    assert "Down for" not in " ".join(busy.done("rollback", wanted=wanted)["said"])
    assert (dotenv.read_bytes(), says(busy)) == (text, before)
    assert busy.pid() == pid
    busy.done("verify")


def test_what_the_program_refuses_changes_nothing_and_is_named(busy: Host) -> None:
    wanted, pid = busy.wanted({"DOWNLOAD_RATE": "2000k", "ALARM_URLS": "nonsense://"}), busy.pid()
    busy.done("backup", wanted=wanted)
    (busy.code / "refuses-2.0.0").touch()
    die = "import pathlib\nfrom lectern.rollout import rollback\nreal = rollback.take_back\n"
    die += f"gone = pathlib.Path({str(busy.code / 'refuses-2.0.0')!r}).unlink\n"
    die += "rollback.take_back = lambda *given: (gone(), real(*given))[1]\n"  # what it refuses is what is new
    before, text = says(busy), (busy.code / ".env").read_bytes()
    answered = busy.step("window", wanted=wanted, fault=die)
    assert answered.code == 1
    assert "ALARM_URLS: nonsense. Nothing is changed." in answered.msg
    assert "The host was rolled back" in answered.msg
    assert not busy.done("rollback", wanted=wanted)["changed"], "as the playbook asks then: the one below it stays"
    assert (says(busy), (busy.code / ".env").read_bytes(), busy.pid()) == (before, text, pid)
    busy.done("verify")


def test_else_the_host_is_stopped_as_ever(busy: Host) -> None:
    """If a setting needs a restart, more than settings change, or the program is dead; also on the way back.

    A value that no program takes is refused.
    """
    wanted = busy.wanted({"DOWNLOAD_RATE": "2000k"})

    def plan(fields: Fields) -> str:
        return str(busy.done("open", "--check", wanted=fields)["said"])

    assert "Nothing is stopped" in plan(wanted)
    assert "DOWNLOAD_RATE: " in busy.step("preflight", wanted=busy.wanted({"DOWNLOAD_RATE": "fast"})).msg
    assert "Stop all programs" in plan(busy.wanted({"DOWNLOAD_RATE": "2000k", "LEASE_S": "90"}))
    assert "Stop all programs" in plan({**wanted, "program_conf": wanted["program_conf"] + "startretries=9\n"})
    busy.ctl("stop", PROGRAM)
    assert "Stop all programs" in plan(wanted)
    busy.ctl("start", PROGRAM)
    wait_until(lambda: "Nothing is stopped" in plan(wanted), description="the program answers again")
    busy.roll_out(wanted)
    busy.ctl("stop", PROGRAM)
    busy.done("rollback", wanted={**wanted, "even_on_air": True})
    assert says(busy)["DOWNLOAD_RATE"] == "1000k", "on the way back it is started anew"
