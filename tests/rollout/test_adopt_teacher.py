"""What the old program left waiting is honoured: classes wait on here, and nothing waits for ever."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from lectern.effects import bookings, events, inbox, renditions, schema
from lectern.effects.rekey import Rule, opened
from lectern.effects.tables.engine import open_database, transaction
from lectern.effects.tables.teacher import journal
from lectern.errors import Misuse, TryAgain
from lectern.facts import Attempt
from lectern.messages import Booking, parse
from lectern.rollout import adopt_teacher, old_waiting
from lectern.rollout.adopt_teacher import ADOPTED, Adoption
from lectern.states import Backend, BookingState, RenditionState, Resolution
from tests.effects import old_databases
from tests.effects.redis_servers import redis_server
from tests.stage import Town, staged, wait_until
from tests.strategies import NOW, booking

P720 = Resolution.P720
OLD_TABLE = "CREATE TABLE video_list (record_id INTEGER, resolution varchar(10), status varchar(20))"
WAITING_KEY, ORDER_KEY = "{record_id}_{resolution}", "class:{class_id}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with redis_server(tmp_path_factory.mktemp("redis")) as client:
        yield client


@pytest.fixture
def client(server: redis.Redis) -> redis.Redis:
    server.flushall()
    return server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "teacher.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{file}")
    schema.upgrade(made, "teacher")
    yield made
    made.dispose()


def left_by_the_old_program(client: redis.Redis, one: Booking, *, name: str = "") -> None:
    """A class on its waiting list, and its booking."""
    client.rpush(name or one.stem, one.class_id)
    client.set(f"class:{one.class_id}", one.to_json())


def adopt(engine: Engine, client: redis.Redis, now: float = NOW, order_key: str | None = ORDER_KEY) -> list[str]:
    with transaction(engine) as connection:
        return adopt_teacher.adopt(
            connection,
            client,
            waiting_key=WAITING_KEY,
            order_key=order_key,
            host="teacher1",
            transcoding_time_out_s=120,
            now=now,
        )


def planned(engine: Engine, client: redis.Redis, waiting_key: str = WAITING_KEY) -> Adoption:
    with engine.connect() as connection:
        return adopt_teacher.planned(connection, client, waiting_key=waiting_key, order_key=ORDER_KEY, now=NOW)


def orders_of(engine: Engine, *class_ids: str) -> dict[str, bookings.Order]:
    with transaction(engine) as connection:
        return bookings.by_id(connection, class_ids)


def under_way(engine: Engine) -> list[renditions.Due]:
    with transaction(engine) as connection:
        return renditions.under_way(connection)


def begun(engine: Engine, state: RenditionState, record_id: int = 6666) -> None:
    """A rendition that this program has begun already, and brought to *state*."""
    attempt = Attempt(record_id, P720, 3, 1, NOW - 50, Backend.OSS, NOW + 70, "http://origin.example/first.flv")
    with transaction(engine) as connection:
        renditions.begin(connection, [attempt], NOW - 50)
        renditions.requested(connection, (record_id, P720), NOW - 50)
        if state is not RenditionState.TRANSCODING:
            renditions.move(connection, (record_id, P720), RenditionState.TRANSCODING, state, NOW - 40, deadline=None)


def messages(engine: Engine) -> list[str]:
    """The class_ids of the bookings in the inbox."""
    with transaction(engine) as connection:
        kept = inbox.claim(connection, journal, limit=500, lease_s=0, now=NOW + 1)
    return [parse(one.body, (Booking,)).class_id for one in kept if one.command == "order"]


# -- classes that wait on ----------------------------------------------------------------------------------------------


def test_a_class_waits_on_as_if_it_had_just_been_booked(client: redis.Redis, engine: Engine, file: Path) -> None:
    """Its row is the one that the booking flow makes of the same booking, and the story says where it is from."""
    one = booking("c-1", x_room="unknown fields are kept")
    left_by_the_old_program(client, one)
    assert adopt(engine, client) == ["1 class of the old waiting lists wait on here."]
    with transaction(engine) as connection:
        twin = booking("c-2", x_room="unknown fields are kept")
        bookings.add(connection, [(twin, BookingState.RECEIVED)], NOW)
        bookings.close(connection, bookings.by_id(connection, ["c-2"])["c-2"], BookingState.WAITING, NOW)
        (noted,) = events.of_thing(connection, journal, class_id="c-1", stems=[])
    adopted, ours = (row for row in old_databases.dump(file)["order_list"])
    assert [value for value in map(repr, adopted) if "c-1" not in value] == [
        value for value in map(repr, ours) if "c-2" not in value
    ]
    assert orders_of(engine, "c-1")["c-1"].payload == one.to_json()
    assert (noted.what, noted.host, noted.stem) == (ADOPTED, "teacher1", "6666_720P")


def test_its_rendition_is_under_way_and_has_a_deadline(client: redis.Redis, engine: Engine) -> None:
    """It is not asked for again; past the deadline the sweeper finds it, and the fallback knows its source."""
    left_by_the_old_program(client, booking("c-1"))
    adopt(engine, client)
    with transaction(engine) as connection:
        assert renditions.unrequested(connection, NOW + 1000) == []
        assert renditions.overdue(connection, NOW + 119) == []
        (due,) = renditions.overdue(connection, NOW + 120)
        assert [one.class_id for one in bookings.waiting_for(connection, *due.key)] == ["c-1"]
    assert due == renditions.Due(6666, P720, 1, Backend.OSS, "http://origin.example/6666.flv", None, NOW + 120)


def as_hash(one: Booking) -> dict[str, str]:
    fields = one.model_dump(mode="json", exclude_none=True)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


def test_a_booking_may_be_a_hash_and_may_have_no_cmd(client: redis.Redis, engine: Engine) -> None:
    hashed = booking("c-1", video_url_list={"480P": "http://origin.example/480.flv"}, x_room="8")
    bare = {name: value for name, value in json.loads(booking("c-2").to_json()).items() if name != "cmd"}
    client.rpush("6666_720P", "c-1", "c-2")
    client.hset("class:c-1", mapping={name: value for name, value in as_hash(hashed).items() if name != "cmd"})
    client.set("class:c-2", json.dumps(bare))
    adopt(engine, client)
    found = orders_of(engine, "c-1", "c-2")
    assert parse(found["c-1"].payload, (Booking,)) == hashed
    assert found["c-2"].payload == booking("c-2").to_json()


def test_a_second_call_changes_nothing(client: redis.Redis, engine: Engine, file: Path) -> None:
    """Neither the database nor Redis, whatever became of each class."""
    for record_id, state in enumerate(RenditionState, start=1):
        begun(engine, state, record_id)
    for record_id in range(6):
        left_by_the_old_program(client, booking(f"c-{record_id}", record_id=record_id))
        client.rpush(f"{record_id}_720P", f"orphan-{record_id}", b"\xff")
    assert adopt(engine, client)
    there = {name: client.dump(name) for name in client.scan_iter()}
    before = old_databases.dump(file)
    said = adopt(engine, client, now=NOW + 60)
    assert old_databases.dump(file) == before
    assert {name: client.dump(name) for name in client.scan_iter()} == there
    assert all("orphan" in sentence or "xff" in sentence for sentence in said)


def test_lists_of_any_length_are_gone_through_in_slices(
    client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every class of every list is adopted once, also one that is on its list twice."""
    monkeypatch.setattr(old_waiting, "SLICE", 3)
    wanted = {f"c-{record_id}-{at}" for record_id in range(8) for at in range(record_id)}
    for class_id in sorted(wanted):
        left_by_the_old_program(client, booking(class_id, record_id=int(class_id.split("-")[1])))
    client.rpush("7_720P", "c-7-0", "c-7-6")
    assert planned(engine, client).waiting >= len(wanted)
    assert adopt(engine, client) == [f"{len(wanted)} classes of the old waiting lists wait on here."]
    assert {id_: one.state for id_, one in orders_of(engine, *wanted).items()} == dict.fromkeys(
        wanted, BookingState.WAITING
    )
    assert {one.record_id for one in under_way(engine)} == set(range(1, 8))


