"""Our own ffmpeg servers, with everything killed that can be killed: one result, or a refusal, and nothing is left."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from lectern.demo import sshd as demo
from lectern.demo.origin import Fault
from lectern.demo.oss_transcoder import Behaviour, Rule
from lectern.demo.ports import HOST
from lectern.demo.sshd import SshServer
from tests.stage import STAGES, Gate, Stage, Town, wait_until

pytestmark = pytest.mark.timeout(600)  # the first test of a session starts the servers


class Server(SshServer):
    """An ECS host: a home of its own, and a way to it that can be shut."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.home = folder / "home"
        self.gate = Gate(self.port)

    def _start_sshd(self, sshd: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(demo, "_CONFIG", f"{demo._CONFIG}SetEnv HOME={self.home}\n")
            super()._start_sshd(sshd)

    @property
    def name(self) -> str:
        """As the setting names it."""
        return f"ssh://{self.user}@{HOST}:{self.gate.port}"

    @property
    def known(self) -> str:
        """Its line in known_hosts."""
        return self.known_hosts.read_text().replace(f":{self.port} ", f":{self.gate.port} ")

    def jobs(self) -> list[str]:
        """The folders of jobs there."""
        root = self.home / "work"
        return [one.name for one in root.iterdir()] if root.is_dir() else []

    def processes(self, words: str = "") -> list[int]:
        """What runs there for jobs, with *words* in its command line."""
        return [pid for pid in running_with(str(self.home / "work")) if not words or pid in running_with(words)]


def running_with(words: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if words in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(int(process.pid))
    return found


class Ecs(Stage):
    """A stage with two ECS hosts; the OSS fails at once, and ffmpeg takes its time."""

    a: Server
    b: Server

    def encoders(self) -> list[int]:
        """The ffmpegs that encode, on either host."""
        found = [*self.a.processes("-force_key_frames"), *self.b.processes("-force_key_frames")]
        return [pid for pid in found if psutil.pid_exists(pid) and psutil.Process(pid).name() == "ffmpeg"]

    def encoding(self) -> int:
        """Wait until one encodes, and is watched."""
        return wait_until(lambda: (self.encoders() or [0])[0], timeout_s=60, description="ffmpeg encodes")

    def row(self, record: int) -> dict[str, Any]:
        """The rendition of a record, as the teacher has it."""
        return next(iter(self.rows("teacher", "select * from video_list where record_id = ?", record)), {})

    def results(self, record: int) -> list[dict[str, Any]]:
        """What was published about a record."""
        return [one for one in self.stream(self.channels["transcoding"]) if one["record_id"] == record]

    def puts(self, record: int) -> int:
        """How often a rendition of a record was uploaded."""
        return self.town.asked(f"put/{record}/{record}_240P.flv", "PUT")

    def clean(self) -> None:
        """Wait until nothing is left on the hosts."""
        for server in (self.a, self.b):
            wait_until(
                lambda s=server: not s.jobs() and not s.processes(),  # type: ignore[misc]
                timeout_s=30,
                description=f"nothing is left on {server.name}: {server.jobs()}, {server.processes()}",
            )


@pytest.fixture(scope="module")
def ecs(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecs]:
    folder = tmp_path_factory.mktemp("ecs")
    servers = [Server(folder / name) for name in ("a", "b")]
    for server in servers:
        town.background.run(server.start())
        town.background.run(server.gate.start())
    if any(server.kind != "sshd" for server in servers):
        pytest.skip("no sshd here that lets us in: two hosts on one machine need it")
    # Both let the same key in, and each has its own home.
    (folder / "b" / "authorized_keys").write_text((folder / "a" / "authorized_keys").read_text())
    (folder / "known_hosts").write_text("".join(server.known for server in servers))
    slow = folder / "ffmpeg"
    slow.write_text('#!/bin/sh\ncase "$*" in *-force_key*) set -- -readrate 4 "$@";; esac\nexec ffmpeg "$@"\n')
    slow.chmod(0o755)
    settings = {
        "ECS_HOSTS": ",".join(server.name for server in servers),
        "ECS_SSH_KEY": str(servers[0].client_key),
        "ECS_KNOWN_HOSTS": str(folder / "known_hosts"),
        "ECS_WORK_ROOT": "~/work",
        "ECS_FFMPEG": str(slow),
        "MAX_ECS_JOBS": "1",
        "ECS_ASIDE_S": "5",
    }
    found = Ecs(town, folder, settings)
    found.a, found.b = servers
    STAGES.append(found)
    try:
        found.oss.behave(Rule(Behaviour.FAIL))
        found.up("teacher", "streamer1")
        yield found
    finally:
        STAGES.remove(found)
        found.close()
    for server in servers:
        town.background.run(server.gate.stop())
        town.background.run(server.stop())


@pytest.fixture(autouse=True)
def _whole(ecs: Ecs) -> Iterator[None]:
    """After each claim nothing is left, and the ways are open."""
    yield
    ecs.town.origin.faults.clear()
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.stop())
        ecs.town.background.run(server.gate.start())
    ecs.up("teacher")
    ecs.clean()


def made_once(ecs: Ecs, record: int, class_id: str) -> None:
    """One answer, one upload, one result."""
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert ecs.puts(record) == 1
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
    assert len(ecs.ear.answers[class_id]) == 1
    ecs.clean()


@pytest.mark.parametrize("step", ["fetch", "encode", "upload"])
def test_a_teacher_that_is_killed_finds_its_job_again(ecs: Ecs, step: str) -> None:
    """The same programs go on; nothing is fetched, made or uploaded twice."""
    record = ecs.town.record()
    if step == "fetch":
        ecs.town.origin.faults.add(Fault(f"{record}/*", method="GET", rate_bytes_s=100_000))
    if step == "upload":
        ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", delay_s=12))
    class_id = ecs.book(ecs.booking(record, "240P"))
    marker = {"fetch": "--input-file", "encode": "-force_key_frames", "upload": "--upload-file"}[step]
    at_it = wait_until(lambda: ecs.a.processes(marker), timeout_s=60, description=f"it is at {step}")
    wait_until(lambda: ecs.row(record)["ecs_job"], description="it is known where")
    ecs.residents["teacher"].kill()
    assert set(at_it) & set(ecs.a.processes(marker)), "it goes on without us"
    ecs.up("teacher")
    made_once(ecs, record, class_id)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_a_teacher_that_is_stopped_leaves_its_job_to_the_next_one(ecs: Ecs) -> None:
    """As in a rollout: it drains, and does not wait for the end."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    assert ecs.residents["teacher"].end() == 0
    assert psutil.pid_exists(encoder)
    ecs.up("teacher")
    made_once(ecs, record, class_id)


def test_a_connection_that_breaks_is_made_again(ecs: Ecs) -> None:
    """The job goes on there meanwhile."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    ecs.town.background.run(ecs.a.gate.stop())
    time.sleep(1)
    assert ecs.encoders() == [encoder]
    ecs.town.background.run(ecs.a.gate.start())
    made_once(ecs, record, class_id)
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_a_host_that_is_gone_moves_its_job_to_another(ecs: Ecs) -> None:
    """When it comes back, what it was at is ended there."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    ecs.encoding()
    ecs.town.background.run(ecs.a.gate.stop())
    wait_until(ecs.b.jobs, timeout_s=90, description="the other host has it")
    ecs.town.background.run(ecs.a.gate.start())
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]
    ecs.clean()


@pytest.mark.parametrize("whom", ["ffmpeg", "sshd"])
def test_what_is_killed_on_the_host_is_begun_again_or_gone_on_with(ecs: Ecs, whom: str) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    if whom == "ffmpeg":
        os.kill(encoder, signal.SIGKILL)
    else:
        ecs.town.background.run(ecs.a.stop())
        assert ecs.encoders() == [encoder]
        ecs.town.background.run(ecs.a.start())
    made_once(ecs, record, class_id)


def test_an_upload_that_is_killed_is_made_again(ecs: Ecs) -> None:
    record = ecs.town.record()
    ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", times=1, delay_s=8))
    class_id = ecs.book(ecs.booking(record, "240P"))
    (uploader, *_) = wait_until(lambda: ecs.a.processes("--upload-file"), timeout_s=60, description="it uploads")
    for pid in ecs.a.processes("--upload-file"):
        if psutil.Process(pid).name() == "curl":
            os.kill(pid, signal.SIGKILL)
    assert uploader
    assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    assert [one["result"] for one in ecs.results(record)] == ["sucess"]


def test_a_run_that_is_cancelled_in_the_ui_ends_its_job_there(ecs: Ecs) -> None:
    """Its classes are refused; a Retry makes it after all."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    encoder = ecs.encoding()
    (run, *_) = ecs.runs("teacher", f"transcode {record}")
    ecs.click(run["id"], "CANCELLING", "Cancelling")
    answer = ecs.answer(class_id, timeout_s=60)
    assert (answer["result"], answer["code"]) == ("fail", 208)
    assert "cancelled in the UI" in answer["message"]
    wait_until(lambda: not psutil.pid_exists(encoder), description="its ffmpeg is gone")
    ecs.clean()
    wait_until(lambda: ecs.run(run["id"])["state"]["type"] == "CANCELLED", description="the run is cancelled")
    ecs.click(run["id"], "SCHEDULED", "AwaitingRetry")
    wait_until(lambda: ecs.status(record, "240P") == "success", timeout_s=90, description="the retry makes it")


def test_a_job_that_no_class_needs_any_more_is_ended(ecs: Ecs) -> None:
    """Its last class was cancelled; nobody is alarmed, and the next booking begins anew."""
    record = ecs.town.record()
    first, second = (ecs.book(ecs.booking(record, "240P")) for _ in range(2))
    encoder = ecs.encoding()
    ecs.cancel(first)
    assert ecs.answer(first)["code"] == 411
    assert psutil.pid_exists(encoder), "the second class still needs it"
    ecs.cancel(second)
    wait_until(lambda: ecs.status(record, "240P") == "failed", description="it is given up")
    ecs.clean()
    assert ecs.results(record) == []
    assert ecs.alarms(208, record_id=record) == []


def test_a_job_past_its_limit_is_timed_out_with_207(ecs: Ecs) -> None:
    """Counted from when it was begun, also by the teacher that takes it up again."""
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))
    ecs.encoding()
    ecs.residents["teacher"].kill()
    with closing(sqlite3.connect(ecs.database("teacher"), timeout=20)) as connection, connection:
        connection.execute("update video_list set begun_at = begun_at - 1000 where record_id = ?", (record,))
    ecs.up("teacher")
    answer = ecs.answer(class_id, timeout_s=90)
    assert answer["code"] == 207
    assert "was not done after 210 s in all" in answer["message"]
    assert ecs.status(record, "240P") == "timed out"
    assert [one["code"] for one in ecs.results(record)] == [207]
    ecs.clean()


