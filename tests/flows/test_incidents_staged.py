"""Nights: the places that an operator looks at name one cause, and what the runbook says under its heading helps.

The places are six: the alarm, ``lectern status``, ``lectern explain``, the page, the run in Prefect, the metrics. One
night of each kind: a class that is refused, one that is not on air, a server that is away, a host that has died.
"""

import html
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent

from flows.resident.prefect import deployments
from lectern.errors import CODES
from lectern.page.runbook import anchor
from tests.stage import PROMPT_S, Gate, Stage, Town, runbook, staged, wait_until
from tests.stage.ear import Fields
from town.faults import Fault
from town.ports import HOST, free_port

pytestmark = pytest.mark.night
REDIS_ANSWERS = 'lectern_server_answers{server="redis"}'


@dataclass
class Night:
    """A teacher and a streamer, the way to Redis, which can be shut, and what each place says."""

    stage: Stage
    redis: Gate
    browser: httpx.Client = field(default_factory=lambda: httpx.Client(follow_redirects=True, timeout=30))
    address: str = ""  # of the page, with the token of a viewer

    def status(self) -> str:
        return self.stage.lectern("teacher", "status").stdout

    def explained(self, class_id: str, who: str = "teacher") -> str:
        return self.stage.lectern(who, "explain", class_id).stdout

    def page(self, path: str = "/") -> str:
        """What the page shows, or the page of a class, to whoever may see all."""
        if not self.address:
            made = self.stage.lectern("teacher", "viewer", "add", "night", "--json")
            self.address = json.loads(made.stdout)["url"]
            self.browser.get(self.address).raise_for_status()
        answer = self.browser.get(httpx.URL(self.address).join(path))
        return html.unescape(answer.raise_for_status().text)

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

    def raised(self, code: int, words: str, **fields: object) -> None:
        """An alarm, whose heading is in the runbook; status, page and metric say the same, and of which host it is."""

        def alarms() -> list[Fields]:
            return [one for one in self.stage.alarms(code, **fields) if words in one["message"]]

        alarm = wait_until(alarms, timeout_s=90, description=f"{code} is alarmed: {words}, {fields}")[0]
        assert runbook.section(alarm["runbook"])
        assert alarm.get("class_id", "") in alarm["message"], "status and the page have the message alone"
        who = str(alarm["host"]).removeprefix(f"{self.stage.prefix}-")
        where = "" if who == "teacher" else f" on {alarm['host']}"
        # What a streamer alarms, the teacher hears of with its next beat.
        line = re.compile(rf"^incident    {code}(?: ×[\d,]+)?{where}, last at .*{re.escape(words)}", re.MULTILINE)
        wait_until(lambda: line.search(self.status()), pause_s=1, description=f"status has {code}{where}: {words}")
        row = re.compile(
            rf'<a href="/runbook#{code}">{code}</a></td><td>{alarm["host"]}</td>(?:(?!</tr>).)*{re.escape(words)}',
            re.DOTALL,
        )
        wait_until(lambda: row.search(self.listed("incidents")), pause_s=0.5, description=f"the page has it: {words}")
        name = f'lectern_incidents{{code="{code}"}}'
        wait_until(lambda: self.metric(who, name) == 1, pause_s=0.5, description=f"the metric of {who} has {code}")

    def named(self, class_id: str, code: int, words: str) -> None:
        """The explanation of a class and its page: the words, and the heading of the runbook."""
        heading = CODES[code].runbook

        def says(said: str, link: str) -> bool:
            return link in said and words in said

        wait_until(
            lambda: says(self.explained(class_id), f"RUNBOOK.md: {heading}"),
            pause_s=1,
            description=f"{class_id} is explained by {heading}: {words}",
        )
        wait_until(
            lambda: says(self.page(f"/class/{class_id}"), f'<a href="/runbook#{code}">{heading}</a>'),
            pause_s=0.5,
            description=f"the page of {class_id} has {heading}: {words}",
        )

    def on_air(self, class_id: str) -> None:
        """A class that is on air, as status, explanation, page and metric say it."""
        where = f"on air on {self.stage.name('streamer1')}"
        wait_until(lambda: where in self.explained(class_id), pause_s=1, description="it is explained")

        def is_listed() -> bool:
            return where in (said := self.listed("on air")) and class_id in said

        wait_until(is_listed, pause_s=0.5, description=f"the page lists {class_id} as on air")
        assert where in self.page(f"/class/{class_id}")
        said = self.status()
        assert "on air      1 class" in said
        assert "should be on air and" not in said
        assert self.metric("streamer1", "lectern_pushes_on_air") == 1

    def aired(self) -> tuple[str, str]:
        """Put a class on air; returns its class_id, and the id of the run that watches it."""
        stage = self.stage
        class_id = stage.book_on_stream(stage.booking(stage.town.record(seconds=170), starts_in_s=8, length_s=160))
        stage.on_air(class_id)
        run = wait_until(
            lambda: [one for one in stage.runs("streamer1", f"broadcast {class_id}") if one["state_name"] == "Running"],
            description="its run is at work",
        )[0]
        its = {"event": {"name": ["lectern.run.alive"]}, "resource": {"id": [f"prefect.flow-run.{run['id']}"]}}
        wait_until(self.events, its, pause_s=0.5, description="Prefect hears that its run is alive")
        return class_id, str(run["id"])

    def events(self, wanted: Fields) -> list[Fields]:
        """The events that Prefect has."""
        found = self.stage.town.api.post("/events/filter", json={"filter": wanted})
        return list(found.raise_for_status().json()["events"])

    def typed(self, who: str, heading: str, command: str) -> "subprocess.CompletedProcess[str]":
        """Type *command* of lectern, which must stand under *heading*, on the host *who*."""
        assert command in runbook.lines(heading), f"{command!r} is not under {heading!r}"
        return self.stage.lectern(who, *command.split()[1:])


