"""An instance holds all that a rollout runs, and one link switches it; the old .env gets what the note says."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lectern.rollout import verify
from tests.rollout.host import ENV, Host
from tests.rollout.steps import Fields
from tests.stage import wait_until

pytestmark = pytest.mark.live

DOCUMENTED = "\nwget_path=/usr/bin/wget\nDOWNLOAD_RATE=1000k\nMAX_VIDEO_NUM=1000"


def rolled_out(host: Host, wanted: Fields) -> Path:
    """Roll out what is *wanted*; returns its instance."""
    host.roll_out(wanted)
    host.done("verify", wanted=wanted)
    return (host.root / "current").resolve()


def names(host: Host) -> set[str]:
    return {one.name for one in (host.root / "instances").iterdir()}


def test_the_old_env_gets_the_documented_lines_and_the_programs_file_all_others(host: Host) -> None:
    rolled_out(host, host.wanted())
    assert (host.code / ".env").read_text() == ENV.replace("MAX_VIDEO_SIZE=10", "MAX_VIDEO_SIZE=1000") + DOCUMENTED
    instance = rolled_out(host, host.wanted())
    settings = instance / "settings.env"
    assert settings.read_text() == f"STREAMER_NAME=streamer1\nHEALTH_BIND=127.0.0.1:{host.health_port}\n"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(instance.stat().st_mode) == stat.S_IMODE(instance.parent.stat().st_mode) == 0o755


def test_it_is_written_before_the_stop(host: Host) -> None:
    host.done("backup")
    host.dies("window", "supervisord.Supervisord.stop_all")
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


# Verify only looks, and says in words what is not as the last step should have left it; status tells the story.


@pytest.fixture
def new(host: Host) -> Host:
    host.roll_out()
    return host


def faults(host: Host) -> list[str]:
    """What a verify that must fail says."""
    answered = host.step("verify")
    assert (answered.code, answered.fields["failed"], answered.fields["changed"]) == (1, True, False)
    said: list[str] = answered.fields["said"]
    assert all(one in answered.msg for one in said)
    return said


def test_a_host_without_a_rollout_is_not_as_wanted_and_its_status_a_sentence(host: Host) -> None:
    """It waits for nothing on its standard input, and prints no JSON to people."""
    assert "was not rolled out on this host" in faults(host)[0]
    argv = [sys.executable, "-c", "from lectern.cli import main; main()", "rollout", "status", "--root", str(host.root)]
    done = subprocess.run(argv, stdin=None, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("lectern: Nothing was ever rolled out under ")


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


def test_another_version_or_a_copy_that_was_changed_is_not_as_wanted(new: Host) -> None:
    assert new.done("verify", "--standing", wanted=new.wanted(version=""))["state"] == "finished"
    answered = new.step("verify", "--standing", wanted=new.wanted(version="2.1.0"))
    assert (answered.code, "lectern 2.0.0 is at work" in answered.msg) == (2, True), answered.msg
    (copy,) = (new.root / "rollout" / "backups").glob("*/silent/task_list.db")
    with copy.open("r+b") as file:
        file.write(b"x")
    assert "it is not what was copied" in faults(new)[0]


def test_it_changes_nothing(new: Host) -> None:
    before = new.everything()
    new.done("verify")
    new.told()
    assert new.everything() == before
    new.ctl("stop", "all")
    new.write("SELECT 1")
    before = new.everything()
    faults(new)
    assert new.everything() == before


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
    said = " ".join(faults(new))
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


def test_after_a_rollback_the_old_program_must_be_at_work_and_nothing_of_ours(new: Host) -> None:
    new.done("rollback")
    new.done("verify")
    new.ctl("stop", "idc_client")
    (new.programs / "lectern-streamer.conf").write_text("; ours again\n")
    said = " ".join(faults(new))
    assert "idc_client: ran before the window, and is STOPPED now" in said
    assert "not as before the window" in said


def test_the_status_tells_what_was_done(new: Host) -> None:
    answer = new.told()
    assert answer["state"] == "finished"
    steps = {"backup", "window", "stop", "copy", "schema", "switch", "env", "adopt", "reload", "healthy"}
    assert steps <= {one["step"] for one in answer["notes"]}
    said = verify.lines({"streamer": answer})
    assert said[-1] == f"streamer: {answer['id']} is finished; what stands is {answer['id']}."
    assert any(line.endswith("  reload is done") for line in said)


def test_a_supervisord_that_is_gone_is_told(new: Host) -> None:
    assert new.supervisord is not None
    new.supervisord.end()
    new.supervisord = None
    wait_until(lambda: not new.states(), description="supervisord is gone")
    assert "lectern-streamer is unknown" in faults(new)[0]