def test_a_class_that_is_known_here_is_not_touched(client: redis.Redis, engine: Engine) -> None:
    left_by_the_old_program(client, booking("c-1"))
    with transaction(engine) as connection:
        bookings.add(connection, [(booking("c-1"), BookingState.PLACED)], NOW - 9)
    before = orders_of(engine, "c-1")
    assert adopt(engine, client) == []
    assert orders_of(engine, "c-1") == before
    assert under_way(engine) == []


# -- classes without a booking to rely on ------------------------------------------------------------------------------

LACKING: dict[str, tuple[str | None, str]] = {
    "missing": (None, "there is no class:c-1"),
    "no json": ("{", "class:c-1 is no booking: "),
    "an array": ("[]", "class:c-1 is no booking: the message is a JSON list"),
    "no push_url": (json.dumps({"class_id": "c-1"}), "push_url: Field required"),
    "too long": ("x" * 70_000, "class:c-1 is no booking: the message has 65537 bytes"),
    "too deep": ("[" * 60_000, "class:c-1 is no booking: "),
    "of another class": (booking("c-2").to_json(), "class:c-1 is the booking of c-2"),
    "of another rendition": (booking("c-1", video_resolution="480P").to_json(), "its booking is for 6666_480P"),
    "of the old kind": (booking("c-1", video_resolution=None).to_json(), "its booking is for 6666"),
    "over": (booking("c-1", start_time=NOW - 90, end_time=NOW - 30).to_json(), "it ended 30 s ago"),
}


