"""Teachers that share their rows: what each has claimed is its own until it is done, over, or its owner dead."""

import random
from collections import Counter

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, select

from lectern.db import inbox, leases, outbox, transcodings
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.model.facts import Attempt
from lectern.model.tables.teacher import journal
from lectern.states import Backend, Resolution
from lectern.wire.outgoing import OrderResult, Outgoing, OutgoingKind
from tests.marks import share
from tests.rows import commit, look

NOW = 1_764_010_800.0
SWEEPING, PRUNING = "sweep", "prune"


def answers(engine: Engine, *class_ids: str, target: str = "order_result") -> None:
    made = [OrderResult(class_id=one, result="success", code=0, message="") for one in class_ids]
    commit(engine, outbox.put, [Outgoing(target, OutgoingKind.CHANNEL, one) for one in made], NOW)


def claimed(engine: Engine, me: str, now: float = NOW) -> list[int]:
    return [one.id for one in commit(engine, outbox.claim, me, limit=100, now=now)]


def test_what_one_sends_no_other_sends_nor_what_is_behind_it_until_its_time_is_over(either_engine: Engine) -> None:
    """Two that sent to one channel at the same time could tell of a class in the wrong order.

    What could not be sent is anybody's at once.
    """
    answers(either_engine, "c-1", "c-2")
    assert claimed(either_engine, "a") == [1, 2]
    answers(either_engine, "c-3")
    answers(either_engine, "c-4", target="alarm")
    assert claimed(either_engine, "b") == [4]
    commit(either_engine, outbox.sent, [1, 2, 4], NOW)
    assert claimed(either_engine, "b") == [3]
    commit(either_engine, outbox.unclaim, "a", [3])
    assert claimed(either_engine, "c") == [], "it is b's, which sends it just now"
    commit(either_engine, outbox.unclaim, "b", [3])
    assert claimed(either_engine, "a") == [3]
    assert claimed(either_engine, "c", NOW + outbox.SENDING_S - 1) == []
    assert claimed(either_engine, "c", NOW + outbox.SENDING_S) == [3]


def test_what_a_dead_one_had_claimed_is_anybodys_and_what_the_living_have_is_not(either_engine: Engine) -> None:
    answers(either_engine, "c-1")
    claimed(either_engine, "a")
    with transaction(either_engine) as connection:
        inbox.keep(connection, [ReceivedMessage("stream:order", "order", "{}") for _ in range(3)], NOW)
        for me, limit in (("a", 1), ("b", 1)):
            inbox.claim(connection, ["order"], limit=limit, lease_s=60, now=NOW, owner=me)
        assert leases.take_duty(connection, SWEEPING, "a", 60, NOW)
        assert leases.claiming_teachers(connection) == {"a", "b"}
        assert leases.free_claims(connection, "a", "b") == 2
        assert leases.claiming_teachers(connection) == {"b"}
        free = inbox.claim(connection, ["order"], limit=9, lease_s=60, now=NOW, owner="b")
        assert [one.id for one in free] == [1, 3]
        assert leases.take_duty(connection, SWEEPING, "b", 60, NOW)
    assert claimed(either_engine, "b") == [1]


def test_what_a_dead_one_was_to_ask_the_oss_for_another_asks_for_at_once(either_engine: Engine) -> None:
    """Once: whoever only stood still finds that it is no longer its own."""
    keys = [(1, Resolution.P720), (2, Resolution.P720), (3, Resolution.P720)]
    with transaction(either_engine) as connection:
        url = "http://origin.example/1.flv"
        transcodings.begin(connection, [Attempt(*key, 1, 1, NOW, Backend.OSS, NOW + 120, url) for key in keys], NOW)
        due = sorted(transcodings.open_requests(connection, keys, "", NOW), key=lambda row: row.key)
        for row, name in zip(due, ("a", "a_b", "b"), strict=True):
            assert transcodings.take_request(connection, row, transcodings.request_owner(name, "run"), 60, NOW)
        assert leases.claiming_teachers(connection) == {"a", "a_b", "b"}
        assert leases.free_claims(connection, "a", "b") == 1
        assert leases.claiming_teachers(connection) == {"a_b", "b"}
        assert [row.key for row in transcodings.open_requests(connection, keys, "b/next", NOW)] == [keys[0]]
        assert transcodings.take_request(connection, due[0], "b/next", 60, NOW)
        assert not transcodings.take_request(connection, due[0], transcodings.request_owner("a", "run"), 60, NOW)