def test_two_renditions_of_a_record_are_made_in_one_run(ecs: Ecs) -> None:
    record = ecs.town.record()
    orders = [ecs.booking(record, resolution) for resolution in ("240P", "480P")]
    ecs.residents["teacher"].pause()
    both = [ecs.book(order) for order in orders]
    os.kill(ecs.residents["teacher"].pid, signal.SIGCONT)
    assert [ecs.answer(one, timeout_s=120)["result"] for one in both] == ["success", "success"]
    assert ecs.town.asked(f"{record}/{record}.flv") == 1


def test_progress_and_host_are_in_the_row(ecs: Ecs) -> None:
    record = ecs.town.record()
    class_id = ecs.book(ecs.booking(record, "240P"))

    def told() -> bool:
        row = ecs.row(record)
        return bool(row.get("step") == "encode" and 0 < (row["percent"] or 0) < 100 and row["eta"])

    wait_until(told, timeout_s=60, description="the row says how far it is")
    row = ecs.row(record)
    assert row["ecs_host"] in (ecs.a.name, ecs.b.name)
    assert 0 <= row["eta"] - time.time() < 60
    made_once(ecs, record, class_id)


def test_the_class_that_begins_first_is_served_first(ecs: Ecs) -> None:
    """Each host takes one job at a time; the third and fourth wait in line."""
    busy = [ecs.town.record() for _ in range(2)]
    first = [ecs.book(ecs.booking(record, "240P")) for record in busy]
    encoders = wait_until(
        lambda: found if len(found := ecs.encoders()) == 2 else [], timeout_s=60, description="both hosts are at work"
    )
    for pid in encoders:
        os.kill(pid, signal.SIGSTOP)
    late, early = ecs.town.record(), ecs.town.record()
    classes = [
        ecs.book(ecs.booking(late, "240P", starts_in_s=5000)),
        ecs.book(ecs.booking(early, "240P", starts_in_s=300)),
    ]
    both = (late, early)
    wait_until(lambda: all(ecs.row(one).get("owner") for one in both), timeout_s=30, description="both wait in line")
    assert [ecs.row(one)["begun_at"] for one in both] == [None, None]
    for pid in encoders:
        os.kill(pid, signal.SIGCONT)
    assert all(ecs.answer(one, timeout_s=120)["result"] == "success" for one in [*first, *classes])
    assert ecs.row(early)["begun_at"] <= ecs.row(late)["begun_at"]


