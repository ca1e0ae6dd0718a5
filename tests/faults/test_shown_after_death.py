"""Hosts are killed again and again between the handling of messages and their showing: nothing is lost or doubled."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lectern.db.inbox import parse_id_ranges
from tests.faults import lives
from tests.faults.day import Rendition
from tests.faults.transcoder import Transcoder
from tests.stage import Stage, Town, staged, wait_until

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
KILLS = len(lives.POINTS)
"""Number of times that each of the two hosts is killed: once at each point."""

WHO = ("teacher", "streamer1")
RENDITIONS = 12
FLOW_OF = {"order": "booking", "transcoding": "settle", "prepared": "report", "prepare": "prepare"}
UNSHOWN = "select id from inbox_list where state = 'new' or recorded_at is null"


class Lives:
    """A stage whose hosts are killed at moments of *seed*, and come again at once."""

    def __init__(self, stage: Stage, seed: str) -> None:
        self.stage = stage
        self.logs = {who: stage.folder / f"lives-{who}.log" for who in WHO}
        stage.launcher = (sys.executable, "-m", "tests.faults.lives")
        for who in WHO:
            plan = lives.moments(f"{seed} {who}", KILLS)
            stage.own[who] = {**lives.environment(plan, self.logs[who], stage.database(who)), "PYTHONPATH": str(ROOT)}

    def deaths(self, who: str) -> list[dict[str, Any]]:
        """What each life of *who* ended with."""
        log = self.logs[who]
        whole = log.read_text().split("\n")[:-1] if log.exists() else []  # the last line may be half written
        return [json.loads(line) for line in whole]

    def over(self) -> bool:
        """Whether all have died as often as they were to."""
        return all(len(self.deaths(who)) == KILLS for who in WHO)


@pytest.fixture(scope="module")
def lived(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lives, list[str]]]:
    """Both hosts after all their deaths, and the classes that were booked meanwhile, each of them answered."""
    folder = tmp_path_factory.mktemp("lives")
    own = {"HEARTBEAT_INTERVAL_S": "1", "ECS_HOSTS": "", "MAX_VIDEO_NUM": "1000", "TRANSCODING_TIME_OUT_S": "60"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "transcoder", Transcoder)
        with staged(town, folder, **own) as stage:
            stage.init(*WHO)
            found = Lives(stage, "shown")
            booked = _day(found)
            yield found, booked


def _day(found: Lives) -> list[str]:
    """Book classes of every kind until all have died as often as they are to, and wait until all is handled."""
    stage = found.stage
    plain, *others = [stage.town.record("720P") for _ in range(RENDITIONS + 1)]
    made = [Rendition(one, "720P", "made", 0.3, None, None, {}, kept=True) for one in others]
    stage.oss.renditions = {(one.record, one.resolution): one for one in made}  # type: ignore[attr-defined]  # ours
    for who in WHO:
        stage.serve(who)
    booked: list[str] = []

    def book() -> bool:
        waits = others[len(booked) // 4 % RENDITIONS]
        bookings = [
            stage.booking(plain, starts_in_s=100_000),
            stage.booking(plain, starts_in_s=-60, length_s=1),
            stage.booking(waits, "720P", starts_in_s=100_000),
            stage.booking(plain, starts_in_s=100_000),
        ]
        booked.extend(stage.book_on_stream(one) for one in bookings)
        return found.over()

    wait_until(book, timeout_s=30 + 20 * KILLS, pause_s=0.2, description="all have died as often as they were to")
    for one in booked:
        stage.answer(one, timeout_s=60)
    for who in WHO:
        wait_until(lambda w: not stage.rows(w, UNSHOWN), who, description=f"all that {who} has handled is shown")
    return booked


def test_each_was_killed_at_every_moment_and_every_class_is_found_by_its_name(lived: tuple[Lives, list[str]]) -> None:
    found, _ = lived
    for who in WHO:
        assert [one["code"] for one in found.deaths(who)] == [-signal.SIGKILL] * KILLS
    found, booked = lived
    tags = {tag for run in _all_runs(found.stage, "teacher") for tag in run["tags"]}
    assert [one for one in booked if f"class:{one}" not in tags] == []


def test_a_class_is_answered_again_only_if_nobody_knew_that_it_was_sent(lived: tuple[Lives, list[str]]) -> None:
    """An answer is sent again only after a death between its sending and the note of it, and says the same.

    A booking that came a second time, because nobody had acknowledged it before the death, is answered a second time.
    """
    found, booked = lived
    unsent = Counter(class_id for death in found.deaths("teacher") for class_id in death["unsent"])
    bodies = [row["body"] for row in found.stage.rows("teacher", "select body from inbox_list where command = 'order'")]
    came = Counter(json.loads(body)["class_id"] for body in bodies)
    answers = {one: found.stage.ear.answers[one] for one in booked}
    numbers = {one: (len(said), came[one], unsent[one]) for one, said in answers.items()}
    assert {one: all_ for one, all_ in numbers.items() if all_[0] > all_[1] + all_[2]} == {}
    differing = {one: said for one, said in answers.items() if len({(a["result"], a.get("code")) for a in said}) > 1}
    assert differing == {}


@pytest.mark.parametrize("who", WHO)
def test_every_message_is_shown_by_one_run(lived: tuple[Lives, list[str]], who: str) -> None:
    """Whatever was shown when its process died is not shown a second time, and no run looks alive for ever."""
    stage = lived[0].stage
    rows = stage.rows(who, "select id, command from inbox_list where recorded_at is not null")
    shown: Counter[tuple[str, int]] = Counter()
    for run in _all_runs(stage, who):
        ids = parse_id_ranges(str(run["parameters"].get("inbox_ids", "")))
        shown.update((run["name"].split()[0], id_) for id_ in ids)
    messages = [(FLOW_OF[row["command"]], int(row["id"])) for row in rows if row["command"] in FLOW_OF]
    assert [one for one in messages if shown[one] != 1] == []
    wait_until(lambda: not _alive(stage, who), description=f"none of {_alive(stage, who)} looks alive")


def _alive(stage: Stage, who: str) -> list[tuple[str, str]]:
    """The runs that look as if they were at work: for a moment, a sweep is."""
    types = {"RUNNING", "PENDING"}
    return [(run["name"], run["state"]["name"]) for run in _all_runs(stage, who) if run["state"]["type"] in types]


def _all_runs(stage: Stage, who: str) -> list[dict[str, Any]]:
    """All runs of *who*; one that is created meanwhile moves the others on, so that a page begins with a known one."""
    found: dict[str, dict[str, Any]] = {}
    while True:
        asked = {"deployments": {"name": {"any_": [stage.name(who)]}}, "sort": "ID_DESC", "limit": 200}
        page = stage.town.api.post("/flow_runs/filter", json={**asked, "offset": len(found)}).raise_for_status().json()
        found |= {run["id"]: run for run in page}
        if len(page) < 200:
            return list(found.values())
