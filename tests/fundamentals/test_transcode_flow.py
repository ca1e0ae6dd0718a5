"""A rendition that is not there yet: requested, waited for, made, or given up."""

import json

import pytest

from tests.stage import Stage, wait_until
from town.oss_transcoder import Behaviour, Rule

pytestmark = pytest.mark.live


def succeeded(stage: Stage, record: int) -> None:
    """The OSS says that it has made a rendition; in its place the origin has the recording."""
    result = {"cmd": "transcoding", "record_id": record, "video_resolution": "240P", "result": "sucess", "type": "oss"}
    url = stage.town.origin.url_for(f"{record}/{record}.flv")
    stage.publish("transcoding", {**result, "transcode_video_url": url})


def test_two_classes_wait_for_one_transcoding(stage: Stage) -> None:
    """One signed POST, one waiting list, one result: both proceed, and the list is gone."""
    record = stage.town.record("240P")
    stage.oss.behave(Rule(Behaviour.SILENT, record_id=record))  # its result is the test's, when both wait
    both = [stage.book(stage.booking(record, "240P")) for _ in range(2)]
    wait_until(lambda: stage.waiting_list(record, "240P") == both, description="both wait")
    assert stage.status(record, "240P") == "transcoding"
    wait_until(lambda: stage.posts(record), description="it is asked for")
    succeeded(stage, record)
    assert [stage.answer(one)["result"] for one in both] == ["success", "success"]
    assert stage.posts(record) == 1
    assert stage.status(record, "240P") == "success"
    assert stage.waiting_list(record, "240P") == []
    assert stage.num_cite("streamer1", f"{record}_240P") == 2


def test_where_the_oss_fails_our_own_server_takes_over(stage: Stage) -> None:
    """Over SSH, in truth: both classes proceed with the URL that was uploaded to, and the platform hears it."""
    record = stage.town.record()
    heard = stage.town.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    heard.subscribe(stage.channels["transcoding"])
    stage.oss.behave(Rule(Behaviour.FAIL, record_id=record))
    both = [stage.book(stage.booking(record, "240P")) for _ in range(2)]
    assert [stage.answer(one, timeout_s=90)["result"] for one in both] == ["success", "success"]
    made = stage.town.origin.root / "put" / str(record) / f"{record}_240P.flv"
    cached = stage.folder / "streamer1" / str(record) / f"{record}_240P.flv"
    assert cached.read_bytes() == made.read_bytes()
    assert stage.posts(record) == 1
    assert stage.status(record, "240P") == "success"
    said = [json.loads(one["data"]) for _ in range(30) if (one := heard.get_message(timeout=0.1)) is not None]
    (ours,) = [one for one in said if (one["record_id"], one["type"]) == (record, "ecs")]
    assert (ours["result"], ours["transcode_video_url"].endswith(f"{record}_240P.flv")) == ("sucess", True)
    kept = "select source from inbox_list where command = 'transcoding' and body like ?"
    its = [row["source"] for row in stage.rows("teacher", kept, f'%"record_id":{record},%"type":"ecs"%')]
    assert its == [f"stream:{stage.channels['transcoding']}"], "it is handled once, though it is sent on both ways"
    heard.close()


def test_a_silent_oss_is_given_up_with_207(stage: Stage) -> None:
    """After the documented time; the next booking is refused at once, and a late success corrects the status."""
    record = stage.town.record()
    stage.oss.behave(Rule(Behaviour.SILENT, record_id=record))
    waiting = stage.book(stage.booking(record, "240P"))
    assert stage.answer(waiting, timeout_s=60)["code"] == 207
    wait_until(lambda: stage.order(waiting)["answered_at"], description="that it was answered is noted")
    order = stage.order(waiting)
    assert order["answered_at"] - order["received_at"] >= float(stage.settings["TRANSCODING_TIME_OUT_S"])
    wait_until(lambda: stage.alarms(207, record_id=record), description="the alarm comes")
    assert (stage.status(record, "240P"), stage.waiting_list(record, "240P")) == ("timed out", [])

    following = stage.book(stage.booking(record, "240P"))
    assert stage.answer(following, timeout_s=10)["code"] == 207
    assert stage.posts(record) == 1

    succeeded(stage, record)
    wait_until(lambda: stage.status(record, "240P") == "success", description="the status is corrected")
    assert [len(stage.ear.answers[one]) for one in (waiting, following)] == [1, 1]
    spelled = "select 1 from event_list where what like ? or detail like ?"
    assert not stage.rows("teacher", spelled, "%sucess%", "%sucess%")