def test_a_source_that_is_bad_is_tried_on_no_other_host(ecs: Ecs) -> None:
    record = ecs.town.record()
    ecs.town.origin.faults.add(Fault(f"{record}/*", status=404))
    class_id = ecs.book(ecs.booking(record, "240P"))
    assert ecs.answer(class_id, timeout_s=60)["code"] == 208
    assert [one["code"] for one in ecs.results(record)] == [318]
    assert ecs.town.asked(f"{record}/{record}.flv", "HEAD") == 1


def test_an_upload_that_is_not_allowed_is_refused_and_says_why(ecs: Ecs) -> None:
    record = ecs.town.record()
    ecs.town.origin.faults.add(Fault(f"put/{record}/*", method="PUT", status=403))
    class_id = ecs.book(ecs.booking(record, "240P"))
    answer = ecs.answer(class_id, timeout_s=90)
    assert answer["code"] == 208
    assert "403" in answer["message"]
    assert [one["code"] for one in ecs.results(record)] == [214]


def test_hosts_that_fail_again_and_again_are_put_aside_with_an_alarm(ecs: Ecs) -> None:
    """Both are away: the class is refused in time, and a person is told which host, and why."""
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.stop())
    classes = [ecs.book(ecs.booking(ecs.town.record(), "240P")) for _ in range(2)]
    assert [ecs.answer(one, timeout_s=120)["code"] for one in classes] == [208, 208]
    wait_until(lambda: ecs.alarms(212), description="the alarm comes")
    assert any("can not be reached" in one["message"] for one in ecs.alarms(212))
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.start())
    again = ecs.book(ecs.booking(ecs.town.record(), "240P"))
    assert ecs.answer(again, timeout_s=120)["result"] == "success"


