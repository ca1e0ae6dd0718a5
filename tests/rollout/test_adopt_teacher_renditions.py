"""Renditions that an old teacher had asked for: what is known of them counts, and nothing waits for ever."""

import json
import time
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from lectern.db import bookings, events, schema, transcodings
from lectern.db.engine import open_database, transaction
from lectern.errors import Misuse, TryAgain
from lectern.model.tables.teacher import journal
from lectern.redis.rename import Rule, opened
from lectern.rollout.takeover import teacher
from lectern.rollout.takeover.teacher import ADOPTED, OldKeyNames, OldLists
from lectern.states import BookingState, RenditionState
from tests.effects import old_databases
from tests.effects.redis_servers import redis_server
from tests.rollout.old_teacher import (
    OLD_TABLE,
    ORDER_KEY,
    P720,
    WAITING_KEY,
    adopt,
    begun,
    left_by_the_old_program,
    messages,
    orders_of,
    planned,
    under_way,
)
from tests.stage import Town, staged, wait_until
from tests.strategies import NOW, booking


@pytest.mark.parametrize("state", RenditionState)
def test_what_is_known_of_the_rendition_counts(client: redis.Redis, engine: Engine, state: RenditionState) -> None:
    """Under way: the class waits on, and the deadline stays. Settled: the booking flow decides by its table, once."""
    begun(engine, state)
    left_by_the_old_program(client, booking("c-1"))
    with transaction(engine) as connection:
        before = transcodings.states(connection, [(6666, P720)])
    said = adopt(engine, client)
    if state is RenditionState.TRANSCODING:
        assert orders_of(engine, "c-1")["c-1"].state is BookingState.WAITING
        assert [one.deadline for one in under_way(engine)] == [NOW + 70]
        assert messages(engine) == []
    else:
        assert said == [f"c-1: already {state} is 6666_720P; the booking flow decides it at the start."]
        assert orders_of(engine, "c-1") == {}
        assert messages(engine) == ["c-1"]
        assert adopt(engine, client) == []
        assert messages(engine) == ["c-1"]
    with transaction(engine) as connection:
        assert transcodings.states(connection, [(6666, P720)]) == before
        assert [one.what for one in events.of_thing(connection, journal, class_id="c-1", stems=[])] == [ADOPTED]


def test_a_booking_that_has_the_url_is_decided_by_the_flow(client: redis.Redis, engine: Engine) -> None:
    """It need not wait at all."""
    left_by_the_old_program(client, booking("c-1", video_url_list={"720P": "http://origin.example/720.flv"}))
    assert adopt(engine, client) == [
        "c-1: its booking has the URL of 6666_720P; the booking flow decides it at the start."
    ]
    assert messages(engine) == ["c-1"]


def test_class_whose_rendition_will_never_come_is_named_with_what_to_type(client: redis.Redis, engine: Engine) -> None:
    begun(engine, RenditionState.FAILED)
    client.rpush("6666_720P", "orphan")
    (said,) = adopt(engine, client)
    assert said.endswith(
        "but the rendition is failed, and no result will come. "
        "Answer the platform, then: redis-cli LREM 6666_720P 0 orphan"
    )


def test_an_old_transcoding_that_nobody_waits_for_gets_a_deadline(client: redis.Redis, file: Path) -> None:
    """The old program's rows have none; a booking that joins one would wait for ever."""
    old_databases.build(file, [OLD_TABLE])
    engine = open_database(f"sqlite:///{file}")
    with transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO video_list VALUES (1, '720P', 'transcoding'), (2, '720P', 'success')")
        connection.exec_driver_sql("INSERT INTO video_list VALUES (3, '720P', 'transcoding')")
    schema.upgrade(engine, "teacher")
    left_by_the_old_program(client, booking("c-3", record_id=3))
    assert adopt(engine, client) == [
        "1 class of the old waiting lists waits on here.",
        "1 old transcoding without a waiting class got a deadline.",
    ]
    found = {one.record_id: (one.deadline, one.source_url, one.attempt) for one in under_way(engine)}
    assert found == {1: (NOW + 120, "", 1), 3: (NOW + 120, "http://origin.example/6666.flv", 1)}
    assert adopt(engine, client, now=NOW + 5) == []
    engine.dispose()


@pytest.mark.live
def test_old_transcodings_get_a_deadline_however_many_there_are(client: redis.Redis, file: Path) -> None:
    """Whatever an old program never finished is still there; SQL takes no list of so many keys at once."""
    number = 20_000
    old_databases.build(file, [OLD_TABLE])
    engine = open_database(f"sqlite:///{file}")
    with transaction(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO video_list VALUES (?, '720P', 'transcoding')", [(one,) for one in range(1, number + 1)]
        )
    schema.upgrade(engine, "teacher")
    assert adopt(engine, client) == ["20,000 old transcodings without a waiting class got a deadline."]
    found = under_way(engine)
    assert (len(found), {one.deadline for one in found}) == (number, {NOW + 120})
    engine.dispose()


# -- what would be done ------------------------------------------------------------------------------------------------


