"""The steps of the silent part, by role, in the order and with the numbers of the rollout note."""

from collections.abc import Callable
from dataclasses import dataclass

from lectern.effects.rows import schema
from lectern.effects.rows.tables.engine import transaction
from lectern.migrations.look import shape
from lectern.rollout import redis_keys
from lectern.rollout.answer import Answer, Difference
from lectern.rollout.backup import make, store
from lectern.rollout.host import health, switch
from lectern.rollout.host.supervisor import Beat, Supervisor, no_beat
from lectern.rollout.journal import Journal, states_before
from lectern.rollout.settings import files
from lectern.rollout.settings.files import SettingsFile
from lectern.rollout.takeover import both
from lectern.rollout.wanted import Wanted

CHANGING = frozenset({"alter", "schema", "switch", "env", "config", "rekey", "adopt"})
"""Steps that change what was copied after the stop: once one of them has begun, the copy is not made again."""
COLUMN = "alter table task_list add column institution_id VARCHAR(250)"
PROOF = "select class_id, institution_id from task_list limit 1"


@dataclass(frozen=True)
class Step:
    """One step: the playbook's task it belongs to, its title, its name in the journal, and what it does.

    *work* adds to the answer that it gets, and returns whether it changed anything.
    """

    task: str
    title: str
    name: str
    work: Callable[[Answer], bool]


def order(wanted: Wanted, journal: Journal, supervisor: Supervisor, beat: Beat = no_beat) -> list[Step]:
    """All steps from the stop until the new program is proved healthy."""
    work = _Work(wanted, journal, supervisor, beat)
    if wanted.role == "streamer":
        return [
            Step("stop", "2 stop all", "stop", work.stop),
            Step("stop", "1 copy the database", "copy", work.copy),
            Step("alter", "3 alter task_list", "alter", work.alter),
            Step("create", "4 create tables", "schema", work.create),
            Step("switch", "5 switch to the release", "switch", work.switch),
            Step("env", "6 .env", "env", work.env),
            Step("adopt", "7 adopt old bookings and files", "adopt", work.adopt),
            Step("reload", "8 reload", "reload", work.reload),
            Step("healthy", "8 healthy", "healthy", work.healthy),
        ]
    return [
        Step("stop", "1 stop all", "stop", work.stop),
        Step("stop", "1 copy the database", "copy", work.copy),
        Step("switch", "2 switch to the release", "switch", work.switch),
        Step("create", "3 create tables", "schema", work.create),
        Step("rekey", "4 rename keys", "rekey", work.rekey),
        Step("adopt", "4 adopt waiting lists", "adopt", work.adopt),
        Step("config", "5 config", "config", work.config),
        Step("reload", "6 reload", "reload", work.reload),
        Step("healthy", "6 healthy", "healthy", work.healthy),
    ]


@dataclass(frozen=True)
class _Work:
    """The work of the steps on one host."""

    wanted: Wanted
    journal: Journal
    supervisor: Supervisor
    beat: Beat

    def stop(self, _answer: Answer) -> bool:
        self.supervisor.stop_all()
        return True

    def copy(self, answer: Answer) -> bool:
        changing = any(note.step in CHANGING for note in self.journal.round(self.wanted.id))
        if make.silent(self.wanted) is not None and changing:
            return False  # it was copied before a crash, and holds the state before the first change
        made = make.copy_in_silence(self.wanted)
        answer.say(
            f"Copied {made.database} in silence; rows: {make.counted_rows(made)}."
            if made.file
            else f"There is no database yet ({made.database}): nothing was to be copied of it."
        )
        return True

    def alter(self, answer: Answer) -> bool:
        with store.opened(store.of(self.wanted)) as engine, schema.in_words(engine), transaction(engine) as connection:
            table = shape(connection, "task_list")
            is_due = table is not None and bool(table.lacks(["institution_id"]))
            if is_due:
                connection.exec_driver_sql(COLUMN)
            if table is not None:
                connection.exec_driver_sql(PROOF).all()
        return is_due and _told(answer, self.wanted, [f"{COLUMN}; proved by {PROOF}"])

    def create(self, answer: Answer) -> bool:
        with store.opened(store.of(self.wanted)) as engine:
            done = schema.upgrade(engine, self.wanted.role)
            if self.wanted.role == "streamer":
                with engine.connect() as connection:
                    connection.exec_driver_sql(PROOF).all()
        copied = make.silent(self.wanted)
        if copied is None or not copied.file:  # the database is new, and ours
            store.of(self.wanted).give(self.wanted.user)
        return _told(answer, self.wanted, done)

    def switch(self, answer: Answer) -> bool:
        answer.diff += switch.pending(self.wanted)
        return _said(answer, switch.apply(self.wanted))

    def env(self, answer: Answer) -> bool:
        return _edited(answer, files.env(self.wanted))

    def config(self, answer: Answer) -> bool:
        return _edited(answer, files.config(self.wanted))

    def rekey(self, answer: Answer) -> bool:
        if not self._is_first():
            return False
        number, said = redis_keys.rename(self.wanted)
        answer.say(*said)
        return number > 0

    def adopt(self, answer: Answer) -> bool:
        return self._is_first() and _said(answer, both.adopt(self.wanted))

    def _is_first(self) -> bool:
        """Whether this rollout replaces the old program: whatever an earlier release has taken over is ours already."""
        return self.journal.behind(self.wanted.id) is None

    def reload(self, _answer: Answer) -> bool:
        self.supervisor.begin_anew(states_before(self.journal.round(self.wanted.id)), self.wanted.program)
        return True

    def healthy(self, answer: Answer) -> bool:
        health.wait_until_well(self.wanted, self.supervisor, self.beat)
        answer.say(f"{self.wanted.program} runs, is {self.wanted.version}, and is ready.")
        return False


def _said(answer: Answer, done: list[str]) -> bool:
    answer.say(*done)
    return bool(done)


def differences(wanted: Wanted, changes: list[str]) -> list[Difference]:
    """The *changes* of the database, as one difference; none if there are no changes."""
    return [Difference(store.of(wanted).shown, "", "".join(f"{one}\n" for one in changes))] if changes else []


def _told(answer: Answer, wanted: Wanted, changes: list[str]) -> bool:
    answer.diff += differences(wanted, changes)
    return _said(answer, [f"{one}." for one in changes])


def _edited(answer: Answer, file: SettingsFile | None) -> bool:
    if file is None:
        return False
    answer.diff += file.pending()
    return _said(answer, file.apply())
