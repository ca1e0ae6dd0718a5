"""The steps of the maintenance window, in the order and with the numbers of the rollout note: what each does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lectern import health
from lectern.db import schema
from lectern.db.engine import transaction
from lectern.errors import LecternError
from lectern.i18n import Text, labelled, msgid
from lectern.migrations.steps import shape
from lectern.rollout import files, redis_keys, release_link, settings_files, supervisord, takeover
from lectern.rollout.backup import host, opened, store
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import StepAnswer, TextDifference, punctuated
from lectern.rollout.settings_files import SettingsFile
from lectern.rollout.spec import HOW_NOT_WHAT, Spec
from lectern.rollout.supervisord import Beat, Health, Supervisord, no_beat
from lectern.settings import Change, Cost

CHANGING = frozenset({"alter", "schema", "switch", "env", "config", "rekey", "adopt"})
"""Steps that change what was copied after the stop: once one of them has begun, the copy is not made again."""
RELOADING = frozenset({"copy", "switch", "env", "config", "reload", "healthy"})
"""Steps of a rollout that stops nothing."""
_OF_SETTINGS = {"env", "config"}
_OF_THE_OLD_PROGRAM = {"rekey", "order_key", "record_patterns", "old_video_roots"}
"""Fields that only a rollout onto the old program reads."""
COMMIT = "commit"
"""The last task: the other programs are as they were, and the journal says that all is done."""
COLUMN = "alter table task_list add column institution_id VARCHAR(250)"
PROOF = "select class_id, institution_id from task_list limit 1"


@dataclass(frozen=True)
class StepWork:
    """What the steps do on one host, or, in a *check*, say that they would do; then nothing is changed.

    Each step adds to the answer that it gets, and returns whether it changes anything.
    """

    wanted: Spec
    journal: RolloutJournal
    beat: Beat = no_beat
    check: bool = False

    @cached_property
    def supervisor(self) -> Supervisord:
        """The host's supervisord."""
        return Supervisord(self.wanted.supervisorctl)

    @property
    def is_first(self) -> bool:
        """Whether this rollout replaces the old program: whatever an earlier release has taken over is ours already."""
        return self.journal.behind(self.wanted.id) is None

    @cached_property
    def is_reload(self) -> bool:
        """Whether only settings change, and the program takes them while it is at work: then nothing is stopped.

        A program that does not answer is not asked: it is started anew.
        """
        if self.journal.state(self.wanted.id) == "half":
            return self.journal.was_reload(self.wanted.id)  # a window that was begun stays what it was
        behind = self.journal.behind(self.wanted.id)
        if behind is None:
            return False
        try:
            before = Spec.of_backup(self.wanted.backups_dir / behind)
            if _but_settings(before) != _but_settings(self.wanted):
                return False
            changes = settings_changes(self.wanted)
        except LecternError:
            return False  # what is wrong is the preflight's business
        return all(change.cost is not Cost.RESTART for change in changes) and is_answered(self.wanted)

    @property
    def stops(self) -> bool:
        """Whether the window would stop programs that are at work: not if it has done so, or changes settings only.

        What a window that is half done has stopped may run again, started by a restart of the host or by a person.
        After the switch that is another program, and after a reload this rollout itself has started it.
        """
        if self.is_reload or self.journal.state(self.wanted.id) != "half":
            return not self.is_reload
        is_beyond = any(note.step in {"switch", "reload"} for note in self.journal.round(self.wanted.id))
        return not is_beyond and bool(supervisord.ran(self.supervisor.states_or_none() or {}))

    @property
    def steps(self) -> "list[RolloutStep]":
        """The steps of this rollout, in their order."""
        return [step for step in ORDER[self.wanted.role] if not self.is_reload or step.name in RELOADING]

    @cached_property
    def renames(self) -> tuple[int, list[str]]:
        """How many keys would get new names, and sentences about it; raises CallAPerson if new names are taken.

        It is a scan of Redis, so it is made once.
        """
        return redis_keys.rename(self.wanted, dry_run=True)

    @cached_property
    def takeover(self) -> tuple[list[str], list[str]]:
        """What would be taken over of the old program, and what cannot be, in sentences; looked for once."""
        return takeover.planned(self.wanted)

    def stop(self, answer: StepAnswer) -> bool:
        """Stop all programs of supervisord."""
        if not self.check:
            self.supervisor.stop_all()
        elif self.journal.state(self.wanted.id) == "half":
            answer.say(Text("{id} was begun and goes on.", id=self.wanted.id))
        else:
            answer.say(Text("Stop all programs of supervisord, copy the database."))
        return True

    def copy(self, answer: StepAnswer) -> bool:
        """Copy what the other steps are about to change."""
        if self.is_reload:
            text = msgid("Nothing is stopped: only settings change, and {program} reads them anew.")
            answer.say(Text(text, program=self.wanted.program))
        if self.check:
            return False  # the stop has said it
        if host.silent(self.wanted) and any(note.step in CHANGING for note in self.journal.round(self.wanted.id)):
            return False  # it was copied before a crash, and holds the state before the first change
        copied = host.copy_in_silence(self.wanted, files_only=self.is_reload)
        if self.is_reload:
            return False
        text = msgid("There is no database yet ({database}): nothing was to be copied of it.")
        if copied.file:
            text = msgid("Copied {database} while all is stopped; rows: {rows}.")
        return answer.say(Text(text, database=copied.database, rows=host.counted_rows(copied)))

    def alter(self, answer: StepAnswer) -> bool:
        """Add the note's column to the old table, and prove it by the note's select."""
        with store.of(self.wanted).reading() as connection:
            table = shape(connection, "task_list")
        is_due = table is not None and bool(table.lacks(["institution_id"]))
        if self.check:
            return is_due and self._told(answer, [COLUMN])
        with opened(store.of(self.wanted).url) as engine, schema.in_words(engine), transaction(engine) as connection:
            if is_due:
                connection.exec_driver_sql(COLUMN)
            if table is not None:
                connection.exec_driver_sql(PROOF).all()
        return is_due and self._told(answer, [Text("{sql}; proved by {proof}", sql=COLUMN, proof=PROOF)])

    def create(self, answer: StepAnswer) -> bool:
        """Create the tables and columns of this release."""
        if self.check:
            return self._told(
                answer, [sentence for sentence in schema_changes(self.wanted) if "institution_id" not in sentence]
            )
        with opened(store.of(self.wanted).url) as engine:
            done = schema.upgrade(engine, self.wanted.role)
        copied = host.silent(self.wanted)
        if copied is None or not copied.file:  # the database is new, and ours
            for file in filter(Path.exists, store.of(self.wanted).files):
                files.give(file, files.Owner.user(self.wanted.user, 0o640))
        return self._told(answer, done)

    def switch(self, answer: StepAnswer) -> bool:
        """Let the link lead to the release, and take the old programs from supervisord; `reload` gives it the new."""
        return self._changed(answer, release_link.pending(self.wanted), lambda: release_link.apply(self.wanted))

    def env(self, answer: StepAnswer) -> bool:
        """Put the note's four parameters into the old `.env`."""
        return self._edited(answer, settings_files.env(self.wanted))

    def config(self, answer: StepAnswer) -> bool:
        """Put the note's two timeouts into the old JSON config."""
        return self._edited(answer, settings_files.config(self.wanted))

    def rekey(self, answer: StepAnswer) -> bool:
        """Give the old program's keys their new names."""
        if not self.is_first:
            return False
        number, sentences = self.renames if self.check else redis_keys.rename(self.wanted)
        return answer.say(*sentences) and number > 0

    def adopt(self, answer: StepAnswer) -> bool:
        """Take over the old program's classes, files and waiting lists."""
        return self.is_first and answer.say(*(self.takeover[0] if self.check else takeover.adopt(self.wanted)))

    def reload(self, answer: StepAnswer) -> bool:
        """Let supervisord read its files again, or the program its settings."""
        if self.is_reload and self.check:
            answer.say(*_of_program(self.wanted, map(str, settings_changes(self.wanted))))
        elif self.is_reload:
            answer.say(*reload_settings(self.wanted))
        elif self.check:
            answer.say(Text("Reload supervisord."))
        else:
            answer.say(*release_link.declare(self.wanted))
            self.supervisor.begin_anew(self.journal.states_before(self.wanted.id), self.wanted.program)
        return True

    def healthy(self, answer: StepAnswer) -> bool:
        """Wait until the new program is ready."""
        if self.check:
            text = msgid("{program} must be ready within {timeout_s:g} s.")
            answer.say(Text(text, program=self.wanted.program, timeout_s=self.wanted.health_timeout_s))
            return False
        supervisord.wait_until_well(self.wanted, self.supervisor, self.beat)
        text = msgid("{program} runs, is {version}, and is ready.")
        answer.say(Text(text, program=self.wanted.program, version=self.wanted.version))
        return False

    def _told(self, answer: StepAnswer, changes: list[str]) -> bool:
        """Say the *changes* of the database, and show them as one difference."""
        if changes:
            answer.diff.append(
                TextDifference(store.of(self.wanted).shown, "", "".join(f"{sentence}\n" for sentence in changes))
            )
        return answer.say(*punctuated(changes))

    def _edited(self, answer: StepAnswer, file: SettingsFile | None) -> bool:
        return file is not None and self._changed(answer, file.pending(), file.apply)

    def _changed(self, answer: StepAnswer, pending: list[TextDifference], apply: Callable[[], list[str]]) -> bool:
        answer.diff += pending
        would = [Text("{path}: changes.", path=difference.path) for difference in pending]
        return answer.say(*(would if self.check else apply()))


