"""What can be seen of hosts from outside: databases, Redis, Prefect."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import stamina
from psycopg.rows import dict_row

from lectern.errors import CODES
from lectern.i18n import of_wire, translated
from tests.stage.ear import Fields
from tests.stage.platform import Platform
from tests.stage.town import Town

PROMPT_S = 3.0
"""A class begins at its second; machines that run three tests at once may take so long for it."""


class Stage(Platform):
    """A teacher and streamers of their own: names, channels, keys, databases; the servers are the town's."""

    def rows(self, who: str, sql: str, *values: object) -> list[Fields]:
        """Rows of the database of *who*."""
        if url := self.server_url(who):
            with psycopg.connect(url, row_factory=dict_row) as server:
                return server.execute(sql.replace("?", "%s"), values).fetchall()
        with closing(sqlite3.connect(f"file:{self.database(who)}?mode=ro", uri=True, timeout=20)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def alter(self, who: str, sql: str) -> None:
        """Do something to the database of *who*."""
        if url := self.server_url(who):
            with psycopg.connect(url) as server:
                server.execute(sql)
            return
        with closing(sqlite3.connect(self.database(who), timeout=20)) as connection, connection:
            connection.execute(sql)

    def order(self, class_id: str) -> Fields:
        """The booking as the teacher has it; empty where it is not known."""
        return next(iter(self.rows("teacher", "select * from order_list where class_id = ?", class_id)), {})

    def status(self, record_id: int, resolution: str) -> str | None:
        """The documented status of a rendition."""
        wanted = "select status from video_list where record_id = ? and resolution = ?"
        return next((row["status"] for row in self.rows("teacher", wanted, record_id, resolution)), None)

    def airing(self, who: str, class_id: str) -> Fields:
        """The class as the streamer *who* has it; empty where it is not known."""
        return next(iter(self.rows(who, "select * from class_list where class_id = ?", class_id)), {})

    def num_cite(self, who: str, stem: str) -> int | None:
        """The documented citation count of a rendition; None where it is not in the cache."""
        rows = self.rows(who, "select num_cite from video_list where id = ?", stem)
        return next((int(row["num_cite"]) for row in rows), None)

    def cached(self, who: str) -> set[str]:
        """The renditions that *who* has."""
        return {row["id"] for row in self.rows(who, "select id from video_list where state = 'ready'")}

    def waiting_list(self, record_id: int, resolution: str) -> list[str]:
        """The documented Redis list of the classes that wait for a rendition."""
        found: Any = self.town.redis.lrange(f"{self.prefix}:{record_id}_{resolution}", 0, -1)
        return [str(one) for one in found]

    def posts(self, record_id: int) -> int:
        """How many signed POSTs the OSS transcoder took for a record."""
        return sum(one.record_id == record_id for one in list(self.oss.posts))

    def runs(self, who: str, name: str = "", *, tags: Sequence[str] = (), limit: int = 50) -> list[Fields]:
        """The runs of *who* with all of *tags* whose name contains *name*, newest first, as Prefect knows them."""
        asked = {
            "flow_runs": {"name": {"like_": name}, **({"tags": {"all_": list(tags)}} if tags else {})},
            "deployments": {"name": {"any_": [self.name(who)]}},
            "sort": "START_TIME_DESC",
            "limit": limit,
        }
        found: list[Fields] = self._post("/flow_runs/filter", asked)
        return found

    def change(self, path: str, **fields: object) -> None:
        """Change something of Prefect's, as the UI does."""
        self._ask("PATCH", path, fields)

    def delete(self, path: str) -> None:
        """Delete something of Prefect's, as the UI does."""
        self._ask("DELETE", path, {})

    def _post(self, path: str, body: Fields) -> Any:
        return self._ask("POST", path, body).json()

    def _ask(self, method: str, path: str, body: Fields) -> httpx.Response:
        """Ask Prefect; where two writers of its SQLite met, it says so and has written nothing."""
        for attempt in stamina.retry_context(on=_was_busy, attempts=90, wait_initial=0.05, wait_max=1.0, timeout=90):
            with attempt:
                return self.town.api.request(method, path, json=body).raise_for_status()
        raise AssertionError("the last attempt returns or raises")

    def run(self, run_id: str) -> Fields:
        """A run as Prefect knows it."""
        found: Fields = self.town.api.get(f"/flow_runs/{run_id}").raise_for_status().json()
        return found

    def log(self, run_id: str) -> list[str]:
        """What the UI shows in the log of a run."""
        found = self._post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return [str(one["message"]) for one in found]

    def artifact(self, key: str) -> str:
        """What the artifact *key* shows now; empty where it is not there."""
        found = self._post("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return next((one["data"] if isinstance(one["data"], str) else json.dumps(one["data"]) for one in found), "")

    def described(self, key: str) -> str:
        """The line above the artifact *key*; empty if there is none."""
        found = self._post("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return next((str(one["description"]) for one in found), "")

    def tables(self, run_id: str) -> str:
        """What the artifacts of a run show."""
        found = self._post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        return " ".join(json.dumps(one["data"]) for one in found)

    def quick_run(self, deployment_id: str, **parameters: object) -> str:
        """Start a run as the UI does at *Quick run*; returns its id."""
        return str(self._post(f"/deployments/{deployment_id}/create_flow_run", {"parameters": parameters})["id"])

    def click(self, run_id: str, state_type: str, state_name: str) -> None:
        """Set a run's state as the UI does at *Retry* (SCHEDULED, AwaitingRetry) and *Cancel* (CANCELLING)."""
        state = {"type": state_type, "name": state_name, "message": f"{state_name} from the UI"}
        found = self._post(f"/flow_runs/{run_id}/set_state", {"state": state})
        # A run that has not begun is cancelled at once, which Prefect says by rejecting the state in between.
        assert found["status"] == "ACCEPT" or found["state"]["type"] == "CANCELLED", found


def _was_busy(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE


@contextmanager
def staged(town: Town, folder: Path, **settings: str) -> Iterator[Stage]:
    """A stage in *folder*, with *settings* of its own; all its residents are ended.

    Where nothing has failed, each alarm that was heard must be one that can be told in Chinese.
    """
    stage = Stage(town, folder, settings)
    STAGES.append(stage)
    try:
        yield stage
    finally:
        STAGES.remove(stage)
        stage.close()
    _say_in_chinese(stage.ear.alarms)


def _say_in_chinese(alarms: Sequence[Fields]) -> None:
    """Assert that the catalogue has each of these *alarms*, or a part of it: the rest is a program's own words."""
    ours = {of_wire(one) for one in alarms if one["code"] in CODES}  # a test may publish others itself
    english = sorted(one for one in ours if translated(one, "zh") == one)
    assert not english, f"these alarms reach people in English, make each a Text: {english}"


STAGES: list[Stage] = []
"""Those that are open: their logs are shown when a test fails."""