@pytest.mark.parametrize("kind", LACKING)
def test_a_class_without_a_booking_stays_on_its_list_and_is_named(
    client: redis.Redis, engine: Engine, kind: str
) -> None:
    """Its rendition is awaited, so that what comes of it is not unknown, and the class is answered then."""
    kept, why = LACKING[kind]
    client.rpush("6666_720P", "c-1")
    if kept is not None:
        client.set("class:c-1", kept)
    (said,) = adopt(engine, client)
    assert said.startswith("c-1 waits for 6666_720P, but ")
    assert why in said
    assert said.endswith("It stays on the list 6666_720P, and is answered with 211 when the result comes.")
    assert client.lrange("6666_720P", 0, -1) == [b"c-1"]
    assert orders_of(engine, "c-1") == {}
    (due,) = under_way(engine)
    assert (due.key, due.deadline) == ((6666, P720), NOW + 120)


def test_other_things_where_a_booking_should_be(client: redis.Redis, engine: Engine) -> None:
    """A list, a hash of anything, an entry that is no class_id, and no order_key at all."""
    client.rpush("6666_720P", "c-1", "c-2", b"\xff\n", "../etc")
    client.rpush("class:c-1", "c-1")
    client.hset("class:c-2", mapping={"record_id": b"\xff", "class_id": "c-2"})
    said = adopt(engine, client)
    assert [sentence.split(". It stays")[0] for sentence in said] == [
        "c-1 waits for 6666_720P, but class:c-1 is a list, no booking",
        "c-2 waits for 6666_720P, but class:c-2 is no booking: expected value at line 1 column 1",
        r"'\xff\n' waits for 6666_720P, but that is no class_id",
        "'../etc' waits for 6666_720P, but that is no class_id",
    ]
    assert all("no order_key says where" in one for one in adopt(engine, client, order_key=None))


def test_keys_that_only_look_like_waiting_lists_are_named_and_left_alone(client: redis.Redis, engine: Engine) -> None:
    client.set("1_720P", "text")
    client.rpush("0006666_720P", "c-1")
    client.rpush("9999999999999999999_720P", "c-2")
    client.rpush("6666_720P_", "c-3")
    assert sorted(adopt(engine, client)) == [
        "0006666_720P: 0006666 is not how a record_id is written; it is left alone.",
        "1_720P: it is a string, not a list; it is left alone.",
        "9999999999999999999_720P: 9999999999999999999 is not how a record_id is written; it is left alone.",
    ]
    assert under_way(engine) == []


