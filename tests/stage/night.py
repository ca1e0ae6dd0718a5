"""A teacher and a streamer in trouble, and what each place says of it that an operator looks at.

The places are six: the alarm, ``lectern status``, ``lectern explain``, the page, the run in Prefect, the metrics.
"""

import html
import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from lectern.errors import CODES
from tests.stage import runbook
from tests.stage.ear import Fields
from tests.stage.gate import Gate
from tests.stage.seen import Stage
from tests.waiting import wait_until


@dataclass
class Night:
    """A teacher and a streamer, and the ways to Redis and Prefect, which can be shut."""

    stage: Stage
    redis: Gate
    prefect: Gate
    browser: httpx.Client = field(default_factory=lambda: httpx.Client(follow_redirects=True, timeout=30))
    address: str = ""  # of the page, with the token of a viewer

    # -- the places, one by one ------------------------------------------------------------------------------------

    def alarm(self, code: int, words: str, *, since: float = 0.0, **fields: object) -> Fields:
        """The first alarm of *code* with these words and fields since then; its heading is in the runbook."""

        def raised() -> list[Fields]:
            return [one for one in self.stage.alarms(code, **fields) if one["at"] >= since and words in one["message"]]

        found = wait_until(raised, timeout_s=90, description=f"{code} is alarmed: {words}, {fields}")[0]
        assert found["runbook"] == CODES[code].runbook
        assert runbook.section(found["runbook"])
        return found

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

    def listed(self, heading: str, path: str = "/") -> str:
        """The section of the page under *heading*; empty if there is none."""
        found = re.search(rf"<h2>{heading}</h2>(.*?)</section>", self.page(path), re.DOTALL)
        return found[1] if found else ""

    def timetable(self, booking: Fields) -> str:
        """The timetable of the day on which a class begins."""
        day = time.strftime("%Y-%m-%d", time.localtime(booking["start_time"]))
        return self.listed(f"timetable {day}", f"/?day={day}")

    def metric(self, who: str, name: str) -> float | None:
        """A metric of a host as Prometheus would read it; None if the host does not have it, or does not answer."""
        bind = self.stage.settings["API_BIND" if who == "teacher" else "HEALTH_BIND"]
        try:
            text = httpx.get(f"http://{bind}/metrics", timeout=30).text
        except httpx.ConnectError:
            return None
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def events(self, name: str, resource: str) -> list[Fields]:
        """The newest events of a resource that Prefect has."""
        its = {"event": {"name": [name]}, "resource": {"id": [resource]}}
        found = self.stage.town.api.post("/events/filter", json={"filter": its, "limit": 50})
        return list(found.raise_for_status().json()["events"])

    # -- all places ------------------------------------------------------------------------------------------------

    def raised(self, code: int, words: str, *, since: float = 0.0, **fields: object) -> Fields:
        """An alarm; status, page and metric say the same, and of which host it is. Returns it."""
        alarm = self.alarm(code, words, since=since, **fields)
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
        wait_until(
            lambda: self.metric(who, f'lectern_incidents{{code="{code}"}}') == 1,
            pause_s=0.5,
            description=f"the metric of {who} has {code}",
        )
        return alarm

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

    def agree(self, class_id: str, code: int, words: str, *, record: int | None = None, run: str = "refuse") -> None:
        """All six places of a class that was refused, or of its *record*: one cause; its *run* is Refused."""
        fields: dict[str, Any] = {"class_id": class_id} if record is None else {"record_id": record}
        self.raised(code, words, **fields)
        self.named(class_id, code, words)
        self.run_refused(class_id, f"{run} {code}", words)
        if run == "refuse":  # what cannot be read is no booking
            assert self.counted(code) >= 1

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

    def run_refused(self, class_id: str, decision: str, words: str) -> None:
        """The run in Prefect by which the UI finds a refused class."""
        tags = ("lectern:refused", f"class:{class_id}")
        found = wait_until(
            lambda: self.stage.runs("teacher", tags=tags), description=f"{class_id} is Refused in the UI"
        )[0]
        assert found["state_name"] == "Refused"
        assert decision in found["state"]["message"]

        def said() -> str:
            """Its log and its table come after it."""
            return " ".join([found["state"]["message"], *self.stage.log(found["id"]), self.stage.tables(found["id"])])

        wait_until(lambda: words in said(), description=f"the run of {class_id} says {words}")

    def counted(self, code: int) -> float:
        """How many bookings were refused with *code*, as the teacher's metric has it."""
        return self.metric("teacher", f'lectern_bookings{{code="{code}",state="refused"}}') or 0

    # -- what is done ----------------------------------------------------------------------------------------------

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
        wait_until(
            lambda: self.events("lectern.run.alive", f"prefect.flow-run.{run['id']}"),
            pause_s=0.5,
            description="Prefect hears that its run is alive",
        )
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

    def booked_anew(self, record: int, *resolution: str) -> str:
        """What most headings end with: it is booked again, with a new class_id, and is ready."""
        booking = self.stage.booking(record, *resolution, listed=resolution)
        done = self.stage.lectern("teacher", "book", "-", text=json.dumps(booking))
        assert done.returncode == 0, done.stderr
        assert self.stage.answer(booking["class_id"], timeout_s=90)["result"] == "success"
        return str(booking["class_id"])
