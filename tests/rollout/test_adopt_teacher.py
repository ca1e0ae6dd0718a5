"""What the old program left waiting is honoured: classes wait on here, and nothing waits for ever."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from lectern.db import bookings, events, inbox, schema, transcodings
from lectern.db.engine import open_database, transaction
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.model.facts import Attempt, Order
from lectern.model.tables.teacher import RenditionRow
from lectern.redis.rename import Rule, in_words, opened
from lectern.rollout import redis_keys
from lectern.rollout.takeover import teacher
from lectern.rollout.takeover.teacher import ADOPTED, OldLists
from lectern.states import Backend, BookingState, RenditionState, Resolution
from lectern.wire.messages import Booking
from lectern.wire.parser import parse
from tests import laid
from tests.effects import old_databases
from tests.effects.redis_servers import redis_server, url_of
from tests.rows import commit, ended_in
from tests.strategies import NOW, booking

P720 = Resolution.P720
WAITING_KEY, ORDER_KEY = "{record_id}_{resolution}", "class:{class_id}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "teacher.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    made = laid.opened("teacher", file)
    yield made
    made.dispose()


def keys(client: redis.Redis) -> dict[str, tuple[object, bool]]:
    """All keys with their values, and whether they end."""
    return {name.decode(errors="replace"): (client.dump(name), client.ttl(name) > 0) for name in client.scan_iter()}


def left_by_the_old_program(client: redis.Redis, one: Booking, *, name: str = "") -> None:
    """A class on its waiting list, and its booking."""
    client.rpush(name or one.stem, one.class_id)
    client.set(f"class:{one.class_id}", one.to_json())


def adopt(engine: Engine, client: redis.Redis, now: float = NOW, order_key: str | None = ORDER_KEY) -> list[str]:
    with in_words(lambda: "Nothing was adopted."):
        lists = OldLists(client, WAITING_KEY, order_key, now)
        with transaction(engine) as connection:
            return lists.adopt(connection, "teacher1", 120)


def planned(engine: Engine, client: redis.Redis, waiting_key: str = WAITING_KEY) -> tuple[list[str], int]:
    """What would be said, and how many classes would wait on."""
    lists = OldLists(client, waiting_key, ORDER_KEY, NOW)
    with engine.connect() as connection:
        return lists.planned(connection), lists.waiting


def orders_of(engine: Engine, *class_ids: str) -> dict[str, Order]:
    return commit(engine, bookings.by_id, class_ids)


def under_way(engine: Engine) -> list[RenditionRow]:
    return commit(engine, transcodings.under_way)


def begun(engine: Engine, state: RenditionState, record_id: int = 6666) -> None:
    """A rendition that this program has begun already, and brought to *state*."""
    attempt = Attempt(record_id, P720, 3, 1, NOW - 50, Backend.OSS, NOW + 70, "http://origin.example/first.flv")
    with transaction(engine) as connection:
        transcodings.begin(connection, [attempt], NOW - 50, requested_at=NOW - 50)
        if state is not RenditionState.TRANSCODING:
            ended_in(connection, (record_id, P720), state, NOW - 40, deadline=None)


def messages(engine: Engine) -> list[str]:
    """The class_ids of the bookings in the inbox."""
    kept = commit(engine, inbox.claim, ["order"], limit=500, lease_s=0, now=NOW + 1)
    return [parse(one.body, (Booking,)).class_id for one in kept if one.command == "order"]


def test_a_class_waits_on_as_if_it_had_just_been_booked(client: redis.Redis, engine: Engine, file: Path) -> None:
    """Its row is the one that the booking flow makes of the same booking, and the story says where it is from.

    Its rendition is not asked for again; past the deadline the sweeper finds it, and the fallback knows its source.
    """
    one = booking("c-1", x_room="unknown fields are kept")
    left_by_the_old_program(client, one)
    assert adopt(engine, client) == ["1 class of the old waiting lists waits on here."]
    with transaction(engine) as connection:
        (noted,) = events.of_thing(connection, class_id="c-1", stems=[])
        assert transcodings.forgotten_requests(connection, NOW + 1000, NOW + 1000) == []
        assert transcodings.overdue(connection, NOW + 119) == []
        (due,) = transcodings.overdue(connection, NOW + 120)
        assert [one.class_id for one in bookings.waiting_for(connection, *due.key)] == ["c-1"]
        twin = booking("c-2", x_room="unknown fields are kept")
        bookings.add(connection, [(twin, BookingState.WAITING)], NOW)
    adopted, ours = ([*map(repr, row)] for row in old_databases.dump(file)["order_list"])
    assert [value for value in adopted if "c-1" not in value] == [value for value in ours if "c-2" not in value]
    assert orders_of(engine, "c-1")["c-1"].payload == one.to_json()
    assert (noted.what, noted.host, noted.stem) == (ADOPTED, "teacher1", "6666_720P")
    found = due.key, due.attempt, due.backend, due.source_url, due.url, due.deadline
    assert found == ((6666, P720), 1, Backend.OSS, "http://origin.example/6666.flv", None, NOW + 120)


def test_a_booking_may_be_a_hash_and_may_have_no_cmd(client: redis.Redis, engine: Engine) -> None:
    hashed = booking("c-1", video_url_list={"480P": "http://origin.example/480.flv"}, x_room="8")
    bare = booking("c-2").model_dump(mode="json", exclude={"cmd"}, exclude_none=True)
    fields = hashed.model_dump(mode="json", exclude={"cmd"}, exclude_none=True)
    client.rpush("6666_720P", "c-1", "c-2")
    for name, value in fields.items():
        client.hset("class:c-1", name, value if isinstance(value, str) else json.dumps(value))
    client.set("class:c-2", json.dumps(bare))
    adopt(engine, client)
    found = orders_of(engine, "c-1", "c-2")
    assert parse(found["c-1"].payload, (Booking,)) == hashed
    assert found["c-2"].payload == booking("c-2").to_json()


def test_neither_the_plan_nor_a_second_call_changes_anything(client: redis.Redis, engine: Engine, file: Path) -> None:
    """Neither the database nor Redis, whatever becomes of each class; one that is known here is not touched at all.

    The plan says what is done then; what the old program has placed itself is left alone.
    """
    client.set("class:placed", booking("placed").to_json())
    left_by_the_old_program(client, booking("c-8", record_id=8))
    commit(engine, bookings.add, [(booking("c-8"), BookingState.PLACED)], NOW - 9)
    ours = orders_of(engine, "c-8")
    for record_id, state in enumerate(RenditionState, start=1):
        begun(engine, state, record_id)
    for record_id in range(6):
        left_by_the_old_program(client, booking(f"c-{record_id}", record_id=record_id))
        client.rpush(f"{record_id}_720P", f"orphan-{record_id}", b"\xff")
    there, before = keys(client), old_databases.dump(file)
    plan, _ = planned(engine, client)
    assert (keys(client), old_databases.dump(file)) == (there, before)
    assert adopt(engine, client) == plan != []
    assert orders_of(engine, "c-8", "placed") == ours
    assert 8 not in {one.record_id for one in under_way(engine)}
    there, before = keys(client), old_databases.dump(file)
    said = adopt(engine, client, now=NOW + 60)
    assert (keys(client), old_databases.dump(file)) == (there, before)
    assert all(any(word in sentence for word in ("orphan", "xff", "more like these")) for sentence in said)


def test_lists_of_any_length_are_gone_through_in_slices(
    client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every class of every list is adopted once, also one that is on its list twice.

    Each rendition is begun once for all of its list, with the source that a later class has.
    """
    monkeypatch.setattr(redis_keys, "SLICE", 3)
    client.rpush("1_720P", *(f"orphan-{at}" for at in range(4)))
    wanted = {f"c-{record_id}-{at}" for record_id in range(8) for at in range(record_id)}
    for class_id in sorted(wanted):
        left_by_the_old_program(client, booking(class_id, record_id=int(class_id.split("-")[1])))
    client.rpush("7_720P", "c-7-0", "c-7-6")
    assert planned(engine, client)[1] >= len(wanted)
    assert adopt(engine, client)[4:] == [f"{len(wanted)} classes of the old waiting lists wait on here."]
    states = {id_: one.state for id_, one in orders_of(engine, *wanted).items()}
    assert states == dict.fromkeys(wanted, BookingState.WAITING)
    begun = {one.record_id: (one.attempt, one.source_url) for one in under_way(engine)}
    assert begun == dict.fromkeys(range(1, 8), (1, "http://origin.example/6666.flv"))