@dataclass(frozen=True)
class RolloutStep:
    """One step: the playbook's task it belongs to, its title, its name in the journal, and its work."""

    task: str
    title: str
    name: str
    work: Callable[[StepWork, StepAnswer], bool]


ORDER = {
    "streamer": (
        RolloutStep("stop", "2 stop all", "stop", StepWork.stop),
        RolloutStep("stop", "1 copy the database", "copy", StepWork.copy),
        RolloutStep("alter", "3 alter task_list", "alter", StepWork.alter),
        RolloutStep("create", "4 create tables", "schema", StepWork.create),
        RolloutStep("switch", "5 switch to the release", "switch", StepWork.switch),
        RolloutStep("env", "6 .env", "env", StepWork.env),
        RolloutStep("adopt", "7 adopt old bookings and files", "adopt", StepWork.adopt),
        RolloutStep("reload", "8 reload", "reload", StepWork.reload),
        RolloutStep("healthy", "8 healthy", "healthy", StepWork.healthy),
    ),
    "teacher": (
        RolloutStep("stop", "1 stop all", "stop", StepWork.stop),
        RolloutStep("stop", "1 copy the database", "copy", StepWork.copy),
        RolloutStep("switch", "2 switch to the release", "switch", StepWork.switch),
        RolloutStep("create", "3 create tables", "schema", StepWork.create),
        RolloutStep("rekey", "4 rename keys", "rekey", StepWork.rekey),
        RolloutStep("adopt", "4 adopt waiting lists", "adopt", StepWork.adopt),
        RolloutStep("config", "5 config", "config", StepWork.config),
        RolloutStep("reload", "6 reload", "reload", StepWork.reload),
        RolloutStep("healthy", "6 healthy", "healthy", StepWork.healthy),
    ),
}
"""All steps from the stop until the new program is proved healthy."""
TASKS = {role: (*dict.fromkeys(it.task for it in steps), COMMIT) for role, steps in ORDER.items()}


