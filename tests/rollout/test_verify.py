"""Verify only looks, and says in words what is not as the last step should have left it; status tells the story."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from lectern.rollout import verify
from tests.rollout.host import Host
from tests.stage import wait_until

pytestmark = pytest.mark.live


@pytest.fixture
def new(host: Host) -> Host:
    """Its rollout is finished."""
    host.done("backup")
    host.done("window")
    return host


def faults(host: Host) -> list[str]:
    """What a verify that must fail says."""
    answered = host.step("verify")
    assert (answered.code, answered.fields["failed"], answered.fields["changed"]) == (1, True, False)
    said: list[str] = answered.fields["said"]
    assert all(one in answered.msg for one in said)
    return said


def test_a_host_on_which_nothing_was_rolled_out_is_not_as_wanted(host: Host) -> None:
    assert "was not rolled out on this host" in faults(host)[0]


def test_what_stands_tells_none_of_its_secrets(host: Host) -> None:
    """A way back has no vault, so only the host knows what is to be blotted out."""
    wanted = host.wanted(redis_url="redis://lectern:hidden%2Fpass@127.0.0.1:1/0")
    wanted["env"] |= {"PREFECT_API_AUTH_STRING": "admin:hidden words"}
    host.done("backup", wanted=wanted)
    host.done("window", wanted=wanted)
    leak = "from lectern.errors import CallAPerson\nfrom lectern.rollout import rollback, verify\n"
    leak += "def told(*_, **__): raise CallAPerson('it says admin:hidden words, hidden/pass, streamer1')\n"
    for step in ("rollback", "verify"):
        place = "rollback.of_standing" if step == "rollback" else "verify.run"
        answered = host.step(step, "--standing", wanted=wanted, fault=f"{leak}{place} = told\n")
        assert answered.msg == "it says ********, ********, streamer1"


def test_of_what_stands_another_version_than_was_named_is_not_as_wanted(new: Host) -> None:
    assert new.done("verify", "--standing", wanted=new.wanted(version=""))["state"] == "finished"
    answered = new.step("verify", "--standing", wanted=new.wanted(version="2.1.0"))
    assert (answered.code, "lectern 2.0.0 is at work" in answered.msg) == (2, True), answered.msg


def test_it_changes_nothing(new: Host) -> None:
    before = new.everything()
    new.done("verify")
    new.told()
    assert new.everything() == before
    new.ctl("stop", "all")
    with closing(sqlite3.connect(new.database)) as connection:
        connection.execute("SELECT 1")
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
    with closing(sqlite3.connect(new.database, timeout=20)) as connection:
        connection.execute("DROP TABLE dir_info")
        connection.commit()
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


def test_a_copy_that_was_changed_since_is_told(new: Host) -> None:
    (copy,) = (new.root / "rollout" / "backups").glob("*/silent/task_list.db")
    with copy.open("r+b") as file:
        file.write(b"x")
    assert "it is not what was copied" in faults(new)[0]


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


def test_the_status_of_a_host_without_a_rollout_is_a_sentence(host: Host) -> None:
    """It waits for nothing on its standard input, and prints no JSON to people."""
    argv = [sys.executable, "-c", "from lectern.cli import main; main()", "rollout", "status", "--root", str(host.root)]
    done = subprocess.run(argv, stdin=None, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("lectern: Nothing was ever rolled out under ")


def test_a_supervisord_that_is_gone_is_told(new: Host) -> None:
    assert new.supervisord is not None
    new.supervisord.end()
    new.supervisord = None
    wait_until(lambda: not new.states(), description="supervisord is gone")
    assert "lectern-streamer is unknown" in faults(new)[0]