# -- classes without a booking to rely on ------------------------------------------------------------------------------

LACKING: dict[str, tuple[str | None, str]] = {
    "missing": (None, "there is no class:c-1"),
    "no json": ("{", "class:c-1 is no booking: "),
    "an array": ("[]", "class:c-1 is no booking: the message is a JSON list"),
    "no push_url": (json.dumps({"class_id": "c-1"}), "push_url: Field required"),
    "too long": ("x" * 70_000, "class:c-1 is no booking: the message is longer than 65536 bytes"),
    "too deep": ("[" * 60_000, "class:c-1 is no booking: "),
    "of another class": (booking("c-2").to_json(), "class:c-1 is the booking of c-2"),
    "of another rendition": (booking("c-1", video_resolution="480P").to_json(), "its booking is for 6666_480P"),
    "of the old kind": (booking("c-1", video_resolution=None).to_json(), "its booking is for 6666"),
    "over": (booking("c-1", start_time=NOW - 90, end_time=NOW - 30).to_json(), "it ended 30 s ago"),
}


@pytest.mark.parametrize("kind", LACKING)
def test_class_without_booking_stays_on_its_list_and_is_named(client: redis.Redis, engine: Engine, kind: str) -> None:
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


def test_keys_that_only_look_like_waiting_lists_are_named_and_left_alone(
    client: redis.Redis, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many that a person reads them, and how many more there are."""
    assert teacher.NAMED <= 20
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
    monkeypatch.setattr(teacher, "NAMED", 1)
    assert adopt(engine, client)[1:] == ["... and 2 more like these."]


def test_who_may_not_read_a_waiting_list_is_told_so_and_adopts_nothing(client: redis.Redis, engine: Engine) -> None:
    """Redis says which command its user may not use."""
    left_by_the_old_program(client, booking("c-1"))
    client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-lrange"])
    try:
        with (
            redis.Redis.from_url(url_of(client).replace("redis://", "redis://blind:any@")) as blind,
            pytest.raises(CallAPerson, match="lrange"),
        ):
            adopt(engine, blind)
    finally:
        client.acl_deluser("blind")
    assert adopt(engine, client) == ["1 class of the old waiting lists waits on here."]


# Renditions that an old teacher had asked for: what is known of them counts, and nothing waits for ever.


@pytest.mark.parametrize("state", RenditionState)
def test_what_is_known_of_the_rendition_counts(client: redis.Redis, engine: Engine, state: RenditionState) -> None:
    """Under way: the class waits on, and the deadline stays. Settled: the booking flow decides by its table, once.

    If it will never come, who lacks a booking is named with what to type. A booking that has the URL need not wait.
    """
    begun(engine, state)
    left_by_the_old_program(client, booking("c-1"))
    before = commit(engine, transcodings.states, [(6666, P720)])
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
        assert [one.what for one in events.of_thing(connection, class_id="c-1", stems=[])] == [ADOPTED]
    client.rpush("6666_720P", "orphan")
    (told,) = adopt(engine, client)
    why = f"but the rendition is {state}, and no result will come. Answer the platform, then: "
    assert told.endswith(f"{why}redis-cli LREM 6666_720P 0 orphan") == (state is not RenditionState.TRANSCODING)
    left_by_the_old_program(client, booking("c-2", video_url_list={"720P": "http://origin.example/720.flv"}))
    decided = "c-2: its booking has the URL of 6666_720P; the booking flow decides it at the start."
    assert decided in adopt(engine, client)
    assert messages(engine)[-1] == "c-2"


def test_old_transcodings_get_a_deadline_however_many_there_are(client: redis.Redis, file: Path) -> None:
    """The old program's rows have none; a booking that joins one would wait for ever.

    Whatever an old program never finished is still there; SQL takes no list of so many keys at once.
    """
    rows = ", ".join(f"({record_id}, '720P', 'transcoding')" for record_id in range(1, 20_001))
    settled = "(20001, '720P', 'success')"
    old_databases.build(file, [old_databases.OLD_TEACHER, f"INSERT INTO video_list VALUES {rows}, {settled}"])
    engine = open_database(f"sqlite:///{file}")
    schema.upgrade(engine, "teacher")
    left_by_the_old_program(client, booking("c-3", record_id=3))
    assert adopt(engine, client) == [
        "1 class of the old waiting lists waits on here.",
        "19,999 old transcodings without a waiting class got a deadline.",
    ]
    found = {one.record_id: (one.deadline, one.source_url, one.attempt) for one in under_way(engine)}
    wanted = dict.fromkeys(range(1, 20_001), (NOW + 120, "", 1))
    assert found == wanted | {3: (NOW + 120, "http://origin.example/6666.flv", 1)}
    assert adopt(engine, client, now=NOW + 5) == []
    engine.dispose()


def test_a_plan_can_be_made_before_database_is_upgraded_and_keys_are_renamed(client: redis.Redis, file: Path) -> None:
    old_databases.build(file, [old_databases.OLD_TEACHER])
    left_by_the_old_program(client, booking("c-1"), name="waiting:6666:720P")
    rules = [Rule.parse("x:{host}", "y:{host}"), Rule.parse("waiting:{record_id}:{resolution}", WAITING_KEY)]
    assert teacher.before(ORDER_KEY, rules) == ORDER_KEY
    engine = open_database(f"sqlite:///{file}")
    assert planned(engine, client, teacher.before(WAITING_KEY, rules))[1] == 1
    assert planned(engine, client)[1] == 0
    engine.dispose()


@pytest.mark.parametrize(
    "patterns",
    [("{record_id}", ORDER_KEY), ("{record_id}_{resolution}_{class_id}", None), (WAITING_KEY, "class:{record_id}")],
)
def test_patterns_without_the_right_fields_are_refused(client: redis.Redis, patterns: tuple[str, str | None]) -> None:
    with pytest.raises(Misuse, match=r"(waiting_key|order_key) .*: write it with"):
        OldLists(client, *patterns, NOW)


def test_a_redis_that_goes_away_leaves_the_database_as_it_was(engine: Engine, file: Path, tmp_path: Path) -> None:
    """The transaction is taken back, and the error says that nothing was adopted."""
    before = old_databases.dump(file)
    with redis_server(tmp_path) as client:
        left_by_the_old_program(client, booking("c-1"))
        port = client.connection_pool.connection_kwargs["port"]
    with opened(f"redis://127.0.0.1:{port}/0") as gone, pytest.raises(TryAgain, match="Nothing was adopted"):
        adopt(engine, gone)
    assert old_databases.dump(file) == before