def plan(work: StepWork) -> StepAnswer:
    """What the window would do on this host, as a check says it: nothing if the rollout is finished.

    Its `plan` has the answer of each task, as Ansible's check mode shows it at that task.
    """
    answers = {task: StepAnswer() for task in TASKS[work.wanted.role]}
    if work.journal.state(work.wanted.id) == "finished":
        answers["stop"].say(Text("{id} is finished; nothing is to be done.", id=work.wanted.id))
    else:
        for it in work.steps:
            answers[it.task].changed |= it.work(work, answers[it.task])
        answers[COMMIT].changed = True
    whole = StepAnswer(more={"plan": {task: answer.to_dict() for task, answer in answers.items()}})
    for answer in answers.values():
        whole.changed |= answer.changed
        whole.said += answer.said
        whole.diff += answer.diff
    return whole


def checked(wanted: Spec) -> StepWork:
    """The work on this host that changes nothing."""
    return StepWork(wanted, RolloutJournal.of(wanted), check=True)


def schema_changes(wanted: Spec) -> list[str]:
    """What the migration would change; raises if the database cannot be brought up to this release."""
    with opened(store.of(wanted).url) as engine:
        return schema.plan(engine, wanted.role)


# A rollout that only changes settings which need no restart: the program reads them anew, and nothing is stopped.


def settings_changes(wanted: Spec) -> list[Change]:
    """The settings that the program would find changed; raises Misuse if they are wrong, now or as wanted."""
    in_use = settings_files.in_use(wanted, wanted.current / release_link.SETTINGS)
    return in_use.changes(settings_files.as_wanted(wanted))


def is_answered(wanted: Spec) -> bool:
    """Whether the program that is wanted answers, ready or not."""
    return Health(wanted, Supervisord(wanted.supervisorctl)).answers()


def reload_settings(wanted: Spec) -> list[str]:
    """Have the program read its settings anew: a sentence for each change. Raises Misuse, TryAgain as `health` does."""
    answer = health.reloaded(wanted.health_url.removesuffix("/health"), wanted.program)
    return _of_program(wanted, health.sentences(answer) or [Text("no setting has changed")])


def _of_program(wanted: Spec, lines: Iterable[str]) -> list[str]:
    return punctuated(labelled(wanted.program, line) for line in lines)


def _but_settings(wanted: Spec) -> dict[str, Any]:
    return wanted.model_dump(exclude={*HOW_NOT_WHAT, *_OF_SETTINGS, *_OF_THE_OLD_PROGRAM, "again"})
