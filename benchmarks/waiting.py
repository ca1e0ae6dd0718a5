"""How soon classes that wait for a rendition are answered once its transcoding's result comes."""

import json
import time
from collections.abc import Iterator

from benchmarks.figures import Figure, growth
from benchmarks.stand import Ear, Stand
from benchmarks.storm import publish
from tests.stage import Stage, wait_until
from town.oss_transcoder import Behaviour, Rule, result

WHAT = (
    "so many classes wait for one rendition, whose transcoding is under way (one signed POST was made for all). Then"
    " its result is published; counted from there to the last of their answers heard. The streamer has the file"
    " already, so that no download is in it: all classes are placed, prepared and answered"
)
SIZES = (1000, 10_000)
GOALS = {1000: "<= 0.4"}


def measure(stand: Stand) -> Iterator[Figure]:
    """Each size, some rounds."""
    found: list[Figure] = []
    with stand.stage(TRANSCODING_TIME_OUT_S="3600") as stage:
        stage.oss.behave(Rule(Behaviour.SILENT))  # its results are published here
        stage.up("teacher", "streamer1")
        for number in SIZES:
            took = [_continued(stand, stage, number) for _ in range(stand.rounds)]
            row, goal = f"waiting, {number:,}", GOALS.get(number, "")
            found.append(Figure(row, "s", min(took), more_is_better=False, goal=goal, size=number))
            yield found[-1]
    yield growth("waiting: growth", found)


def _continued(stand: Stand, stage: Stage, number: int) -> float:
    """Seconds from the result to the last answer."""
    record = stage.town.record("720P")
    has = stage.booking(record, "720P", listed=("720P",), starts_in_s=90_000)
    assert stage.answer(stage.book(has), timeout_s=120)["result"] == "success"
    ear = Ear(stand.town.redis_url, stage.channels["order_result"], number, give_up_s=120 + number / 50)
    bookings = [stage.booking(record, "720P", starts_in_s=90_000) for _ in range(number)]
    publish(stand, stage.channels["order"], [json.dumps(one) for one in bookings])
    counted = "select count(*) as n from order_list where record_id = ? and state = 'waiting'"
    wait_until(
        lambda: stage.rows("teacher", counted, record)[0]["n"] == number and stage.posts(record) == 1,
        timeout_s=60 + number / 50,
        description=f"{number} classes wait, for one POST",
    )
    made = result(record, "720P", stage.town.origin.url_for(f"{record}/{record}_720P.flv"))
    began = time.time()
    stage.publish("transcoding", made)
    took = max(ear.all().values()) - began
    stand.say(f"waiting, {number:,}: answered {took:.2f} s after the result")
    return took