def test_a_source_that_only_a_later_class_knows_is_kept(
    client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rendition is begun once for all of its list."""
    monkeypatch.setattr(old_waiting, "SLICE", 1)
    client.rpush("6666_720P", "orphan-1")
    left_by_the_old_program(client, booking("c-1"))
    client.rpush("6666_720P", "orphan-2")
    adopt(engine, client)
    (due,) = under_way(engine)
    assert (due.attempt, due.source_url) == (1, "http://origin.example/6666.flv")


def test_sentences_are_bounded(client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt_teacher, "NAMED", 2)
    client.rpush("6666_720P", *(f"orphan-{at}" for at in range(50)))
    said = adopt(engine, client)
    assert len(said) == 3
    assert said[-1] == "... and 48 more like these."


# -- renditions that are not under way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", RenditionState)
def test_what_is_known_of_the_rendition_counts(client: redis.Redis, engine: Engine, state: RenditionState) -> None:
    """Under way: the class waits on, and the deadline stays. Settled: the booking flow decides by its table, once."""
    begun(engine, state)
    left_by_the_old_program(client, booking("c-1"))
    with transaction(engine) as connection:
        before = renditions.states(connection, [(6666, P720)])
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
        assert renditions.states(connection, [(6666, P720)]) == before
        assert [one.what for one in events.of_thing(connection, journal, class_id="c-1", stems=[])] == [ADOPTED]


def test_a_booking_that_has_the_url_is_decided_by_the_flow(client: redis.Redis, engine: Engine) -> None:
    """It need not wait at all."""
    left_by_the_old_program(client, booking("c-1", video_url_list={"720P": "http://origin.example/720.flv"}))
    assert adopt(engine, client) == [
        "c-1: its booking has the URL of 6666_720P; the booking flow decides it at the start."
    ]
    assert messages(engine) == ["c-1"]


def test_a_class_whose_rendition_will_never_come_is_named_with_what_to_type(
    client: redis.Redis, engine: Engine
) -> None:
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
        "1 class of the old waiting lists wait on here.",
        "1 old transcoding without a waiting class got a deadline.",
    ]
    found = {one.record_id: (one.deadline, one.source_url, one.attempt) for one in under_way(engine)}
    assert found == {1: (NOW + 120, "", 1), 3: (NOW + 120, "http://origin.example/6666.flv", 1)}
    assert adopt(engine, client, now=NOW + 5) == []
    engine.dispose()


# -- what would be done ------------------------------------------------------------------------------------------------


def test_the_plan_says_what_will_be_done_and_changes_nothing(client: redis.Redis, engine: Engine, file: Path) -> None:
    """And counts what the old program has placed itself, which is left alone."""
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
    assert (plan.waiting, plan.decided, plan.left, plan.placed) == (1, 1, 1, 2)
    assert plan.refusals == []
    assert old_databases.dump(file) == before
    assert {name: client.dump(name) for name in client.scan_iter()} == there
    *same, placed = plan.said
    assert placed.startswith("2 bookings of the old program, not over yet and on no waiting list: placed already")
    assert adopt(engine, client) == same
    assert set(orders_of(engine, "c-1", "c-2", "c-3")) == {"c-1"}


def test_a_plan_can_be_made_before_the_database_is_upgraded_and_the_keys_are_renamed(
    client: redis.Redis, file: Path
) -> None:
    old_databases.build(file, [OLD_TABLE])
    left_by_the_old_program(client, booking("c-1"), name="waiting:6666:720P")
    rules = [Rule.parse("x:{host}", "y:{host}"), Rule.parse("waiting:{record_id}:{resolution}", WAITING_KEY)]
    assert adopt_teacher.before(ORDER_KEY, rules) == ORDER_KEY
    engine = open_database(f"sqlite:///{file}")
    assert planned(engine, client, adopt_teacher.before(WAITING_KEY, rules)).waiting == 1
    assert planned(engine, client).waiting == 0
    engine.dispose()


@pytest.mark.parametrize(
    "patterns",
    [("{record_id}", ORDER_KEY), ("{record_id}_{resolution}_{class_id}", None), (WAITING_KEY, "class:{record_id}")],
)
def test_patterns_without_the_right_fields_are_refused(patterns: tuple[str, str | None]) -> None:
    with pytest.raises(Misuse, match=r"(waiting_key|order_key) .*: write it with"):
        old_waiting.Names.parse(*patterns)


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


@pytest.mark.timeout(300)
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
                adopt_teacher.adopt(
                    connection,
                    client,
                    waiting_key=key,
                    order_key=f"{prefix}:class:{{class_id}}",
                    host=stage.name("teacher"),
                    transcoding_time_out_s=time_out_s,
                    now=time.time(),
                )
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
