"""The silent part of a rollout: from the stop of the old program until the new one is well, undone on any failure."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lectern.effects.rows import schema
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.rollout import on_air, redis_keys, rollback, verify
from lectern.rollout.answer import Answer
from lectern.rollout.backup import make, store
from lectern.rollout.backup.make import Backup
from lectern.rollout.host import health, supervisor, switch
from lectern.rollout.host.supervisor import States
from lectern.rollout.interruption import Interruption
from lectern.rollout.journal import Journal, locked
from lectern.rollout.settings import files
from lectern.rollout.takeover import both
from lectern.rollout.wanted import Wanted

Step = tuple[str, str, Callable[[], None]]
"""Its title, its name in the journal, and what it does."""
CHANGING = frozenset({"schema", "switch", "env", "config", "rekey", "adopt"})
"""Steps that change what the copy in silence holds: once one was begun, the copy is not taken again."""


class Undone(LecternError):
    """The window failed, and the host is as it was before; *answer* tells how far it came."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer


@dataclass
class Window:
    """One window, as far as it has come."""

    wanted: Wanted
    journal: Journal
    interruption: Interruption
    answer: Answer = field(default_factory=Answer)
    silent_since: float = 0.0

    def __post_init__(self) -> None:
        self.supervisor = supervisor.Supervisor(self.wanted.supervisorctl)

    @contextmanager
    def step(self, title: str, name: str) -> Iterator[None]:
        """One step: noted before and after, and timed; not begun if someone asked for the end."""
        self.interruption.check()
        with self.answer.timed(title):
            self.journal.note(self.wanted.id, name, "begin")
            yield
            self.journal.note(self.wanted.id, name, "done")

    # -- the steps ----------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self.silent_since = time.monotonic()
        self.supervisor.stop_all()

    def _copy(self) -> None:
        changing = any(note.step in CHANGING for note in self.journal.round(self.wanted.id))
        found = make.silent(self.wanted)
        if found is not None and changing:
            return  # it was copied before a crash, and holds what was there before the first change
        self._say_rows(make.copy_in_silence(self.wanted))

    def _say_rows(self, made: Backup) -> None:
        rows = made.database.rows if made.database is not None else {}
        told = ", ".join(f"{n} in {table}" for table, n in rows.items()) or "none"
        self.answer.say(f"Copied {store.of(self.wanted).shown} in silence; rows: {told}.")

    def _schema(self) -> None:
        with store.opened(store.of(self.wanted)) as engine:
            self.answer.say(*(f"{change}." for change in schema.upgrade(engine, self.wanted.role)))
            if self.wanted.role == "streamer":
                with engine.connect() as connection:
                    connection.exec_driver_sql("select class_id, institution_id from task_list limit 1").all()
        copied = make.silent(self.wanted)
        if copied is None or copied.database is None:  # it is new, and ours
            store.of(self.wanted).give(self.wanted.user)

    def _switch(self) -> None:
        self.answer.say(*switch.apply(self.wanted))

    def _env(self) -> None:
        self.answer.say(*files.env(self.wanted).apply())

    def _config(self) -> None:
        found = files.config(self.wanted)
        self.answer.say(*(found.apply() if found is not None else []))

    def _rekey(self) -> None:
        if self._is_first():
            self.answer.say(*redis_keys.rename(self.wanted))

    def _adopt(self) -> None:
        if self._is_first():
            self.answer.say(*both.adopt(self.wanted))

    def _is_first(self) -> bool:
        """Whether the old program is behind this rollout: what an earlier release has taken over is ours already."""
        return self.journal.behind(self.wanted.id) is None

    def _reload(self) -> None:
        self.supervisor.reload()

    def _healthy(self) -> None:
        health.wait_until_well(self.wanted, self.supervisor, self.interruption.check)
        self.answer.more["downtime_s"] = round(time.monotonic() - self.silent_since, 3)

    def is_almost_done(self) -> bool:
        """Whether a crash came behind the reload, and all is as wanted: then nothing is to be stopped once more."""
        notes = self.journal.round(self.wanted.id)
        reloaded = any((note.step, note.state) == ("reload", "done") for note in notes)
        return reloaded and self.journal.state(self.wanted.id) == "half" and not any(verify.faults_of_new(self.wanted))

    def finish(self) -> None:
        """The other programs are as they were; then the window is committed."""
        others = self._neighbours()
        self.answer.say(*supervisor.as_before(self.supervisor, others, beat=self.interruption.check))
        self.journal.note(self.wanted.id, "committed", "done", self.answer.more)
        self.answer.say(f"{self.wanted.id} is finished.")

    def _neighbours(self) -> States:
        """What ran before and is neither the old program nor ours."""
        old = {name for path in self.wanted.old_confs for name in self._programs_in(path)} | {self.wanted.program}
        states = rollback.states_before(self.journal.round(self.wanted.id))
        return {name: state for name, state in states.items() if name.partition(":")[0] not in old}

    def _programs_in(self, conf: Path) -> set[str]:
        found = make.silent(self.wanted)
        assert found is not None  # the step before has made it
        return supervisor.programs_in(found.before.text(conf))

    def order(self) -> list[Step]:
        """The steps in the order and with the numbers of the rollout note."""
        if self.wanted.role == "streamer":
            return [
                ("2 stop all", "stop", self._stop),
                ("1 copy the database", "copy", self._copy),
                ("3 alter task_list, 4 create tables", "schema", self._schema),
                ("5 switch to the release", "switch", self._switch),
                ("6 .env", "env", self._env),
                ("7 adopt old bookings and files", "adopt", self._adopt),
                ("8 reload", "reload", self._reload),
                ("8 healthy", "healthy", self._healthy),
            ]
        return [
            ("1 stop all", "stop", self._stop),
            ("1 copy the database", "copy", self._copy),
            ("2 switch to the release", "switch", self._switch),
            ("3 create tables", "schema", self._schema),
            ("4 rename keys", "rekey", self._rekey),
            ("4 adopt waiting lists", "adopt", self._adopt),
            ("5 config", "config", self._config),
            ("5 .env", "env", self._env),
            ("6 reload", "reload", self._reload),
            ("6 healthy", "healthy", self._healthy),
        ]


