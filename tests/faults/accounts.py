"""What is said of a class that is over: by the platform's events, explain, page, report and Prefect's run."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from flows.streamer.amend import OTHER_TIME
from lectern import errors
from tests.stage import Stage, wait_until

OVER = ("aired with gaps", "aired", "broken", "cancelled")
"""The states of a class that is over; the longer of two words first, because a sentence is searched for them."""

OUTCOMES: Mapping[str, set[str]] = {
    "aired": {"whole"},
    "aired with gaps": {"with_gaps"},
    "broken": {"not_aired", "with_gaps"},
    "cancelled": {"cancelled"},
}
"""What the platform is told of the end of a class, by its state."""

RUN_ENDS = {"broken": "FAILED", "cancelled": "CANCELLED"}
"""The state of the run of a class, by how the class ended; COMPLETED for the others."""

NOTHING = "nothing to do"
"""What the message of a run begins with that came too late, or too often."""

ENDED_UNHEARD = errors.ENDED.number
"""The code of a cancel that its streamer did not hear before the end of the class: it may have aired it."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
"""The states of a run that has told how its class ended."""


class Accounts:
    """Asks the teacher at *bind*, and Prefect, for what they say of the classes of *stage*."""

    def __init__(self, stage: Stage, bind: str, streamers: Sequence[str]) -> None:
        self._stage, self._streamers = stage, streamers
        one_each = httpx.Limits(max_keepalive_connections=0)  # nothing is open between two questions
        self._http = httpx.Client(base_url=f"http://{bind}", timeout=60, trust_env=False, limits=one_each)
        self._http.headers["Accept-Language"] = "en"
        self._seen: dict[str, str] = {}
        self._lines: dict[str, dict[str, Any]] = {}

    def report(self, since: float) -> dict[str, dict[str, Any]]:
        """The lines of the report by class, from the day of *since* on."""
        if not self._lines:
            day = time.strftime("%Y-%m-%d", time.localtime(since))
            whole = ("report", "--from", day, "--to", "2099-01-01", "--format", "json")
            self._lines = {
                one["class_id"]: one for one in json.loads(self._stage.lectern("teacher", *whole).stdout)["classes"]
            }
        return self._lines

    def account(self, class_id: str) -> dict[str, Any]:
        """What ``explain --json`` prints of a class."""
        found: dict[str, Any] = json.loads(self._get(f"/v1/classes/{class_id}"))
        return found

    def events(self, class_id: str) -> list[dict[str, Any]]:
        """The events of a class, as who has missed some asks for them."""
        found: list[dict[str, Any]] = []
        while more := json.loads(self._get(f"/v1/classes/{class_id}/events?after={len(found)}"))["events"]:
            found += more
        return found

    def differ(self, class_id: str, state: str) -> Iterator[str]:
        """Who says of a class that is over another state than its teacher."""
        start = self._stage.order(class_id)["start_time"]
        says = {
            "the report": self.report(start - 60).get(class_id, {}).get("state"),
            "explain": self.account(class_id)["standing"],
            "the page": self._on_the_page(class_id),
            "the as-run page": self._in_the_as_run(class_id, start),
        }
        yield from (f"{who} says {what}, the teacher {state}" for who, what in says.items() if what != state)
        if (end := self.events(class_id)[-1:]) and end[0].get("outcome") not in OUTCOMES[state]:
            yield f"is {state}, and the platform was told {end}"
        if state != "cancelled" or end[0].get("code") != ENDED_UNHEARD:
            yield from self._shown_in_prefect(class_id, state)

    def runs(self, class_id: str) -> list[tuple[str, str]]:
        """The state and the message of each run of a class on the streamer that has it, oldest first."""
        tags, name = [f"class:{class_id}"], self._stage.order(class_id).get("streamer")
        who = next(one for one in self._streamers if name in {self._stage.name(one), None})
        runs = self._stage.runs(who, "broadcast", tags=tags)
        runs.sort(key=lambda run: str(run["created"]))
        return [(run["state_type"], str((run["state"] or {}).get("message") or "")) for run in runs]

    def _get(self, path: str) -> str:
        """What the teacher answers at *path*, which is asked for once; who asks too often has to wait."""

        def answer() -> httpx.Response | None:
            found = self._http.get(path)
            return None if found.status_code == httpx.codes.TOO_MANY_REQUESTS else found

        if not self._http.cookies:
            self._http.get("/", params={"token": self._token("viewer")})
            self._http.headers["Authorization"] = f"Bearer {self._token('client')}"
        if path not in self._seen:
            found = wait_until(answer, timeout_s=60, description=f"{path} is answered")
            assert found is not None
            self._seen[path] = found.raise_for_status().text
        return self._seen[path]

    def _token(self, kind: str) -> str:
        made = self._stage.lectern("teacher", kind, "add", f"accounts-{kind}", "--json")
        return str(json.loads(made.stdout)["token"])

    def _on_the_page(self, class_id: str) -> str:
        """The state of a class on its page."""
        text = self._get(f"/class/{class_id}")
        found = re.search(r'<h2 class="title">\S+ <span class="[^"]*">([^<]*)</span>', text)
        return found[1] if found else text

    def _in_the_as_run(self, class_id: str, start: float) -> str:
        """The state of a class on the as-run page of the day on which it begins, where those refused stand apart."""
        page = self._get(f"/as-run?day={time.strftime('%Y-%m-%d', time.localtime(start))}")
        rows = [row for row in re.split(r"<tr>|<p>", page) if f'<a href="/class/{class_id}">' in row]
        shown = [re.search(r'<span class="s [^"]*">([^<]*)</span>', row) for row in rows]
        return next((state[1] if state else "refused" for state in shown), f"nothing: {page}")

    def _shown_in_prefect(self, class_id: str, state: str) -> Iterator[str]:
        """What its runs say otherwise than the rows: the last one that was not for another time tells its end."""
        told = self.runs(class_id)
        for kind, message in told:
            if kind not in ENDED:
                yield f"is {state}, and one of its runs is {kind}: {message}"
            says = kind == "COMPLETED" and not message.startswith(NOTHING)  # which says how it was then
            named = next((name for name in OVER if says and name in message), state)
            if named != state:
                yield f"is {state}, and one of its runs says {named}: {message}"
        shown = [kind for kind, message in told if not message.startswith((NOTHING, OTHER_TIME))]
        ends = {RUN_ENDS.get(state, "COMPLETED")}
        if self._stage.order(class_id).get("code") == errors.NOT_MOVED.number:
            ends.add("CANCELLED")  # it was taken from its streamer, and nobody else could take it
        if shown and shown[-1] not in ends and told[-1][1] != f"{NOTHING}: {class_id} is {state}":
            yield f"is {state}, and its runs are {told}"
        bar = self._stage.described(f"broadcast-{self._stage.order(class_id).get('streamer')}-{class_id}")
        if bar.startswith(f"{class_id}: ") and bar != f"{class_id}: {state}":
            yield f"is {state}, and the bar of its run says {bar}"