def test_a_host_whose_key_is_another_is_not_trusted(ecs: Ecs) -> None:
    """The job goes to the other host, and the log says what to type."""
    stranger = ecs.a.known_hosts.read_text().split()
    known = Path(ecs.settings["ECS_KNOWN_HOSTS"])
    before = known.read_text()
    known.write_text(ecs.b.known + f"[{HOST}]:{ecs.a.gate.port} {' '.join(ecs.b.known.split()[1:])}\n")
    assert stranger
    try:
        record = ecs.town.record()
        class_id = ecs.book(ecs.booking(record, "240P"))
        assert ecs.answer(class_id, timeout_s=120)["result"] == "success"
    finally:
        known.write_text(before)
    assert any("is another than in" in text for _, text in ecs.logs())


def test_while_the_oss_api_is_down_our_own_servers_are_asked_at_once(ecs: Ecs) -> None:
    """After a few failures in a row it is left alone; no class waits for its retries."""
    down = ecs.oss.behave(Rule(Behaviour.ERROR_500, times=1000))
    try:
        for _ in range(3):
            assert ecs.answer(ecs.book(ecs.booking(ecs.town.record(), "240P")), timeout_s=120)["result"] == "success"
        assert 1000 - (down.times or 0) <= 6
    finally:
        down.times = 0