def test_a_duty_is_one_teachers_until_it_is_over_and_each_knows_the_others(
    either_engine: Engine,
) -> None:
    with transaction(either_engine) as connection:
        asked = [(SWEEPING, "a", 0), (SWEEPING, "a", 1), (SWEEPING, "b", 60), (PRUNING, "b", 0), (SWEEPING, "b", 61)]
        found = [leases.take_duty(connection, duty, me, 60, NOW + at) for duty, me, at in [*asked, (SWEEPING, "a", 62)]]
        assert found == [True, True, False, True, True, False]
        leases.note_teacher(connection, "a", NOW)
        assert leases.noted_teachers(connection, "a") == {}
        leases.note_teacher(connection, "b", NOW + 1)
        assert leases.noted_teachers(connection, "b") == {"a": NOW}
        leases.note_teacher(connection, "a", NOW + 9)
        assert leases.noted_teachers(connection, "a") == {"b": NOW + 1}


# What several teachers hear is as many rows as messages were sent, whoever hears what, when, and in which order.


BODIES = ("order 1", "order 2", "order 3")


def said(*bodies: str, at: float = NOW, since: float | None = None) -> list[ReceivedMessage]:
    return [ReceivedMessage("channel:order", "order", body, at=at, since=since) for body in bodies]


def read(id_: str, body: str) -> ReceivedMessage:
    return ReceivedMessage("stream:order", "order", body, entry=id_)


def keep(engine: Engine, me: str, arrived: list[ReceivedMessage], now: float = NOW) -> int:
    """Returns how many of *arrived* were new."""
    return len(commit(engine, inbox.keep_paired, arrived, me, now))


def rows(engine: Engine) -> list[str]:
    return list(look(engine, Connection.execute, select(journal.inbox.c.body).order_by(journal.inbox.c.id)).scalars())


def test_what_is_heard_at_the_same_time_pairs_and_what_comes_later_was_sent_again(either_engine: Engine) -> None:
    """Who was cut off from the database writes a minute later what it heard at that time.

    No name is a part of another: one may hold what is a wildcard to SQL. A whole batch pairs.
    """
    many = [f"order {one}" for one in range(5000)]
    assert keep(either_engine, "t_1", said(*many)) == len(many)
    assert keep(either_engine, "tx1", said(*reversed(many)), now=NOW + 60) == 0
    assert keep(either_engine, "t_1", said("order 1")) == 1
    assert keep(either_engine, "c", said("order 1", at=NOW + 31), now=NOW + 61) == 1


def test_who_stood_still_pairs_what_was_sent_meanwhile_however_late_it_reads_it(either_engine: Engine) -> None:
    """The others have answered it long ago: a second row would be a second answer."""
    keep(either_engine, "a", said("order 1"))
    keep(either_engine, "a", said("order 2", at=NOW + 500))
    late = NOW + 600
    heard = said("order 1", "order 2", at=late, since=NOW - 5) + said("order 3", at=late)
    assert keep(either_engine, "b", heard, now=late) == 1
    assert keep(either_engine, "b", said("order 2", at=late + 1, since=late), now=late + 1) == 1


def test_a_batch_is_added_once_though_nobody_heard_of_its_commit(either_engine: Engine) -> None:
    """The database was cut off while it committed: the batch is tried again, and is no second hearing."""
    keep(either_engine, "b", said("order 1"))
    for _ in range(2):
        commit(either_engine, inbox.keep_paired, said("order 1", "order 2", at=NOW + 1), "a", NOW + 60, "first")
    assert rows(either_engine) == ["order 1", "order 2"]
    commit(either_engine, inbox.keep_paired, said("order 1", "order 2", at=NOW + 1), "a", NOW + 60, "second")
    assert rows(either_engine) == ["order 1", "order 2"] * 2


def test_an_entry_of_a_stream_that_is_read_again_is_one_row(either_engine: Engine) -> None:
    """Its first reader was stopped between its commit and its acknowledgement."""
    assert keep(either_engine, "a", [read("1-0", "order 1"), read("2-0", "order 1")]) == 2
    again = [read(f"{number}-0", "order 1") for number in (1, 2, 3)]
    assert keep(either_engine, "b", again, NOW + inbox.AGAIN_S - 1) == 1
    assert len(rows(either_engine)) == 3


@settings(max_examples=share(0.2), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.sampled_from(BODIES), max_size=6), min_size=1, max_size=4), st.randoms(use_true_random=False)
)
@example([["order 1", "order 2", "order 3", "order 3"], ["order 3", "order 2", "order 1", "order 3"]], random.Random(1))
def test_there_are_as_many_rows_of_a_message_as_the_best_ear_heard(
    either_engine: Engine, heard: list[list[str]], chance: random.Random
) -> None:
    """What the platform sends twice is two rows, whatever each hears and misses, and in whatever order it writes."""
    commit(either_engine, Connection.execute, delete(journal.inbox))
    waiting = {f"teacher{number}": list(bodies) for number, bodies in enumerate(heard)}
    while any(waiting.values()):
        me = chance.choice([name for name, bodies in waiting.items() if bodies])
        number = chance.randint(1, len(waiting[me]))
        keep(either_engine, me, said(*waiting[me][:number]))
        del waiting[me][:number]
    best = {body: max(bodies.count(body) for bodies in heard) for body in BODIES}
    assert Counter(rows(either_engine)) == Counter(best)