def run(wanted: Wanted) -> Answer:
    """Do all of the window, or undo it; one that is committed is not done again, one that was killed goes on.

    Raises Undone where it failed and the host is as before, CallAPerson where even that failed, Misuse before any
    change where it may not begin.
    """
    with Interruption() as interruption, locked(wanted.rollout_dir):
        journal = Journal(wanted.rollout_dir / "journal.jsonl")
        window = Window(wanted, journal, interruption)
        if journal.state(wanted.id) == "finished":
            window.answer.say(f"{wanted.id} is finished already; nothing was stopped.")
            return window.answer
        _refuse(wanted, journal)
        window.answer.changed = True
        if window.is_almost_done():
            _through(window, [])
            return window.answer
        if journal.state(wanted.id) != "half":
            _refuse_harm(wanted)
            before = {"digest": wanted.digest, "states": dict(window.supervisor.states())}
            journal.note(wanted.id, "window", "begin", before)
        _through(window, window.order())
        return window.answer


def _refuse(wanted: Wanted, journal: Journal) -> None:
    history = journal.history()
    if history.half is not None and (history.half != wanted.id or history.taking_back):
        raise Misuse(
            f"{history.half} is half {'rolled back' if history.taking_back else 'done'} on this host. Nothing was "
            f"changed. Finish that first: {rollback.TYPE}."
        )
    if make.read(wanted.backup_dir) is None:
        raise Misuse(f"{wanted.backup_dir}: there is no backup of this rollout. Run `lectern rollout backup` first.")
    if wanted.role == "teacher":
        redis_keys.refuse_silence(wanted)


def _refuse_harm(wanted: Wanted) -> None:
    """What preflight has looked at, but can have changed since."""
    said = on_air.refusals(wanted, time.time())
    if said:
        raise TryAgain(f"{' '.join(said)} Nothing was stopped.")


def _through(window: Window, steps: list[Step]) -> None:
    try:
        for title, name, work in steps:
            with window.step(title, name):
                work()
        window.finish()
    except BaseException as error:
        cause = error.message if isinstance(error, LecternError) else f"{type(error).__name__}: {error}"
        failed_in = window.answer.steps[-1][0] if window.answer.steps else "the beginning"
        try:
            rollback.take_back(window.wanted, window.journal, window.answer)
        except LecternError as second:
            raise CallAPerson(
                f"The window failed in step {failed_in}: {cause} Then the rollback failed too: {second.message} "
                f"The host is half done. Mend what is named, then {rollback.TYPE}."
            ) from error
        silent_s = time.monotonic() - window.silent_since if window.silent_since else 0
        window.answer.more["downtime_s"] = round(silent_s, 3)
        raise Undone(
            f"The window failed in step {failed_in}: {cause} The host was rolled back and is as it was before.",
            window.answer,
        ) from error
