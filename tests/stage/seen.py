"""The platform of a test, and what can be seen of hosts from outside: databases, Redis, Prefect."""

import itertools
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
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
from tests.stage.hosts import Hosts
from tests.stage.town import Town
from tests.waiting import wait_until
from town.platform import position_s
from town.recordings import Publish

PROMPT_S = 3.0
"""A class begins at its second; machines that run three tests at once may take so long for it."""


class Stage(Hosts):
    """A teacher and streamers of their own: names, channels, keys, databases; the servers are the town's.

    And the platform that they serve: it books, cancels, hears answers, sees what is pushed.
    """

    def __init__(self, town: Town, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(town, folder, settings)
        self._classes = itertools.count(1)

    def booking(
        self,
        record_id: int,
        resolution: str | None = None,
        *,
        starts_in_s: float = 600.0,
        length_s: float = 6.0,
        listed: Sequence[str] = (),
        **fields: object,
    ) -> Fields:
        """A booking of a new class; without *resolution* one of the old kind, which names no record."""
        class_id = f"{self.prefix}-c{next(self._classes)}"
        start = time.time() + starts_in_s
        return {
            "cmd": "order",
            "class_id": class_id,
            "institution_id": "i-7",
            "start_time": start,
            "end_time": start + length_s,
            "push_url": self.town.receiver.url(class_id),
            **self.town.origin.recording(record_id, resolution, listed),
            **fields,
        }

    def publish(self, channel: str, message: object) -> None:
        """Publish on one of the documented channels; a text goes as it is."""
        body = message if isinstance(message, str) else json.dumps(message)
        self.town.redis.publish(self.channels[channel], body)

    def book(self, booking: Fields) -> str:
        """Publish a booking; returns its class_id."""
        self.publish("order", booking)
        return str(booking["class_id"])

    def book_on_stream(self, booking: Fields) -> str:
        """Put a booking on the stream, which is read whenever somebody comes to read it; returns its class_id."""
        self.town.redis.xadd(self.channels["order"], {"body": json.dumps(booking)})
        return str(booking["class_id"])

    def cancel(self, class_id: str) -> None:
        self.publish("cancel", {"cmd": "cancel", "class_id": class_id})

    def cancel_on_stream(self, class_id: str) -> None:
        self.town.redis.xadd(self.channels["cancel"], {"body": json.dumps({"cmd": "cancel", "class_id": class_id})})

    def tell(self, streamer: str, message: Fields) -> None:
        """Tell a streamer what a teacher would; for stages that have none."""
        self.town.redis.xadd(f"{self.prefix}:to:{self.name(streamer)}", {"body": json.dumps(message)})

    def stream(self, name: str) -> list[Fields]:
        """All that was put on a stream."""
        found: Any = self.town.redis.xrange(name)
        return [json.loads(fields["body"]) for _, fields in found]

    def answer(self, class_id: str, *, timeout_s: float = 45.0, count: int = 1) -> Fields:
        """The answer to a booking; with *count* the last of so many."""
        description = f"{class_id} is answered {count} times"
        wait_until(lambda: len(self.ear.answers[class_id]) >= count, timeout_s=timeout_s, description=description)
        return self.ear.answers[class_id][count - 1]

    def alarms(self, code: int, **fields: object) -> list[Fields]:
        return [
            one
            for one in self.ear.alarms
            if one["code"] == code and all(one.get(name) == value for name, value in fields.items())
        ]

    def pushes(self, class_id: str) -> list[Publish]:
        """What the RTMP receiver took of a class, one entry a push."""
        return list(self.town.receiver.publishes.get(class_id, []))

    def on_air(self, class_id: str, timeout_s: float = 40.0) -> Publish:
        """Wait until pictures of the class arrive."""

        def seen() -> Publish | None:
            live = [one for one in self.pushes(class_id) if one.first_media_at is not None and one.ended_at is None]
            return live[-1] if live else None

        return wait_until(seen, timeout_s=timeout_s, description=f"{class_id} is on air")  # type: ignore[return-value]

    def off_air(self, class_id: str, timeout_s: float = 40.0) -> list[Publish]:
        """Wait until all pushes of the class have ended."""

        def over() -> bool:
            pushes = self.pushes(class_id)
            return bool(pushes) and all(one.ended_at is not None for one in pushes)

        wait_until(over, timeout_s=timeout_s, description=f"{class_id} is off air")
        return self.pushes(class_id)

    def position_s(self, record_id: int, push: Publish) -> float:
        """Where in the recording a push began, by its first key picture; of one on air that may be on its way."""
        source = self.town.origin.root / str(record_id) / f"{record_id}.flv"
        received = self.town.receiver.root / push.file
        (found,) = wait_until(
            lambda: [at for at in [position_s(source, received)] if at is not None],
            description=f"{push.file} has a key picture of {source.name}",
        )
        return found

    def late_s(self, class_id: str, push: Publish) -> float:
        """By how many seconds a push was behind the clock of its class when it began, by its first key picture.

        Its sound begins at once, and the picture with the next key picture: one that is on time can be 2 s early.
        """
        order = self.order(class_id)
        assert push.first_media_at is not None
        return float(push.first_media_at - order["start_time"] - self.position_s(int(order["url_stem"]), push))

    # -- what can be seen of the hosts -----------------------------------------------------------------------------

    def rows(self, who: str, sql: str, *values: object) -> list[Fields]:
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

    def _post(self, path: str, body: Fields) -> Any:
        return self._ask("POST", path, body).json()

    def _ask(self, method: str, path: str, body: Fields) -> httpx.Response:
        """Ask Prefect; where two writers of its SQLite met, it says so and has written nothing."""
        for attempt in stamina.retry_context(on=_was_busy, attempts=90, wait_initial=0.05, wait_max=1.0, timeout=90):
            with attempt:
                return self.town.api.request(method, path, json=body).raise_for_status()
        raise AssertionError("the last attempt returns or raises")

    def run(self, run_id: str) -> Fields:
        found: Fields = self.town.api.get(f"/flow_runs/{run_id}").raise_for_status().json()
        return found

    def log(self, run_id: str) -> list[str]:
        """What the UI shows in the log of a run."""
        found = self._post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"})
        return [str(one["message"]) for one in found]

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
