"""Teachers that share their rows: what each has claimed is its own until it is done, over, or its owner dead."""

from sqlalchemy import Engine

from lectern.db import inbox, leases, outbox, transcodings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import journal
from lectern.states import Backend, Resolution
from lectern.wire.outgoing import OrderResult, Outgoing, OutgoingKind
from tests.rows import commit

NOW = 1_764_010_800.0
SWEEPING, PRUNING = "sweep", "prune"


def answers(engine: Engine, *class_ids: str, target: str = "order_result") -> None:
    made = [OrderResult(class_id=one, result="success", code=0, message="") for one in class_ids]
    commit(engine, outbox.put, journal, [Outgoing(target, OutgoingKind.CHANNEL, one) for one in made], NOW)


def claimed(engine: Engine, me: str, now: float = NOW) -> list[int]:
    return [one.id for one in commit(engine, outbox.claim, journal, me, limit=100, now=now)]


def test_what_one_sends_no_other_sends_nor_anything_behind_it(either_engine: Engine) -> None:
    """Two that sent to one channel at the same time could tell of a class in the wrong order."""
    answers(either_engine, "c-1", "c-2")
    assert claimed(either_engine, "a") == [1, 2]
    answers(either_engine, "c-3")
    answers(either_engine, "c-4", target="alarm")
    assert claimed(either_engine, "b") == [4]
    commit(either_engine, outbox.sent, journal, [1, 2, 4], NOW)
    assert claimed(either_engine, "b") == [3]


def test_what_was_not_sent_in_its_time_is_sent_by_another(either_engine: Engine) -> None:
    answers(either_engine, "c-1")
    assert claimed(either_engine, "a") == [1]
    assert claimed(either_engine, "b", NOW + outbox.SENDING_S - 1) == []
    assert claimed(either_engine, "b", NOW + outbox.SENDING_S) == [1]


def test_what_could_not_be_sent_is_anybodys_at_once(either_engine: Engine) -> None:
    answers(either_engine, "c-1")
    assert claimed(either_engine, "a") == [1]
    commit(either_engine, outbox.unclaim, journal, "a", [1])
    assert claimed(either_engine, "b") == [1]
    commit(either_engine, outbox.unclaim, journal, "a", [1])
    assert claimed(either_engine, "c") == [], "it is b's, which sends it just now"


def test_what_a_dead_one_had_claimed_is_anybodys_and_what_the_living_have_is_not(either_engine: Engine) -> None:
    answers(either_engine, "c-1")
    claimed(either_engine, "a")
    with transaction(either_engine) as connection:
        inbox.keep(connection, journal, [ReceivedMessage("stream:order", "order", "{}") for _ in range(3)], NOW)
        for me, limit in (("a", 1), ("b", 1)):
            inbox.claim(connection, journal, ["order"], limit=limit, lease_s=60, now=NOW, owner=me)
        assert leases.take_duty(connection, SWEEPING, "a", 60, NOW)
        assert leases.claiming_teachers(connection) == {"a", "b"}
        assert leases.free_claims(connection, "a", "b") == 2
        assert leases.claiming_teachers(connection) == {"b"}
        free = inbox.claim(connection, journal, ["order"], limit=9, lease_s=60, now=NOW, owner="b")
        assert [one.id for one in free] == [1, 3]
        assert leases.take_duty(connection, SWEEPING, "b", 60, NOW)
    assert claimed(either_engine, "b") == [1]


def test_what_a_dead_one_was_to_ask_the_oss_for_another_asks_for_at_once(either_engine: Engine) -> None:
    """Once: whoever only stood still finds that it is no longer its own."""
    keys = [(1, Resolution.P720), (2, Resolution.P720), (3, Resolution.P720)]
    with transaction(either_engine) as connection:
        url = "http://origin.example/1.flv"
        transcodings.begin(connection, [Attempt(*key, 1, 1, NOW, Backend.OSS, NOW + 120, url) for key in keys], NOW)
        for key, name in zip(keys, ("a", "a_b", "b"), strict=True):
            transcodings.take_requests(connection, [key], transcodings.request_owner(name, "run"), 60, NOW)
        assert leases.claiming_teachers(connection) == {"a", "a_b", "b"}
        assert leases.free_claims(connection, "a", "b") == 1
        assert leases.claiming_teachers(connection) == {"a_b", "b"}
        assert transcodings.take_requests(connection, keys, transcodings.request_owner("b", "next"), 60, NOW) == [
            (keys[0], 1)
        ]
        assert not transcodings.may_request(connection, keys[0], 1, transcodings.request_owner("a", "run"), NOW + 60)


def test_a_duty_is_one_teachers_until_it_is_over(either_engine: Engine) -> None:
    with transaction(either_engine) as connection:
        assert leases.take_duty(connection, SWEEPING, "a", 60, NOW)
        assert leases.take_duty(connection, SWEEPING, "a", 60, NOW + 1)
        assert not leases.take_duty(connection, SWEEPING, "b", 60, NOW + 60)
        assert leases.take_duty(connection, PRUNING, "b", 60, NOW)
        assert leases.take_duty(connection, SWEEPING, "b", 60, NOW + 61)
        assert not leases.take_duty(connection, SWEEPING, "a", 60, NOW + 62)


def test_each_knows_the_others_until_they_are_long_gone(either_engine: Engine) -> None:
    with transaction(either_engine) as connection:
        leases.note_teacher(connection, "a", NOW)
        assert leases.noted_teachers(connection, "a") == {}
        leases.note_teacher(connection, "b", NOW + 1)
        assert leases.noted_teachers(connection, "b") == {"a": NOW}
        leases.note_teacher(connection, "a", NOW + 9)
        assert leases.noted_teachers(connection, "a") == {"b": NOW + 1}
        leases.forget_teachers(connection, NOW + 5)
        assert leases.noted_teachers(connection, "a") == {}
