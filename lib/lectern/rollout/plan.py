"""What each task of the window would do on this host, with its differences; changes nothing."""

from dataclasses import dataclass
from functools import cached_property

from lectern.effects.rows import schema
from lectern.migrations.look import shape
from lectern.rollout import redis_keys
from lectern.rollout.answer import Answer
from lectern.rollout.backup import store
from lectern.rollout.host import switch
from lectern.rollout.journal import Journal
from lectern.rollout.order import COLUMN, differences
from lectern.rollout.settings import files
from lectern.rollout.settings.files import SettingsFile
from lectern.rollout.takeover import both
from lectern.rollout.wanted import Wanted
from lectern.rollout.window import COMMIT

TASKS = {
    "streamer": ("stop", "alter", "create", "switch", "env", "adopt", "reload", "healthy", COMMIT),
    "teacher": ("stop", "switch", "create", "rekey", "adopt", "config", "reload", "healthy", COMMIT),
}


def is_first(wanted: Wanted) -> bool:
    """Whether this rollout replaces the old program, and so takes over what that has."""
    return Journal.of(wanted).behind(wanted.id) is None


@dataclass(frozen=True)
class OldProgram:
    """What a first rollout would do with what the old program has; each is looked for once: it is a scan of Redis."""

    wanted: Wanted

    @cached_property
    def renames(self) -> tuple[int, list[str]]:
        """How many keys would get new names, and sentences about it; raises CallAPerson if new names are taken."""
        return redis_keys.rename(self.wanted, dry_run=True)

    @cached_property
    def takeover(self) -> tuple[list[str], list[str]]:
        """What would be taken over, and what cannot be, in sentences."""
        return both.planned(self.wanted)


def of(wanted: Wanted, journal: Journal, old: OldProgram | None = None) -> dict[str, Answer]:
    """An answer for each task of the window; if the rollout is finished, no task changes anything.

    *old* is what was found already of the old program.
    """
    tasks = TASKS[wanted.role]
    state = journal.state(wanted.id)
    if state == "finished":
        done = Answer(said=[f"{wanted.id} is finished; nothing is to be done."])
        return {task: done if task == tasks[0] else Answer() for task in tasks}
    found = {task: Answer() for task in tasks}
    begun = f"{wanted.id} was begun and goes on."
    found["stop"] = Answer(
        changed=True, said=[begun if state == "half" else "Stop all programs of supervisord, copy the database."]
    )
    _database(wanted, found)
    switching = switch.pending(wanted)
    found["switch"] = Answer(bool(switching), [f"{one.path}: changes." for one in switching], switching)
    for task, file in (("env", files.env(wanted)), ("config", files.config(wanted))):
        if file is not None:
            found[task] = _file(file)
    if is_first(wanted):
        old = old or OldProgram(wanted)
        if wanted.role == "teacher":
            number, said = old.renames
            found["rekey"] = Answer(number > 0, said)
        adopted, _ = old.takeover
        found["adopt"] = Answer(bool(adopted), adopted)
    found["reload"] = Answer(changed=True, said=["Reload supervisord."])
    found["healthy"] = Answer(said=[f"{wanted.program} must be ready within {wanted.health_timeout_s:g} s."])
    found[COMMIT] = Answer(changed=True)
    return found


def _database(wanted: Wanted, found: dict[str, Answer]) -> None:
    if wanted.role == "streamer" and _lacks_institution(wanted):
        found["alter"] = _changes(wanted, [COLUMN])
    changes = [one for one in schema_changes(wanted) if "institution_id" not in one]
    found["create"] = _changes(wanted, changes)


def _changes(wanted: Wanted, changes: list[str]) -> Answer:
    return Answer(bool(changes), [f"{one}." for one in changes], differences(wanted, changes))


def _file(file: SettingsFile) -> Answer:
    diff = file.pending()
    return Answer(bool(diff), [f"{one.path}: changes." for one in diff], diff)


def _lacks_institution(wanted: Wanted) -> bool:
    with store.of(wanted).reading() as connection:
        table = shape(connection, "task_list")
    return table is not None and bool(table.lacks(["institution_id"]))


def schema_changes(wanted: Wanted) -> list[str]:
    """What the migration would change; raises if the database cannot be brought up to this release."""
    found = store.of(wanted)
    with found.untouched(), store.opened(found) as engine:
        return schema.plan(engine, wanted.role)
