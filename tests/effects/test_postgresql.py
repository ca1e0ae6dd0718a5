"""A teacher's database on PostgreSQL: what its URL may be, what its sessions bear, and what its columns can hold."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import psycopg
import pytest
from sqlalchemy import Connection, Engine, make_url, select, text
from sqlalchemy.exc import OperationalError

from lectern.db import bookings, events, inbox, leases, outbox, schema
from lectern.db import engine as engine_module
from lectern.db.engine import WRITERS, looking, open_database, open_to_look, opened, reading, transaction
from lectern.db.inbox import ReceivedMessage
from lectern.db.writer import write
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.model.facts import AsRun, Event
from lectern.model.plan import Changes
from lectern.model.tables.teacher import journal, orders
from lectern.states import BookingState
from lectern.wire.fields import BACKUP, MAX_NAME
from lectern.wire.messages import Release
from lectern.wire.outgoing import Outgoing, OutgoingKind
from tests import strategies
from tests.rows import commit, look
from tests.stage.postgres import Databases
from tests.waiting import wait_until
from town.ports import free_port

pytestmark = pytest.mark.live

NOW = 1_764_010_800.0
LARGEST = 2**63 - 1


@pytest.fixture
def postgres_url(postgresql: Databases) -> str:
    return postgresql.fresh()


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    with opened(postgres_url) as found:
        schema.upgrade(found, "teacher")
        yield found


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of this test stand for processes: they do not wait for each other here, but in the database."""
    monkeypatch.setattr(engine_module, "_WRITING", nullcontext())


@pytest.mark.parametrize("form", ["postgres://", "postgresql://", "postgresql+psycopg://"])
def test_each_usual_spelling_of_the_url_opens(postgres_url: str, form: str) -> None:
    with opened(postgres_url.replace("postgresql://", form)) as engine:
        assert look(engine, Connection.execute, text("SELECT 1")).scalar_one() == 1


def test_of_several_servers_that_one_is_taken_which_may_write(postgres_url: str) -> None:
    """Whoever sees to it that a replica takes over names both, and needs no address that moves."""
    parsed = make_url(postgres_url)
    places = f"host={parsed.host}:{free_port()}&host={parsed.host}:{parsed.port}"
    url = f"postgresql://{parsed.username}@/{parsed.database}?{places}&target_session_attrs=read-write"
    with opened(url) as engine:
        assert look(engine, Connection.execute, text("SELECT current_database()")).scalar_one() == parsed.database


def test_what_the_server_refuses_is_said_in_words(postgres_url: str) -> None:
    with opened(f"{postgres_url}-is-not-there") as engine, pytest.raises(CallAPerson, match="does not exist"):
        schema.upgrade(engine, "teacher")


def test_a_second_migration_finds_nothing_to_do_and_the_plan_said_what_the_first_did(postgres_url: str) -> None:
    with opened(postgres_url) as engine:
        with pytest.raises(Misuse, match="lectern init"):
            schema.check(engine, "teacher")
        planned = schema.plan(engine, "teacher")
        assert schema.upgrade(engine, "teacher") == planned != []
        assert schema.upgrade(engine, "teacher") == []
        schema.check(engine, "teacher")


def test_a_migration_that_waits_for_another_writer_for_too_long_can_be_tried_again(postgres_url: str) -> None:
    """As with SQLite; another teacher may be migrating, or somebody stands still in a transaction."""
    url = f"{postgres_url}?options=-c%20statement_timeout%3D200"
    with opened(url) as engine, psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (WRITERS,))
        with pytest.raises(TryAgain, match=r"others write to it .* Run this again"):
            schema.upgrade(engine, "teacher")