@pytest.fixture(scope="module")
def incident_stage(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    gate = Gate(town.redis_port)
    town.background.run(gate.start())
    settings = {
        "REDIS_URL": f"redis://127.0.0.1:{gate.port}/0",
        "RUN_HEARTBEAT_S": "8",
        "API_BIND": f"{HOST}:{free_port()}",
        "HEALTH_BIND": f"{HOST}:{free_port()}",
    }
    with staged(town, tmp_path_factory.mktemp("nights"), **settings) as stage:
        stage.up("teacher", "streamer1")
        found = Night(stage, gate)
        yield found
        found.browser.close()
    town.background.run(gate.stop())


def test_the_disk_is_full(incident_stage: Night) -> None:
    """316; all six places have it, and the class is booked again when there is room, as most headings end."""
    stage = incident_stage.stage
    huge = stage.town.origin.faults.add(Fault(f"{(record := stage.town.record())}/*", length_lie=2 * 10**12))
    class_id = stage.book(stage.booking(record, starts_in_s=200_000))  # time enough to download it
    assert stage.answer(class_id)["code"] == 316
    incident_stage.raised(316, "no room for", class_id=class_id)
    incident_stage.named(class_id, 316, "no room for")
    tags = ("lectern:refused", f"class:{class_id}")
    run = wait_until(lambda: stage.runs("teacher", tags=tags), description=f"{class_id} is Refused in the UI")[0]
    assert (run["state_name"], "refuse 316" in run["state"]["message"]) == ("Refused", True)
    wait_until(
        lambda: "no room for" in " ".join([run["state"]["message"], *stage.log(run["id"]), stage.tables(run["id"])]),
        description="its run says why",
    )
    assert incident_stage.metric("teacher", 'lectern_bookings{code="316",state="refused"}') == 1
    heading = CODES[316].runbook
    assert str(record) not in incident_stage.typed("streamer1", heading, "lectern cache ls").stdout
    huge.times = 0
    again = stage.booking(record)
    assert stage.lectern("teacher", "book", "-", text=json.dumps(again)).returncode == 0
    assert stage.answer(again["class_id"], timeout_s=90)["result"] == "success"
    assert str(record) in incident_stage.typed("streamer1", heading, "lectern cache ls").stdout


def test_the_push_url_is_wrong(incident_stage: Night) -> None:
    """321, while there is time: nobody listens there. It is tried again until somebody does; nothing is to be typed."""
    stage = incident_stage.stage
    way = Gate(stage.town.receiver.port)
    booking = stage.booking(stage.town.record(seconds=170), starts_in_s=10, length_s=165)
    class_id, why = booking["class_id"], "Connection refused"
    stage.book({**booking, "push_url": f"rtmp://127.0.0.1:{way.port}/live/{class_id}"})
    incident_stage.raised(321, why, class_id=class_id)
    incident_stage.named(class_id, 321, why)
    assert re.search(rf"push refused.*{why}", incident_stage.explained(class_id, "streamer1"))
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


def test_redis_hangs(incident_stage: Night) -> None:
    """What is on air goes on; both hosts and the command line name Redis; bookings on the stream are not lost.

    It takes connections and answers nothing: all say so within seconds. No alarm can reach the platform.
    """
    stage, way, heading = incident_stage.stage, incident_stage.redis, "redis: no heartbeat"
    on_air, run = incident_stage.aired()
    words = [("teacher", "interrupted, again in"), ("streamer1", heading), ("streamer1", "; the classes go on")]
    before = {(who, text): stage.residents[who].said().count(text) for who, text in words}
    lost = len(stage.alarms(322))
    stage.town.background.run(way.fall_silent())
    away_since, lease_s = time.monotonic(), float(stage.settings["LEASE_S"])

    def answers(is_there: int) -> None:
        wait_until(
            lambda: {incident_stage.metric(who, REDIS_ANSWERS) for who in ("teacher", "streamer1")} == {is_there},
            pause_s=0.5,
            description=f"both hosts have {REDIS_ANSWERS} {is_there}",
        )

    try:
        waiting = stage.book_on_stream(stage.booking(stage.town.record()))
        wait_until(
            lambda: all(stage.residents[who].said().count(text) > known for (who, text), known in before.items()),
            description="both hosts say it",
        )
        answers(0)
        done = incident_stage.typed("teacher", heading, "lectern status")
        assert done.returncode != 0
        sentence = done.stderr.removeprefix("lectern: ").partition(":")[0].strip()
        assert f"*{sentence}* from `lectern status`" in runbook.section(heading)
        assert "nobody here knows" in done.stdout
        assert "should be on air and" not in done.stdout, "nobody knows that it is not"
        explained, page = incident_stage.explained(on_air), incident_stage.page(f"/class/{on_air}")
        for said, link in (
            (explained, f"RUNBOOK.md: {heading}"),
            (page, f'<a href="/runbook#{anchor(heading)}">{heading}</a>'),
        ):
            assert "nobody here knows whether the class is on air" in said
            assert link in said
        assert "322" not in explained, "its streamer is not what is lost"
        there = incident_stage.explained(on_air, "streamer1")
        assert f"on air on {stage.name('streamer1')}" in there, "who sends it knows"
        assert on_air in incident_stage.listed("not known")
        assert any(line.startswith("systemctl restart") for line in runbook.commands(heading, "systemctl"))
        wait_until(lambda: time.monotonic() - away_since > lease_s + 2, description="its lease would have ended")
    finally:
        stage.town.background.run(way.go_on())
    assert stage.answer(waiting, timeout_s=90)["result"] == "success"
    answers(1)
    incident_stage.on_air(on_air)
    (push,) = stage.pushes(on_air)
    assert push.ended_at is None, "it went on in the same session"
    assert stage.run(run)["state_name"] == "Running"
    assert len(stage.alarms(322)) == lost, "nobody was silent while nobody could be heard"
    stage.cancel_on_stream(on_air)
    stage.off_air(on_air)


def test_a_streamer_dies_in_the_middle_of_a_class(incident_stage: Night) -> None:
    """Its resident and its playout are killed: nobody says that the class is on air; 322 says what is to be typed.

    Its run in Prefect is Silent. Started again, the streamer goes on with the class, at the clock's position.
    """
    stage = incident_stage.stage
    class_id, run = incident_stage.aired()
    dead = stage.name("streamer1")
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
    incident_stage.raised(322, f"{dead}: not heard of for")
    assert f"streamer    {dead}: lost, not heard of for" in incident_stage.status()
    incident_stage.named(class_id, 322, f"{dead} is lost")
    assert re.search(rf"{dead} .*silent", incident_stage.listed("streamers"))
    assert incident_stage.metric("streamer1", REDIS_ANSWERS) is None, "Prometheus sees that it is down"
    wait_until(lambda: stage.run(run)["state_name"] == "Silent", description="its run is Silent")
    stage.up("streamer1")
    second = stage.on_air(class_id, timeout_s=90)
    assert not second.concurrent
    assert -2.5 < stage.late_s(class_id, second) < 2 + PROMPT_S
    stage.residents["streamer1"].wait_for(f"{stage.run(run)['name']}: its process died; it is put to AwaitingRetry")
    wait_until(lambda: stage.run(run)["state_name"] == "Running", description="its run is at work again")
    incident_stage.on_air(class_id)
    assert class_id not in incident_stage.listed("not known")
    stage.cancel_on_stream(class_id)
    stage.off_air(class_id)


def test_only_runs_of_a_process_are_watched_for_their_silence(incident_stage: Night) -> None:
    """A run that shows what was done costs the server no watch, by its own rule; one that was at work does."""
    stage = incident_stage.stage
    record = stage.town.record()
    class_id = stage.book(stage.booking(record, starts_in_s=90_000))
    assert stage.answer(class_id, timeout_s=120)["result"] == "success"
    trigger = EventTrigger.model_validate(deployments.silent_runs(30).trigger.model_dump(exclude={"type"}))
    is_watched = []
    # A booking may be shown together with what came just before it.
    tags = [f"class:{class_id}"]
    for begun in (
        lambda: stage.runs("teacher", "booking ", tags=tags),
        lambda: stage.runs("streamer1", f"download {record}"),
    ):
        run = wait_until(begun, description="it has a run")[0]
        resource = {"id": [f"prefect.flow-run.{run['id']}"]}
        wanted = {"event": {"name": ["prefect.flow-run.Completed"]}, "resource": resource}
        (end,) = wait_until(incident_stage.events, wanted, description=f"the end of {run['name']} is seen")
        is_watched.append(trigger.covers(ReceivedEvent.model_validate(end)))
    assert is_watched == [False, True]