def test_the_plan_says_what_will_be_done_and_changes_nothing(client: redis.Redis, engine: Engine, file: Path) -> None:
    """What the old program has placed itself is left alone."""
    begun(engine, RenditionState.TIMED_OUT, 7)
    left_by_the_old_program(client, booking("c-1"))
    left_by_the_old_program(client, booking("c-7", record_id=7))
    client.rpush("6666_720P", "orphan")
    for class_id in ("c-2", "c-3", "c-4"):
        client.set(f"class:{class_id}", booking(class_id).to_json())
    client.set("class:c-5", booking("c-5", start_time=NOW - 90, end_time=NOW - 30).to_json())
    client.set("class:c-6", "no booking")
    with transaction(engine) as connection:
        bookings.add(connection, [(booking("c-4"), BookingState.PLACED)], NOW)
    before = old_databases.dump(file)
    there = {name: client.dump(name) for name in client.scan_iter()}
    plan = planned(engine, client)
    assert plan.waiting == 1
    assert old_databases.dump(file) == before
    assert {name: client.dump(name) for name in client.scan_iter()} == there
    assert adopt(engine, client) == plan.said
    assert set(orders_of(engine, "c-1", "c-2", "c-3")) == {"c-1"}


def test_a_plan_can_be_made_before_database_is_upgraded_and_keys_are_renamed(client: redis.Redis, file: Path) -> None:
    old_databases.build(file, [OLD_TABLE])
    left_by_the_old_program(client, booking("c-1"), name="waiting:6666:720P")
    rules = [Rule.parse("x:{host}", "y:{host}"), Rule.parse("waiting:{record_id}:{resolution}", WAITING_KEY)]
    assert teacher.before(ORDER_KEY, rules) == ORDER_KEY
    engine = open_database(f"sqlite:///{file}")
    assert planned(engine, client, teacher.before(WAITING_KEY, rules)).waiting == 1
    assert planned(engine, client).waiting == 0
    engine.dispose()


@pytest.mark.parametrize(
    "patterns",
    [("{record_id}", ORDER_KEY), ("{record_id}_{resolution}_{class_id}", None), (WAITING_KEY, "class:{record_id}")],
)
def test_patterns_without_the_right_fields_are_refused(patterns: tuple[str, str | None]) -> None:
    with pytest.raises(Misuse, match=r"(waiting_key|order_key) .*: write it with"):
        teacher.OldKeyNames.parse(*patterns)


def test_a_redis_that_goes_away_leaves_the_database_as_it_was(engine: Engine, file: Path, tmp_path: Path) -> None:
    """The transaction is taken back, and the error says that nothing was adopted."""
    before = old_databases.dump(file)
    with redis_server(tmp_path) as client:
        left_by_the_old_program(client, booking("c-1"))
        port = client.connection_pool.connection_kwargs["port"]
    with opened(f"redis://127.0.0.1:{port}/0") as gone, pytest.raises(TryAgain, match="Nothing was adopted"):
        adopt(engine, gone)
    assert old_databases.dump(file) == before


# -- and then ----------------------------------------------------------------------------------------------------------


@pytest.mark.live
def test_what_was_adopted_is_answered_by_the_new_program(town: Town, tmp_path: Path) -> None:
    """By the result that the old program asked for, or at the deadline; those without a booking with 211."""
    with staged(town, tmp_path) as stage:
        stage.up("streamer1")
        assert stage.lectern("teacher", "init", "teacher").returncode == 0
        done, never = town.record(), town.record()
        key, prefix = str(stage.settings["WAITING_KEY"]), stage.prefix
        engine = open_database(f"sqlite:///{stage.database('teacher')}")
        for record, class_id, time_out_s in ((done, "aired", 600.0), (never, "late", 5.0)):
            one = stage.booking(record, "720P", class_id=f"{prefix}-{class_id}")
            name = key.format(record_id=record, resolution="720P")
            town.redis.rpush(name, one["class_id"], f"{prefix}-orphan-of-{class_id}")
            town.redis.set(f"{prefix}:class:{one['class_id']}", json.dumps(one))
            with opened(town.redis_url) as client, transaction(engine) as connection:
                names = OldKeyNames.parse(key, f"{prefix}:class:{{class_id}}")
                OldLists(connection, client, names, time.time()).adopt(stage.name("teacher"), time_out_s)
        engine.dispose()
        stage.up("teacher")
        result = {"record_id": done, "video_resolution": "720P", "result": "sucess", "type": "oss"}
        url = town.origin.url_for(f"{done}/{done}.flv")
        stage.publish("transcoding", {"cmd": "transcoding", **result, "transcode_video_url": url})
        assert stage.answer(f"{prefix}-aired")["result"] == "success"
        assert stage.answer(f"{prefix}-orphan-of-aired")["code"] == 211
        assert stage.answer(f"{prefix}-late", timeout_s=90)["code"] == 207
        assert stage.answer(f"{prefix}-orphan-of-late")["code"] == 211
        drained = lambda: not town.redis.exists(key.format(record_id=never, resolution="720P"))  # noqa: E731
        wait_until(drained, description="the drained list is gone")
