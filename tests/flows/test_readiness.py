"""What is wrong with a class is told while there is time."""

import json
import time
from pathlib import Path

import pytest

from lectern import rendition_ids
from lectern.storage import cache_dir
from tests.stage import Stage, Town, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live


def alarm_of(stage: Stage, class_id: str) -> str:
    found = wait_until(
        lambda: stage.alarms(324, class_id=class_id), timeout_s=120, description=f"{class_id} is called not ready"
    )
    return str(found[0]["message"])


def test_a_lost_file_and_a_push_url_where_nobody_listens_are_told_before_the_start(town: Town, tmp_path: Path) -> None:
    """One alarm a class with every reason; a class that is ready has none; the timetable shows both."""
    with staged(town, tmp_path) as stage:
        stage.up("streamer1")
        nobody = f"rtmp://{HOST}:{free_port()}/live/x"
        good = stage.booking(stage.town.record(), starts_in_s=280, length_s=60)
        bad = stage.booking(stage.town.record(), starts_in_s=280, length_s=60, push_url=nobody)
        for one in (good, bad):
            stage.tell("streamer1", {**one, "cmd": "prepare"})
        kept = {one["class_id"]: rendition_ids.of_url(one["video_url"]) for one in (good, bad)}
        wait_until(lambda: set(kept.values()) <= stage.cached("streamer1"), description="both are cached")
        cache_dir.rendition_path(stage.folder / "streamer1", kept[bad["class_id"]]).unlink()
        said = alarm_of(stage, bad["class_id"])
        assert "its file is gone" in said
        assert "its push URL cannot be reached" in said
        assert stage.alarms(324, class_id=good["class_id"]) == []

        def told() -> dict[str, str]:
            said = stage.stream(stage.settings["REPORT_STREAM"])
            return {one["class_id"]: one["event"] for one in said if one["cmd"] == "airing"}

        stated = {good["class_id"]: "ready", bad["class_id"]: "not_ready"}
        wait_until(lambda: told() == stated, description="the teacher is told, for the platform")
        key = f"timetable-{stage.name('streamer1')}"

        def shown() -> dict[str, str]:
            asked = {"artifacts": {"key": {"any_": [key]}}}
            found = town.api.post("/artifacts/latest/filter", json=asked).raise_for_status().json()
            return {line["class"]: line["ready"] for one in found for line in _lines(one["data"])}

        wait_until(
            lambda: shown() == {good["class_id"]: "●", bad["class_id"]: "✗"},
            description="the timetable shows which one is ready",
        )


def test_a_class_is_refused_at_once_if_its_recording_will_be_late_and_one_in_time_has_it_when_it_was_said(
    town: Town, tmp_path: Path
) -> None:
    """A download of some seconds, at a low DOWNLOAD_RATE."""
    with staged(town, tmp_path, DOWNLOAD_RATE="16k") as stage:
        stage.up("streamer1")
        record = stage.town.record(seconds=30)
        takes_s = (stage.town.origin.root / str(record) / f"{record}.flv").stat().st_size / 16 / 1024
        assert takes_s > 10
        good = stage.booking(record, starts_in_s=60 + 3 * takes_s, length_s=60)
        late = stage.booking(stage.town.record(seconds=30), starts_in_s=takes_s / 3, length_s=600)
        booked_at = time.time()
        for one in (good, late):
            stage.tell("streamer1", {**one, "cmd": "prepare"})

        def prepared() -> dict[str, tuple[int, float]]:
            said = stage.stream(stage.settings["REPORT_STREAM"])
            return {one["class_id"]: (one["code"], time.time()) for one in said if one["cmd"] == "prepared"}

        refused = wait_until(lambda: prepared().get(late["class_id"]), description="the late one is refused")
        assert refused is not None
        assert refused[0] == 324
        assert refused[1] < booked_at + takes_s, "before its recording could have come"

        def forecast() -> float | None:
            body = stage.town.redis.hget(f"{stage.settings['STREAMERS_KEY']}:words", stage.name("streamer1"))
            found: dict[str, float] = json.loads(str(body or "{}")).get("ready_by", {})
            return found.get(good["class_id"])

        said_at = wait_until(forecast, description="the heartbeat says when the recording will be there")
        assert said_at is not None
        there = wait_until(lambda: prepared().get(good["class_id"]), timeout_s=120, description="it is there")
        assert there is not None
        assert there[0] == 0
        assert abs(there[1] - said_at) < 30 + 0.2 * takes_s


def _lines(data: object) -> list[dict[str, str]]:
    return list(json.loads(data)) if isinstance(data, str) else list(data)  # type: ignore[call-overload]
