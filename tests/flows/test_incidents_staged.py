"""Thirteen nights: the six places name one cause, and what the runbook says under its heading helps."""

import re
import time
from collections.abc import Iterator

import pytest

from lectern.errors import CODES
from lectern.page.runbook import anchor
from tests.stage import PROMPT_S, Gate, Town, runbook, staged, wait_until
from tests.stage.night import Night
from town import recordings
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

pytestmark = pytest.mark.night
REDIS_ANSWERS, PREFECT_ANSWERS = (f'lectern_server_answers{{server="{one}"}}' for one in ("redis", "prefect"))


@pytest.fixture(scope="module")
def incident_stage(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
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


def test_the_oss_is_down(incident_stage: Night) -> None:
    """207; the class is booked again with a resolution that needs no transcoding."""
    stage = incident_stage.stage
    stage.oss.behave(Rule(Behaviour.SILENT, record_id=(record := stage.town.record("480P"))))
    class_id = stage.book(stage.booking(record, "720P"))
    assert stage.answer(class_id)["code"] == 207
    incident_stage.agree(class_id, 207, f"{record}_720P", record=record)
    done = incident_stage.typed("teacher", CODES[207].runbook, "lectern explain CLASS_ID", CLASS_ID=class_id)
    assert "waits" in done.stdout
    assert "refused" in done.stdout
    incident_stage.booked_anew(record, "480P")


def test_the_ecs_hosts_are_down(incident_stage: Night) -> None:
    """208 and 212 name the host; the login of the runbook fails as the alarm says, and is let in afterwards."""
    stage, ssh = incident_stage.stage, incident_stage.stage.town.ssh
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
        incident_stage.agree(class_id, 208, f"{host}:{port}", record=record)
        incident_stage.raised(212, f"{host}:{port}")
        assert incident_stage.typed("teacher", CODES[212].runbook, login, **words).returncode == 255
    finally:
        stage.town.background.run(ssh.start())
    assert "ffmpeg" in incident_stage.typed("teacher", CODES[212].runbook, login, **words).stdout
    again = stage.book(stage.booking(record, "240P"))
    assert stage.answer(again, timeout_s=90)["result"] == "success"


def test_the_disk_is_full(incident_stage: Night) -> None:
    """316; both commands show it, and the class is booked again when there is room."""
    stage = incident_stage.stage
    huge = stage.town.origin.faults.add(Fault(f"{(record := stage.town.record())}/*", length_lie=2 * 10**12))
    class_id = stage.book(stage.booking(record, starts_in_s=200_000))  # time enough to download it
    assert stage.answer(class_id)["code"] == 316
    incident_stage.agree(class_id, 316, "no room for")
    heading = CODES[316].runbook
    assert str(record) not in incident_stage.typed("streamer1", heading, "lectern cache ls").stdout
    root = str(stage.folder / "streamer1")
    assert "%" in incident_stage.typed("streamer1", heading, "df -h /home/video", **{"/home/video": root}).stdout
    huge.times = 0
    incident_stage.booked_anew(record)
    assert str(record) in incident_stage.typed("streamer1", heading, "lectern cache ls").stdout


def test_the_source_is_missing(incident_stage: Night) -> None:
    """318; the origin's answer is seen from the streamer, and the class is booked again when it is back."""
    stage, heading = incident_stage.stage, CODES[318].runbook
    gone = stage.town.origin.faults.add(Fault(f"{(record := stage.town.record())}/*", status=404))
    booking = stage.booking(record)
    class_id = stage.book(booking)
    assert stage.answer(class_id, timeout_s=90)["code"] == 318
    incident_stage.agree(class_id, 318, "404")
    look = "wget --spider -S URL"
    assert "404" in incident_stage.typed("streamer1", heading, look, URL=booking["video_url"]).stderr
    gone.times = 0
    assert incident_stage.typed("streamer1", heading, look, URL=booking["video_url"]).returncode == 0
    incident_stage.booked_anew(record)


def test_the_clock_is_off(incident_stage: Night) -> None:
    """410: to a producer whose clock is behind, a class of the past is one of tomorrow. The answer alone says it."""
    stage, heading = incident_stage.stage, CODES[410].runbook
    record = stage.town.record()
    class_id = stage.book(stage.booking(record, starts_in_s=-7200))
    assert stage.answer(class_id)["code"] == 410
    incident_stage.named(class_id, 410, why := "it ended ")
    incident_stage.run_refused(class_id, "refuse 410", why)
    assert incident_stage.counted(410) == 1
    assert stage.alarms(410) == [], "the mistake is its producer's, who is told by the answer: nobody is called"
    assert "410" not in incident_stage.status() + incident_stage.listed("incidents")
    here = incident_stage.typed("teacher", heading, "date -u").stdout
    assert time.strftime("%Y", time.gmtime()) in here
    incident_stage.booked_anew(record)


def test_a_flood_of_malformed_messages(incident_stage: Night) -> None:
    """400 and 504; those that could be read are named, and a corrected booking may keep its class_id."""
    stage = incident_stage.stage
    booking = stage.booking(stage.town.record())
    class_id = booking["class_id"]
    for number in range(40):
        stage.publish("order", f"no JSON {number}")
    stage.publish("order", {**booking, "start_time": "soon"})
    assert stage.answer(class_id)["code"] == 400
    incident_stage.agree(class_id, 400, "start_time", run="malformed")
    unread = incident_stage.raised(504, "is not JSON")
    (look,) = runbook.commands(unread["runbook"], "redis-cli")
    assert look == "redis-cli XREVRANGE dead_letter + - COUNT 5"
    letters = f"{stage.prefix}:dead_letter"
    wait_until(lambda: stage.town.redis.xlen(letters) == 41, description="all of them lie there")
    assert incident_stage.metric("teacher", "lectern_dead_letters") == 41
    typed = look.replace("dead_letter", letters).split()[1:]
    last: list[object] = stage.town.redis.execute_command(*typed)  # type: ignore[no-untyped-call]
    assert len(last) == 5
    stage.book(booking)
    assert stage.answer(class_id, count=2)["result"] == "success"


def test_the_push_url_is_wrong(incident_stage: Night) -> None:
    """321, while there is time: nobody listens there. It is tried again until somebody does; nothing is to be typed."""
    stage = incident_stage.stage
    way = Gate(stage.town.receiver.port)
    booking = stage.booking(stage.town.record(seconds=170), starts_in_s=10, length_s=165)
    class_id, why = booking["class_id"], "Connection refused"
    stage.book({**booking, "push_url": f"rtmp://127.0.0.1:{way.port}/live/{class_id}"})
    incident_stage.raised(321, why, class_id=class_id)
    incident_stage.named(class_id, 321, why)
    assert f"push refused. {why}" in incident_stage.explained(class_id, "streamer1")
    said = incident_stage.status()
    assert "1 class should be on air and is not" in said
    assert re.search(rf"^  {class_id}: .*{why}", said, re.MULTILINE)
    assert re.search(rf"{class_id}</a>.*{why}", incident_stage.listed("should be on air and is not"))
    assert incident_stage.metric("streamer1", "lectern_classes_not_on_air") == 1
    (run,) = stage.runs("streamer1", f"broadcast {class_id}")
    assert run["state_name"] == "Running"
    refusals = lambda: [line for line in stage.log(run["id"]) if "push refused" in line and why in line]  # noqa: E731
    wait_until(refusals, description="the UI shows it, too")
    stage.town.background.run(way.start())
    try:
        stage.on_air(class_id)
        incident_stage.on_air(class_id)
        assert incident_stage.metric("streamer1", "lectern_classes_not_on_air") == 0
        assert stage.run(run["id"])["state_name"] == "Running"
    finally:
        stage.cancel(class_id)
        stage.off_air(class_id)
        stage.town.background.run(way.stop())


def test_the_source_is_frozen(incident_stage: Night) -> None:
    """328, before the class, as a warning: it is ready; the run of its broadcast says so, too; looked through once."""
    stage, heading = incident_stage.stage, CODES[328].runbook
    record = stage.town.record()
    booking = stage.booking(record, starts_in_s=120, length_s=60)
    file = stage.town.origin.root / str(record) / f"{record}.flv"
    file.unlink()  # it is another recording's, too
    still = ("-f", "lavfi", "-i", "color=c=olive:size=160x90:rate=5", "-f", "lavfi", "-i", "anullsrc=r=44100:cl=mono")
    codecs = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-c:a", "aac", "-t", "75")
    stage.town.background.run(recordings.encode(stage.town.programs.ffmpeg, *still, *codecs, to=file))
    class_id = stage.book(booking)
    assert stage.answer(class_id)["result"] == "success"
    found = "frozen and silent from 0:00 to 1:15"
    incident_stage.raised(328, found, class_id=class_id)
    incident_stage.named(class_id, 328, found)
    assert f"recording faults: {found}" in incident_stage.timetable(booking)
    here = incident_stage.explained(class_id, "streamer1")
    assert found in here
    assert here.count("looked through") == 1
    (run,) = wait_until(lambda: stage.runs("streamer1", f"broadcast {class_id}"), description="its run is planned")
    told = lambda: [line for line in stage.log(run["id"]) if found in line]  # noqa: E731
    wait_until(told, timeout_s=200, description="the run of its broadcast says so")
    assert stage.run(run["id"])["state_name"] == "Running"
    assert incident_stage.typed("teacher", heading, "lectern cancel CLASS_ID", CLASS_ID=class_id).returncode == 0
    stage.residents["streamer1"].end()
    stage.up("streamer1")
    assert incident_stage.explained(class_id, "streamer1").count("looked through") == 1
    incident_stage.booked_anew(stage.town.record())


def test_prefect_is_gone(incident_stage: Night) -> None:
    """No alarm of a class, because none is in danger: it is answered and explained as ever, and shown afterwards.

    The metrics, the log and ``lectern doctor`` name Prefect, and the heading that helps.
    """
    stage, heading = incident_stage.stage, "prefect: away"
    told = incident_stage.told_from_now_on(("teacher", heading), ("teacher", "not shown yet"))
    raised = len(stage.ear.alarms)
    stage.town.background.run(incident_stage.prefect.stop())
    try:
        class_id = stage.book(booking := stage.booking(stage.town.record()))
        assert stage.answer(class_id)["result"] == "success"
        ready = f"ready on {stage.name('streamer1')}"
        assert ready in incident_stage.explained(class_id)
        assert ready in incident_stage.page(f"/class/{class_id}")
        assert re.search(rf"{class_id}</a>.*{ready}", incident_stage.timetable(booking))
        assert re.search(rf"^streamer    {stage.name('streamer1')}: ", incident_stage.status(), re.MULTILINE)
        wait_until(told, description="the teacher says it")
        for who in ("teacher", "streamer1"):
            wait_until(
                lambda who: incident_stage.metric(who, PREFECT_ANSWERS) == 0,
                who,
                pause_s=0.5,
                description=f"the metric of {who} says it",
            )
        assert "Classes are aired without it." in stage.lectern("teacher", "doctor").stdout
        assert runbook.commands(heading, "systemctl")
    finally:
        stage.town.background.run(incident_stage.prefect.start())

    def is_shown() -> bool:
        return any(f"class:{class_id}" in one["tags"] for one in stage.runs("teacher", "booking", limit=200))

    wait_until(is_shown, timeout_s=90, description="its run is in the UI")
    planned = lambda: stage.runs("streamer1", f"broadcast {class_id}")  # noqa: E731
    wait_until(planned, timeout_s=90, description="and so is that of its broadcast")
    assert not [one for one in stage.ear.alarms[raised:] if class_id in one["message"]]
    wait_until(
        lambda: {incident_stage.metric(who, PREFECT_ANSWERS) for who in ("teacher", "streamer1")} == {1},
        pause_s=0.5,
        description="it answers again",
    )


def nobody_knows(night: Night, on_air: str, run: str, heading: str = "redis: no heartbeat") -> None:
    """What the six places say of a class on air while Redis does not answer; an alarm cannot reach the platform."""
    stage = night.stage
    wait_until(
        lambda: {night.metric(who, REDIS_ANSWERS) for who in ("teacher", "streamer1")} == {0},
        pause_s=0.5,
        description="their metrics say it",
    )
    done = night.typed("teacher", heading, "lectern status")
    assert done.returncode != 0
    sentence = done.stderr.removeprefix("lectern: ").partition(":")[0].strip()
    assert f"*{sentence}* from `lectern status`" in runbook.section(heading)
    assert "nobody here knows" in done.stdout
    assert "should be on air and" not in done.stdout, "nobody knows that it is not"
    said = night.explained(on_air)
    assert "nobody here knows whether the class is on air" in said
    assert f"RUNBOOK.md: {heading}" in said
    assert "322" not in said, "its streamer is not what is lost"
    assert f"on air on {stage.name('streamer1')}" in night.explained(on_air, "streamer1"), "who sends it knows"
    assert "Redis does not answer, so nobody here knows what is on air" in night.page()
    assert on_air in night.listed("not known")
    said = night.page(f"/class/{on_air}")
    assert "nobody here knows whether the class is on air" in said
    assert f'<a href="/runbook#{anchor(heading)}">{heading}</a>' in said
    assert stage.run(run)["state_name"] == "Running"
    assert any(line.startswith("systemctl restart") for line in runbook.commands(heading, "systemctl"))


def all_know_again(night: Night, on_air: str, run: str) -> None:
    """Redis answers again: the class went on in the same session, and its streamer was not called lost."""
    stage = night.stage
    wait_until(
        lambda: {night.metric(who, REDIS_ANSWERS) for who in ("teacher", "streamer1")} == {1},
        pause_s=0.5,
        description="it answers again",
    )
    night.on_air(on_air)
    (push,) = stage.pushes(on_air)
    assert push.ended_at is None, "it went on in the same session"
    assert stage.run(run)["state_name"] == "Running"


def test_redis_is_gone(incident_stage: Night) -> None:
    redis_is_away(incident_stage, hangs=False)


def test_redis_hangs(incident_stage: Night) -> None:
    """It takes connections and answers nothing: all say so within seconds, and that the classes go on."""
    redis_is_away(incident_stage, hangs=True)


def redis_is_away(incident_stage: Night, *, hangs: bool) -> None:
    """What is on air goes on; both hosts and the command line name Redis; bookings on the stream are not lost."""
    stage, way = incident_stage.stage, incident_stage.redis
    on_air, run = incident_stage.aired(160)
    words = [("teacher", "interrupted, again in"), ("streamer1", "redis: no heartbeat")]
    words += [("streamer1", "; the classes go on")] if hangs else []
    told = incident_stage.told_from_now_on(*words)
    lost = len(stage.alarms(322))
    stage.town.background.run(way.fall_silent() if hangs else way.stop())
    away_since, lease_s = time.monotonic(), float(stage.settings["LEASE_S"])
    try:
        waiting = stage.book_on_stream(stage.booking(stage.town.record()))
        wait_until(told, description="both hosts say it")
        nobody_knows(incident_stage, on_air, run)
        if hangs:
            wait_until(lambda: time.monotonic() - away_since > lease_s + 2, description="its lease would have ended")
    finally:
        stage.town.background.run(way.go_on() if hangs else way.start())
    assert stage.answer(waiting, timeout_s=90)["result"] == "success"
    all_know_again(incident_stage, on_air, run)
    assert len(stage.alarms(322)) == lost, "nobody was silent while nobody could be heard"
    stage.cancel_on_stream(on_air)
    stage.off_air(on_air)


def is_lost(night: Night, class_id: str, since: float) -> None:
    """All six places, less the run, of a streamer that has died since then, and has this class."""
    dead = night.stage.name("streamer1")
    night.raised(322, f"{dead}: not heard of for", since=since)
    assert f"streamer    {dead}: lost, not heard of for" in night.status()
    night.named(class_id, 322, f"{dead} is lost")
    assert re.search(rf"{dead} .*silent", night.listed("streamers"))
    assert night.metric("streamer1", REDIS_ANSWERS) is None, "Prometheus sees that it is down"


def test_a_streamer_dies_in_the_middle_of_a_class(incident_stage: Night) -> None:
    """Its resident and its playout are killed: nobody says that the class is on air; 322 says what is to be typed.

    Its run in Prefect is Silent. Started again, the streamer goes on with the class, at the clock's position.
    """
    stage = incident_stage.stage
    class_id, run = incident_stage.aired(160)
    dead, since = stage.name("streamer1"), time.time()
    stage.playouts["streamer1"].kill()
    stage.residents["streamer1"].kill()
    stage.off_air(class_id)
    wait_until(
        lambda: (
            f"{dead} has been silent for" in (said := incident_stage.explained(class_id)) and "on air on" not in said
        ),
        pause_s=1,
        description="it is explained that nobody knows",
    )
    assert "nobody here knows" in incident_stage.typed("teacher", CODES[322].runbook, "lectern status").stdout
    assert class_id in incident_stage.listed("not known")
    is_lost(incident_stage, class_id, since)
    wait_until(lambda: stage.run(run)["state_name"] == "Silent", description="its run is Silent")
    stage.up("streamer1")
    second = stage.on_air(class_id, timeout_s=90)
    order = stage.order(class_id)
    assert second.first_media_at is not None
    assert not second.concurrent
    late_s = second.first_media_at - order["start_time"] - stage.position_s(int(order["url_stem"]), second)
    assert -0.5 < late_s < 2 + PROMPT_S, "a key picture every 2 s"
    stage.residents["streamer1"].wait_for(f"{stage.run(run)['name']}: its process died; it is put to AwaitingRetry")
    wait_until(lambda: stage.run(run)["state_name"] == "Running", description="its run is at work again")
    incident_stage.on_air(class_id)
    assert class_id not in incident_stage.listed("not known")
    stage.cancel_on_stream(class_id)
    stage.off_air(class_id)


def test_the_streamer_is_dead(incident_stage: Night) -> None:
    """322, and 317 for who books now; it is started as the runbook says, and keeps its classes."""
    stage = incident_stage.stage
    kept = incident_stage.booked_anew(stage.town.record())
    since = time.time()
    stage.residents["streamer1"].kill()
    lost = stage.name("streamer1")
    is_lost(incident_stage, kept, since)
    refused = stage.book(stage.booking(stage.town.record()))
    assert stage.answer(refused)["code"] == 317
    incident_stage.agree(refused, 317, "no streamer")
    assert "supervisorctl start lectern-streamer" in runbook.commands(CODES[317].runbook, "supervisorctl")
    stage.up("streamer1")
    wait_until(lambda: f"streamer    {lost}: 0 on air" in incident_stage.status(), description="it is back")
    wait_until(lambda: "It is aired in" in incident_stage.explained(kept), description="its class is on the table")
    incident_stage.booked_anew(stage.town.record())