def test_a_migration_of_a_large_table_has_no_bound(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is ended for a statement that takes a minute; the next release would never start."""
    slow = text("SELECT pg_sleep(2)")
    monkeypatch.setattr(schema, "_migrate", lambda connection, _role: list(connection.execute(slow))[1:])
    with opened(f"{postgres_url}?options=-c%20statement_timeout%3D1000") as engine:
        assert schema.upgrade(engine, "teacher") == []


def behind(url: str) -> None:
    """The database lacks what a newer release has added."""
    with psycopg.connect(url) as owner:
        owner.execute("ALTER TABLE order_list DROP COLUMN booked")
        owner.execute("DROP INDEX ix_order_list_revises")
        owner.execute("DELETE FROM alembic_version")


def test_a_plan_waits_for_nobody_at_work_and_a_migration_not_for_ever(
    postgres_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a table keeps all others waiting behind it: else for as long as a nightly backup reads."""
    behind(postgres_url)
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT", "200ms")
    with (
        opened(f"{postgres_url}?options=-c%20statement_timeout%3D5000") as newer,
        psycopg.connect(postgres_url) as other,
    ):
        other.execute("UPDATE order_list SET url = NULL")
        planned = schema.plan(newer, "teacher")
        assert planned == ["order_list: new column booked", "order_list: new index ix_order_list_revises on revises"]
        with pytest.raises(TryAgain, match="lock timeout"):
            schema.upgrade(newer, "teacher")
        other.rollback()
        assert schema.upgrade(newer, "teacher") == planned
    schema.check(engine, "teacher")


@pytest.mark.parametrize(
    "class_id", [f"{'c' * MAX_NAME}^9", f"{'c' * (MAX_NAME - len(BACKUP))}{BACKUP}^1"], ids=["class", "second airing"]
)
def test_the_longest_class_of_the_largest_record_can_be_changed(engine: Engine, class_id: str) -> None:
    """The id of its revision is longer than any on the wire; SQLite keeps it, too."""
    parts = [AsRun(1, 1, "recording", NOW, NOW + 1, 0.0, 1.0)]
    booking = strategies.booking("c-1", record_id=LARGEST).under(class_id)
    told = Outgoing("streamer1", OutgoingKind.STREAM, Release.model_construct(class_id=class_id), class_id)
    with transaction(engine) as connection:
        bookings.add(connection, [(booking, BookingState.PLACED)], NOW)
        outbox.put(connection, [told], NOW)
        events.note(connection, "teacher", [Event("placed", class_id)], NOW)
        changes = Changes(strategies.transcoders(), NOW)
        changes.await_cancel(class_id, "streamer1", NOW + 60)
        changes.take(class_id, "streamer1", 1, refused=False)
        write(connection, changes)
        events.keep_parts(connection, class_id, parts, "streamer1")
    assert look(engine, bookings.by_id, [class_id])[class_id].state is BookingState.PLACED
    assert look(engine, Connection.execute, select(orders.c.record_id)).scalar_one() == LARGEST


def test_who_looks_at_a_database_without_our_tables_is_told_what_to_type(postgres_url: str) -> None:
    engine = open_to_look(postgres_url, "teacher")
    said = "(?s)no teacher's database of this release .*lectern init"
    with pytest.raises(Misuse, match=said), looking(engine, "teacher") as connection:
        inbox.waiting(connection)
    engine.dispose()


def test_who_may_make_or_change_no_tables_is_not_told_of_a_file(postgres_url: str) -> None:
    """And hears of it from the plan, before anything is stopped."""
    with psycopg.connect(postgres_url) as owner:
        owner.execute("DROP ROLE IF EXISTS guest")
        owner.execute("CREATE ROLE guest LOGIN")
        owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    url = make_url(postgres_url).set(username="guest")
    with opened(str(url)) as guest, opened(postgres_url) as engine:
        with pytest.raises(Misuse, match="permission denied") as caught:
            schema.upgrade(guest, "teacher")
        assert "file" not in caught.value.message
        schema.upgrade(engine, "teacher")
        behind(postgres_url)
        with psycopg.connect(postgres_url) as owner:
            owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
        for attempt in (schema.plan, schema.upgrade):
            with pytest.raises(Misuse, match="must be owner"):
                attempt(guest, "teacher")
    with psycopg.connect(postgres_url) as owner:
        owner.execute("DROP OWNED BY guest")
    assert f"ALTER DATABASE {url.database} OWNER TO guest" in caught.value.message


@pytest.mark.usefixtures("processes")
def test_writers_that_wait_for_each_other_lose_no_step_and_none_fails(engine: Engine, postgres_url: str) -> None:
    """Each reads what the one before it wrote: its statements see all that was committed before it had its turn."""
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE counted (number integer)"))
        connection.execute(text("INSERT INTO counted VALUES (0)"))

    def count(own: Engine) -> None:
        for _ in range(100):
            with transaction(own) as connection:
                number = connection.execute(text("SELECT number FROM counted")).scalar_one()
                connection.execute(text("UPDATE counted SET number = :number"), {"number": number + 1})

    with opened(postgres_url) as other, ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(count, own) for own in (engine, other)]:
            done.result(60)
    assert look(engine, Connection.execute, text("SELECT number FROM counted")).scalar_one() == 200


@pytest.mark.usefixtures("processes")
def test_who_stands_still_in_a_transaction_holds_up_nobody_for_long(postgres_url: str, engine: Engine) -> None:
    """The server ends its session; what it does next is a database that is away, which is waited for everywhere."""
    url = f"{postgres_url}?options=-c%20idle_in_transaction_session_timeout%3D2000"
    with opened(url) as hangs, pytest.raises(OperationalError), transaction(hangs) as still:  # noqa: PT012 (at one time)
        _write(postgres_url)
        still.execute(text("SELECT 1"))
    assert look(engine, Connection.execute, select(journal.inbox.c.body)).scalar_one() == "written meanwhile"


