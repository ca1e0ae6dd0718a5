"""Thirteen nights: alarm, its heading in RUNBOOK.md and ``explain`` name one cause, and what the heading says helps."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from lectern.errors import CODES
from tests.stage import Gate, Stage, Town, runbook, staged, wait_until
from town import recordings
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

pytestmark = pytest.mark.timeout(400)  # the first test of a session starts the servers


@dataclass
class Night:
    """A teacher and a streamer, and the ways to Redis and Prefect, which can be shut."""

    stage: Stage
    redis: Gate
    prefect: Gate
    browser: httpx.Client = field(default_factory=lambda: httpx.Client(follow_redirects=True, timeout=30))
    address: str = ""  # of the page, with the token of a viewer

    def page(self) -> str:
        """What the page at ``/`` shows."""
        if not self.address:
            made = self.stage.lectern("teacher", "viewer", "add", "night", "--json")
            self.address = json.loads(made.stdout)["url"]
        return self.browser.get(self.address).raise_for_status().text

    def listed(self, heading: str) -> str:
        """The section of the page under *heading*; empty if there is none."""
        found = re.search(rf"<h2>{heading}</h2>(.*?)</section>", self.page(), re.DOTALL)
        return found[1] if found else ""

    def metric(self, who: str, name: str) -> float | None:
        """A metric of a host as Prometheus would read it; None if the host does not have it, or does not answer."""
        bind = self.stage.settings["API_BIND" if who == "teacher" else "HEALTH_BIND"]
        try:
            text = httpx.get(f"http://{bind}/metrics", timeout=30).text
        except httpx.ConnectError:
            return None
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def told_from_now_on(self, *words: tuple[str, str]) -> Callable[[], bool]:
        """Whether each of these hosts has said these words in its log since this was called."""

        def number(who: str, text: str) -> int:
            return self.stage.residents[who].said().count(text)

        before = {one: number(*one) for one in words}
        return lambda: all(number(*one) > known for one, known in before.items())

    def aired(self, length_s: float) -> tuple[str, str]:
        """Put a class on air; returns its class_id, and the id of the run that watches it."""
        stage = self.stage
        record = stage.town.record(seconds=170)
        class_id = stage.book_on_stream(stage.booking(record, starts_in_s=8, length_s=length_s))
        stage.on_air(class_id)
        run = wait_until(
            lambda: [one for one in stage.runs("streamer1", f"broadcast {class_id}") if one["state_name"] == "Running"],
            description="its run is at work",
        )[0]
        its = {"event": {"name": ["lectern.run.alive"]}, "resource": {"id": [f"prefect.flow-run.{run['id']}"]}}

        def is_alive() -> bool:
            asked = {"filter": its, "limit": 1}
            return bool(stage.town.api.post("/events/filter", json=asked).raise_for_status().json()["events"])

        wait_until(is_alive, timeout_s=60, pause_s=0.5, description="Prefect hears that its run is alive")
        return class_id, str(run["id"])

    def typed(self, who: str, heading: str, command: str, **words: str) -> "subprocess.CompletedProcess[str]":
        """Type *command*, which must stand under *heading*, on the host *who*; WORDS stand for one's own."""
        assert command in runbook.commands(heading, command.split(maxsplit=1)[0]), (
            f"{command!r} is not under {heading!r}"
        )
        for word, own in words.items():
            command = command.replace(word, own)
        if command.startswith("lectern "):
            return self.stage.lectern(who, *command.split()[1:])
        environment = self.stage.environment(who)
        return subprocess.run(
            ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def explained(self, class_id: str, who: str = "teacher") -> str:
        """What ``lectern explain`` says of a class."""
        return self.stage.lectern(who, "explain", class_id).stdout

    def agree(self, class_id: str, code: int, words: str, record: int | None = None) -> None:
        """The alarm of a class, or of its *record*; its heading, and the explanation of the class: one cause."""
        fields: dict[str, object] = {"class_id": class_id} if record is None else {"record_id": record}
        alarm, *_ = wait_until(
            lambda: self.stage.alarms(code, **fields), timeout_s=90, description=f"{code} is alarmed for {fields}"
        )
        assert alarm["runbook"] == CODES[code].runbook
        assert runbook.section(alarm["runbook"])
        # What a streamer alarms, the teacher hears of with its next beat.
        wait_until(
            lambda: f"RUNBOOK.md: {alarm['runbook']}" in (said := self.explained(class_id)) and words in said,
            pause_s=1,
            description=f"{class_id} is explained by {alarm['runbook']}: {words}",
        )
        assert words in alarm["message"]

    def booked_anew(self, record: int, *resolution: str) -> str:
        """What most headings end with: it is booked again, with a new class_id, and is ready."""
        booking = self.stage.booking(record, *resolution, listed=resolution)
        done = self.stage.lectern("teacher", "book", "-", text=json.dumps(booking))
        assert done.returncode == 0, done.stderr
        assert self.stage.answer(booking["class_id"], timeout_s=90)["result"] == "success"
        return str(booking["class_id"])


@pytest.fixture(scope="module")
def night(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    gates = Gate(town.redis_port), Gate(town.prefect_port)
    for gate in gates:
        town.background.run(gate.start())
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{gates[0].port}/0",
        "PREFECT_API_URL": f"http://127.0.0.1:{gates[1].port}/api",
        "TRANSCODING_TIME_OUT_S": "5",
        "RUN_HEARTBEAT_S": "8",
        "API_BIND": f"{HOST}:{free_port()}",
        "HEALTH_BIND": f"{HOST}:{free_port()}",
    }
    with staged(town, tmp_path_factory.mktemp("nights"), **settings) as stage:
        stage.up("teacher", "streamer1")
        found = Night(stage, *gates)
        yield found
        found.browser.close()
    for gate in gates:
        town.background.run(gate.stop())


def test_the_oss_is_down(night: Night) -> None:
    """207; the class is booked again with a resolution that needs no transcoding."""
    stage = night.stage
    stage.oss.behave(Rule(Behaviour.SILENT, record_id=(record := stage.town.record("480P"))))
    class_id = stage.book(stage.booking(record, "720P"))
    assert stage.answer(class_id)["code"] == 207
    night.agree(class_id, 207, f"{record}_720P", record)
    done = night.typed("teacher", CODES[207].runbook, "lectern explain CLASS_ID", CLASS_ID=class_id)
    assert "waits" in done.stdout
    assert "refused" in done.stdout
    night.booked_anew(record, "480P")


def test_the_ecs_hosts_are_down(night: Night) -> None:
    """208 and 212 name the host; the login of the runbook fails as the alarm says, and is let in afterwards."""
    stage, ssh = night.stage, night.stage.town.ssh
    stage.oss.behave(Rule(Behaviour.FAIL, record_id=(record := stage.town.record())))
    user, _, place = ssh.url.removeprefix("ssh://").partition("@")
    host, _, port = place.partition(":")
    (login,) = runbook.commands(CODES[212].runbook, "ssh")
    words = {"ECS_SSH_KEY": str(ssh.client_key), "ECS_KNOWN_HOSTS": str(ssh.known_hosts)}
    words |= {"PORT": port, "USER": user, "HOST": host}
    stage.town.background.run(ssh.stop())
    try:
        class_id = stage.book(stage.booking(record, "240P"))
        assert stage.answer(class_id, timeout_s=90)["code"] == 208
        night.agree(class_id, 208, f"{host}:{port}", record)
        aside, *_ = wait_until(lambda: stage.alarms(212), timeout_s=60, description="the host is put aside")
        assert aside["runbook"] == CODES[212].runbook
        assert f"{host}:{port}" in aside["message"]
        assert night.typed("teacher", CODES[212].runbook, login, **words).returncode == 255
    finally:
        stage.town.background.run(ssh.start())
    assert "ffmpeg" in night.typed("teacher", CODES[212].runbook, login, **words).stdout
    again = stage.book(stage.booking(record, "240P"))
    assert stage.answer(again, timeout_s=90)["result"] == "success"


def test_the_disk_is_full(night: Night) -> None:
    """316; both commands show it, and the class is booked again when there is room."""
    stage = night.stage
    huge = stage.town.origin.faults.add(Fault(f"{(record := stage.town.record())}/*", length_lie=2 * 10**12))
    class_id = stage.book(stage.booking(record, starts_in_s=200_000))  # time enough to download it
    assert stage.answer(class_id)["code"] == 316
    night.agree(class_id, 316, "no room for")
    heading = CODES[316].runbook
    assert str(record) not in night.typed("streamer1", heading, "lectern cache ls").stdout
    root = str(stage.folder / "streamer1")
    assert "%" in night.typed("streamer1", heading, "df -h /home/video", **{"/home/video": root}).stdout
    huge.times = 0
    night.booked_anew(record)
    assert str(record) in night.typed("streamer1", heading, "lectern cache ls").stdout


def test_the_source_is_missing(night: Night) -> None:
    """318; the origin's answer is seen from the streamer, and the class is booked again when it is back."""
    stage, heading = night.stage, CODES[318].runbook
    gone = stage.town.origin.faults.add(Fault(f"{(record := stage.town.record())}/*", status=404))
    booking = stage.booking(record)
    class_id = stage.book(booking)
    assert stage.answer(class_id, timeout_s=90)["code"] == 318
    night.agree(class_id, 318, "404")
    look = "wget --spider -S URL"
    assert "404" in night.typed("streamer1", heading, look, URL=booking["video_url"]).stderr
    gone.times = 0
    assert night.typed("streamer1", heading, look, URL=booking["video_url"]).returncode == 0
    night.booked_anew(record)


def test_the_clock_is_off(night: Night) -> None:
    """410: to a producer whose clock is behind, a class of the past is one of tomorrow."""
    stage, heading = night.stage, CODES[410].runbook
    record = stage.town.record()
    class_id = stage.book(stage.booking(record, starts_in_s=-7200))
    assert stage.answer(class_id)["code"] == 410
    said = night.explained(class_id)
    assert f"RUNBOOK.md: {heading}" in said
    assert "ended" in said
    here = night.typed("teacher", heading, "date -u").stdout
    assert time.strftime("%Y", time.gmtime()) in here
    night.booked_anew(record)


def test_a_flood_of_malformed_messages(night: Night) -> None:
    """400 and 504; those that could be read are named, and a corrected booking may keep its class_id."""
    stage = night.stage
    booking = stage.booking(stage.town.record())
    class_id = booking["class_id"]
    for number in range(40):
        stage.publish("order", f"no JSON {number}")
    stage.publish("order", {**booking, "start_time": "soon"})
    assert stage.answer(class_id)["code"] == 400
    night.agree(class_id, 400, "start_time")
    unread, *_ = wait_until(lambda: stage.alarms(504), description="the flood is alarmed")
    (look,) = runbook.commands(unread["runbook"], "redis-cli")
    assert look == "redis-cli XREVRANGE dead_letter + - COUNT 5"
    letters = f"{stage.prefix}:dead_letter"
    wait_until(lambda: stage.town.redis.xlen(letters) == 41, description="all of them lie there")
    typed = look.replace("dead_letter", letters).split()[1:]
    last: list[object] = stage.town.redis.execute_command(*typed)  # type: ignore[no-untyped-call]
    assert len(last) == 5
    stage.book(booking)
    assert stage.answer(class_id, count=2)["result"] == "success"


def test_the_push_url_is_wrong(night: Night) -> None:
    """321, while there is time: nobody listens there. It is tried again until somebody does; nothing is to be typed."""
    stage = night.stage
    way = Gate(stage.town.receiver.port)
    booking = stage.booking(stage.town.record(seconds=90), starts_in_s=10, length_s=85)
    class_id = booking["class_id"]
    stage.book({**booking, "push_url": f"rtmp://127.0.0.1:{way.port}/live/{class_id}"})
    alarm, *_ = wait_until(
        lambda: stage.alarms(321, class_id=class_id), timeout_s=90, description="it is alarmed in its time"
    )
    assert alarm["runbook"] == CODES[321].runbook
    assert "321" in night.explained(class_id)
    assert "push refused" in night.explained(class_id, "streamer1")
    (run,) = stage.runs("streamer1", f"broadcast {class_id}")
    wait_until(lambda: any("push refused" in line for line in stage.log(run["id"])), description="the UI shows it, too")
    stage.town.background.run(way.start())
    try:
        stage.on_air(class_id)
    finally:
        stage.cancel(class_id)
        stage.off_air(class_id)
        stage.town.background.run(way.stop())


def test_the_source_is_frozen(night: Night) -> None:
    """328, before the class, as a warning: it is ready; the run of its broadcast says so, too; looked through once."""
    stage, heading = night.stage, CODES[328].runbook
    record = stage.town.record()
    booking = stage.booking(record, starts_in_s=120, length_s=60)
    file = stage.town.origin.root / str(record) / f"{record}.flv"
    file.unlink()  # it is another recording's, too
    still = ("-f", "lavfi", "-i", "color=c=olive:size=160x90:rate=5", "-f", "lavfi", "-i", "anullsrc=r=44100:cl=mono")
    codecs = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-c:a", "aac", "-t", "75")
    stage.town.background.run(recordings.encode(stage.town.programs.ffmpeg, *still, *codecs, to=file))
    class_id = stage.book(booking)
    assert stage.answer(class_id)["result"] == "success"
    night.agree(class_id, 328, "frozen and silent from 0:00 to 1:15")
    here = night.explained(class_id, "streamer1")
    assert "frozen and silent from 0:00 to 1:15" in here
    assert here.count("looked through") == 1
    assert any("328" in line for line in stage.lectern("teacher", "status").stdout.splitlines() if "incident" in line)
    (run,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is planned")
    told = lambda: [line for line in stage.log(run["id"]) if "frozen and silent" in line]  # noqa: E731
    wait_until(told, timeout_s=200, description="the run of its broadcast says so")
    assert night.typed("teacher", heading, "lectern cancel CLASS_ID", CLASS_ID=class_id).returncode == 0
    stage.residents["streamer1"].end()
    stage.up("streamer1")
    assert night.explained(class_id, "streamer1").count("looked through") == 1
    night.booked_anew(stage.town.record())


def test_prefect_is_gone(night: Night) -> None:
    """A class that is booked meanwhile is answered and explained as ever; it is shown when Prefect is back."""
    stage = night.stage
    stage.town.background.run(night.prefect.stop())
    try:
        class_id = stage.book(stage.booking(stage.town.record()))
        assert stage.answer(class_id)["result"] == "success"
        assert class_id in night.explained(class_id)
        stage.residents["teacher"].wait_for("not shown yet", timeout_s=60)
    finally:
        stage.town.background.run(night.prefect.start())

    def is_shown() -> bool:
        return any(f"class:{class_id}" in one["tags"] for one in stage.runs("teacher", "booking", limit=200))

    wait_until(is_shown, timeout_s=90, description="its run is in the UI")


def test_redis_is_gone(night: Night) -> None:
    """What is on air goes on; both hosts and the command line name Redis; bookings on the stream are not lost."""
    stage = night.stage
    on_air = stage.book(stage.booking(stage.town.record(seconds=90), starts_in_s=8, length_s=85))
    stage.on_air(on_air)
    stage.town.background.run(night.redis.stop())
    try:
        stage.residents["teacher"].wait_for("interrupted, again in")
        stage.residents["streamer1"].wait_for("redis: no heartbeat")
        waiting = stage.book_on_stream(stage.booking(stage.town.record()))
        done = stage.lectern("teacher", "status")
        assert done.returncode != 0
        assert "should be on air and" not in done.stdout, "nobody knows that it is not"
        assert "nobody here knows" in done.stdout
        sentence = done.stderr.removeprefix("lectern: ").partition(":")[0]
        assert f"*{sentence}* from `lectern status`" in runbook.section("redis: no heartbeat")
        assert "nobody here knows whether the class is on air" in night.explained(on_air)
    finally:
        stage.town.background.run(night.redis.start())
    assert stage.answer(waiting, timeout_s=90)["result"] == "success"
    (push,) = stage.pushes(on_air)
    assert push.ended_at is None
    stage.cancel_on_stream(on_air)
    stage.off_air(on_air)


REDIS_ANSWERS = 'lectern_server_answers{server="redis"}'


def test_redis_hangs(night: Night) -> None:
    """It takes connections and answers nothing: all say so within seconds, what is on air goes on, nothing is lost."""
    stage, heading = night.stage, "redis: no heartbeat"
    on_air, run = night.aired(160)
    told = night.told_from_now_on(
        ("teacher", "interrupted, again in"), ("streamer1", heading), ("streamer1", "; the classes go on")
    )
    lost = len(stage.alarms(322))
    stage.town.background.run(night.redis.fall_silent())
    hangs_since = time.monotonic()
    try:
        waiting = stage.book_on_stream(stage.booking(stage.town.record()))
        wait_until(told, timeout_s=60, description="both hosts say it, and that the classes go on")
        wait_until(
            lambda: {night.metric(who, REDIS_ANSWERS) for who in ("teacher", "streamer1")} == {0},
            timeout_s=60,
            pause_s=0.5,
            description="their metrics say it",
        )
        done = night.typed("teacher", heading, "lectern status")
        assert done.returncode != 0
        assert done.stderr.startswith("lectern: Redis does not answer")
        assert "nobody here knows" in done.stdout
        assert "should be on air and" not in done.stdout, "nobody knows that it is not"
        assert "nobody here knows whether the class is on air" in night.explained(on_air)
        assert f"on air on {stage.name('streamer1')}" in night.explained(on_air, "streamer1"), "who sends it knows"
        assert "Redis does not answer, so nobody here knows what is on air" in night.page()
        assert on_air in night.listed("not known")
        assert stage.run(run)["state_name"] == "Running"
        assert any(line.startswith("systemctl restart") for line in runbook.commands(heading, "systemctl"))
        lease_s = float(stage.settings["LEASE_S"])
        wait_until(
            lambda: time.monotonic() - hangs_since > lease_s + 2, timeout_s=60, description="its lease would have ended"
        )
    finally:
        stage.town.background.run(night.redis.go_on())
    assert stage.answer(waiting, timeout_s=90)["result"] == "success"
    wait_until(
        lambda: night.metric("teacher", REDIS_ANSWERS) == 1, timeout_s=60, pause_s=0.5, description="it answers again"
    )
    wait_until(
        lambda: f"on air on {stage.name('streamer1')}" in night.listed("on air") and on_air in night.listed("on air"),
        timeout_s=60,
        pause_s=1,
        description="the page knows it again",
    )
    (push,) = stage.pushes(on_air)
    assert push.ended_at is None, "it went on in the same session"
    assert len(stage.alarms(322)) == lost, "nobody was silent while nobody could be heard"
    stage.cancel_on_stream(on_air)
    stage.off_air(on_air)


def test_a_streamer_dies_in_the_middle_of_a_class(night: Night) -> None:
    """Its resident and its playout are killed: nobody says that the class is on air; 322 says what is to be typed.

    Its run in Prefect is Silent. Started again, the streamer goes on with the class, at the clock's position.
    """
    stage = night.stage
    class_id, run = night.aired(160)
    dead, lost = stage.name("streamer1"), len(stage.alarms(322))
    stage.playouts["streamer1"].kill()
    stage.residents["streamer1"].kill()
    stage.off_air(class_id)
    wait_until(
        lambda: f"{dead} has been silent for" in (said := night.explained(class_id)) and "on air on" not in said,
        timeout_s=60,
        pause_s=1,
        description="it is explained that nobody knows",
    )
    assert "nobody here knows" in night.typed("teacher", CODES[322].runbook, "lectern status").stdout
    assert class_id in night.listed("not known")
    alarm = wait_until(lambda: stage.alarms(322)[lost:], timeout_s=90, description="the streamer is lost")[0]
    assert alarm["runbook"] == CODES[322].runbook
    assert alarm["message"].startswith(f"{dead}: not heard of for")
    assert "1 class" in alarm["message"] or "classes" in alarm["message"], "what becomes of its classes"
    said = night.explained(class_id)
    assert f"{dead} is lost" in said
    assert f"RUNBOOK.md: {alarm['runbook']}" in said
    assert any("322" in line for line in stage.lectern("teacher", "status").stdout.splitlines() if "incident" in line)
    assert '<a href="/runbook#322">322</a>' in night.listed("incidents")
    assert dead in night.listed("streamers")
    assert night.metric("teacher", 'lectern_incidents{code="322"}') == 1
    assert night.metric("streamer1", REDIS_ANSWERS) is None, "Prometheus sees that it is down"
    wait_until(lambda: stage.run(run)["state_name"] == "Silent", timeout_s=60, description="its run is Silent")
    stage.up("streamer1")
    second = stage.on_air(class_id, timeout_s=90)
    order = stage.order(class_id)
    assert second.first_media_at is not None
    assert not second.concurrent
    off = stage.position_s(int(order["url_stem"]), second) - (second.first_media_at - order["start_time"])
    assert abs(off) < 2.5, "a key picture every 2 s"
    stage.residents["streamer1"].wait_for(f"{stage.run(run)['name']}: its process died; it is put to AwaitingRetry")
    wait_until(lambda: stage.run(run)["state_name"] == "Running", timeout_s=60, description="its run is at work again")
    wait_until(
        lambda: f"on air on {dead}" in night.explained(class_id), timeout_s=60, pause_s=1, description="it is explained"
    )
    assert class_id in night.listed("on air")
    assert class_id not in night.listed("not known")
    stage.cancel_on_stream(class_id)
    stage.off_air(class_id)


def test_the_streamer_is_dead(night: Night) -> None:
    """322, and 317 for who books now; it is started as the runbook says, and keeps its classes."""
    stage = night.stage
    kept = night.booked_anew(stage.town.record())
    stage.residents["streamer1"].kill()
    lost = stage.name("streamer1")
    wait_until(
        lambda: f"{lost} is lost" in night.explained(kept), timeout_s=90, pause_s=1, description="the streamer is lost"
    )
    alarm = wait_until(lambda: stage.alarms(322), description="it is alarmed")[-1]
    assert lost in alarm["message"]
    assert alarm["runbook"] == CODES[322].runbook
    assert f"RUNBOOK.md: {alarm['runbook']}" in night.explained(kept)
    refused = stage.book(stage.booking(stage.town.record()))
    assert stage.answer(refused)["code"] == 317
    night.agree(refused, 317, "no streamer")
    assert "supervisorctl start lectern-streamer" in runbook.commands(CODES[317].runbook, "supervisorctl")
    stage.up("streamer1")
    alive = f"streamer    {lost}:"
    wait_until(lambda: alive in stage.lectern("teacher", "status").stdout, timeout_s=60, description="it is listed")
    wait_until(lambda: "It is aired in" in night.explained(kept), timeout_s=60, description="its class is on the table")
    night.booked_anew(stage.town.record())