def test_who_stands_still_in_a_statement_is_cut_off_by_a_living_teacher(postgres_url: str, engine: Engine) -> None:
    """Its process stopped while it sent a statement: no limit of the server's ends that, which waits for the rest."""

    def held_by() -> list[str]:
        """The programs that hold the lock of all writers."""
        wanted = (
            "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE objid = 7365 AND granted"
        )
        return list(look(engine, Connection.execute, text(wanted)).scalars())

    options = "-c idle_in_transaction_session_timeout=300 -c statement_timeout=300"
    with psycopg.connect(postgres_url, application_name="lectern a", options=options) as stopped:
        still = stopped.pgconn
        still.enter_pipeline_mode()
        still.send_query_params(b"BEGIN", None)
        still.send_query_params(b"SELECT pg_advisory_xact_lock(7365)", None)
        wait_until(lambda: not still.flush(), pause_s=0.01, description="it is sent")
        wait_until(lambda: held_by() == ["lectern a"], description="it holds the lock")
        time.sleep(1.0)  # longer than the limits of a statement
        assert held_by() == ["lectern a"], "longer than its limits"
        with engine.begin() as connection:
            assert leases.cut_off(connection, ["b", "lectern a"], 0) == []
            assert leases.cut_off(connection, ["b", "a"], 60) == [], "one that was started again just begins"
            assert leases.cut_off(connection, ["b", "a"], 0.5) == ["a"]
        _write(postgres_url)
        still.finish()
    assert look(engine, Connection.execute, select(journal.inbox.c.body)).scalar_one() == "written meanwhile"


@pytest.mark.parametrize("name", ["teacher1", "t" * 250], ids=["short", "long"])
def test_a_teacher_that_holds_up_all_writers_is_found_by_its_name(postgres_url: str, engine: Engine, name: str) -> None:
    """By all of it: a dead one whose name differs at its end alone took the session of one that lives."""
    own = open_database(postgres_url, name)
    with pytest.raises(OperationalError), transaction(own) as still:  # noqa: PT012 (both at the same time)
        with engine.begin() as connection:
            found = [leases.cut_off(connection, [one], 0) for one in (f"{name[:-1]}2", name)]
        still.execute(text("SELECT 1"))
    assert found == [[], [name]]
    own.dispose()


def _write(url: str) -> None:
    other = open_database(url)
    commit(other, inbox.keep, [ReceivedMessage("stream:order", "order", "written meanwhile")], NOW)
    other.dispose()


def test_each_session_has_limits_and_a_readers_writes_nothing(postgres_url: str, engine: Engine) -> None:
    with transaction(engine) as connection:
        limits = {
            name: connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "statement_timeout", "transaction_isolation")
        }
    assert limits == {
        "idle_in_transaction_session_timeout": "10s",
        "statement_timeout": "1min",
        "transaction_isolation": "read committed",
    }
    with pytest.raises(OperationalError, match="read-only"), reading(engine) as connection:
        connection.execute(text("DELETE FROM inbox_list"))


def test_a_reader_waits_for_no_writer_and_sees_one_state(postgres_url: str, engine: Engine) -> None:
    with psycopg.connect(postgres_url) as writer:
        writer.execute("SELECT pg_advisory_xact_lock(7365)")
        with reading(engine) as connection:
            before = inbox.waiting(connection)
            writer.execute("INSERT INTO inbox_list (source, body, received_at) VALUES ('stream:order', '{}', 1)")
            writer.commit()
            assert inbox.waiting(connection) == before == 0
    assert look(engine, inbox.waiting) == 1


def test_a_text_that_the_database_cannot_hold_has_a_sign_for_it_and_may_be_long(engine: Engine) -> None:
    """A note must not fail for a NUL byte that a program printed. SQLite looks at no length, so none is kept to."""
    what = "deadline passed: " + "long " * 30
    commit(engine, events.note, "t" * 300, [Event(what, "c-1", detail="ffmpeg said \0 and \ud800")], NOW)
    (found,) = look(engine, Connection.execute, select(journal.events.c.what, journal.events.c.detail)).all()
    assert tuple(found) == (what, "ffmpeg said \u2400 and ?")


def test_no_class_has_an_id_that_the_database_cannot_hold(engine: Engine) -> None:
    """Whoever asks for ``/v1/classes/%00`` is told just that, not that the database is away."""
    commit(engine, bookings.add, [(strategies.booking(), BookingState.WAITING)], NOW)
    assert look(engine, bookings.by_id, ["c\0", "\\u0000"]) == {}
