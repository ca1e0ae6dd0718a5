"""The rollback: restores the host as it was before the window, and hands classes back to the old program."""

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import dropwhile

from sqlalchemy import text

from lectern import subprocesses
from lectern.db import schema
from lectern.db.airings import epoch
from lectern.db.engine import transaction
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.i18n import BESIDE, Text, joined, labelled, msgid
from lectern.migrations.steps import shape
from lectern.redis import client as redis_client
from lectern.rollout import files, on_air, redis_keys, release_link, settings_files, steps, supervisord, takeover
from lectern.rollout.backup import host, opened, store
from lectern.rollout.backup.host import FilesBefore
from lectern.rollout.journal import JournalNote, RolloutJournal, interruption, locked, standing
from lectern.rollout.result import StepAnswer, shown, some
from lectern.rollout.spec import Installed, Spec
from lectern.rollout.supervisord import Supervisord, wait_for, wait_until_well
from lectern.rollout.takeover import old_database
from lectern.settings import StreamerSettings
from lectern.states import AiringState

READ_S = 10.0
"""Seconds to wait until a teacher has read it; a living teacher takes one or two."""


def withdraw(wanted: Spec) -> list[str]:
    """Tell the teacher, and delete from ``task_list`` what the old program must not air; returns sentences.

    Done before the old program starts: otherwise the teacher would miss the streamer after a minute and move its
    classes, and both streamers would push them. So would the playout, as long as its lease lasts. Raises LecternError
    if Redis or the database fails.
    """
    on_air.end_lease(wanted)
    sentences = [] if wanted.restore_database else _close(wanted, _over(wanted))
    if (names := _leased_as(wanted)) is not None:
        message = Text(
            "the teacher cannot be told that the old program has this streamer; it would move its classes to others."
        )
        with redis_keys.opened(wanted, lambda: message) as client:
            redis_client.say_withdrawn(client, *names)
    return sentences


def withdrawal_confirmed(wanted: Spec) -> list[str]:
    """Wait until a teacher has read the withdrawal; returns that, or what follows if none has, in sentences."""
    if (names := _leased_as(wanted)) is None:
        return []
    name = names[1]
    try:
        with redis_keys.opened(wanted) as client:
            wait_for(lambda: redis_client.withdrawal_is_read(client, *names), READ_S, lambda: "")
    except LecternError:
        pattern = msgid(
            "No teacher has read yet that {streamer} is back at the old program. Roll the teachers back, too; one of "
            "an older release of lectern would move its classes to others after a minute."
        )
        return [Text(pattern, streamer=name)]
    return [Text("The teacher leaves {streamer} its classes, and moves them to nobody.", streamer=name)]


def _leased_as(wanted: Spec) -> tuple[str, str] | None:
    """The streamers' key and the name by which a teacher of ours may have given it classes; None if none has."""
    leases: int | None = None
    with suppress(CallAPerson), store.of(wanted).reading() as connection:  # of a damaged one, nobody knows
        there = shape(connection, "lease_list") is not None
        leases = connection.execute(text("SELECT count(*) FROM lease_list")).scalar_one() if there else 0
    if leases == 0:
        return None
    default = str(StreamerSettings.model_fields["streamers_key"].default)
    return wanted.env.get("STREAMERS_KEY", default), wanted.env.get("STREAMER_NAME", wanted.name)


def _over(wanted: Spec) -> list[str]:
    """The classes in ``task_list`` that were cancelled or moved to another streamer, and have not ended.

    A refused class is not among them: the old program may have its recording, and a needless push harms less than a
    missing class.
    """
    now = time.time()
    with store.of(wanted).reading() as connection:
        known = old_database.classes(connection)
        over = {row.class_id for row in known.values() if row.state == AiringState.CANCELLED}
        tasks = [row for row in old_database.tasks(connection) if row.class_id in over]
    return [row.class_id for row in tasks if (epoch(row.end) or 0) > now]


def _close(wanted: Spec, over: Collection[str]) -> list[str]:
    """Delete the classes of *over* from ``task_list``; returns sentences."""
    if not over:
        return []
    delete = text("DELETE FROM task_list WHERE class_id = :class_id")
    with opened(store.of(wanted).url) as engine, schema.in_words(engine), transaction(engine) as connection:
        gone = [class_id for class_id in over if connection.execute(delete, {"class_id": class_id}).rowcount]
    if not gone:
        return []
    taken_out = Text.many(
        "{n:,} class taken out of task_list, as cancelled or moved meanwhile: {classes}.",
        "{n:,} classes taken out of task_list, as cancelled or moved meanwhile: {classes}.",
        n=len(gone),
        classes=some(shown(class_id) for class_id in gone),
    )
    return [taken_out]


ASK_TIMEOUT_S = 60.0
TYPE = "ansible-playbook playbooks/rollback.yml"
"""What a person types to roll back a rollout."""


def run(wanted: Spec, *, check: bool = False) -> StepAnswer:
    """Roll the rollout *wanted* back, or say what that would do; a rollout that is rolled back already is left alone.

    A window that is under way takes itself back first. Raises Misuse if a database on a server is to be restored, too.
    Raises CallAPerson if another rollout is half done, the backup is missing, or the old programs do not run again:
    then the rollback is half done, and the next call resumes it.
    """
    answer = StepAnswer()
    journal = RolloutJournal.of(wanted)
    if wanted.restore_database:
        host.restorable(wanted)
        if journal.was_reload(wanted.id):
            raise Misuse(
                "{id} changed settings only, so no database was copied. Roll back without the restore.", id=wanted.id
            )
    if not wanted.rollout_dir.exists():
        return StepAnswer(said=[Text("{id} has never been on this host; nothing was changed.", id=wanted.id)])
    with ExitStack() as alone:
        if not check:
            alone.enter_context(interruption())
            has_ended = alone.enter_context(locked(wanted.rollout_dir, ends_window=not wanted.half_only))
            if has_ended and journal.state(wanted.id) == "rolledback":
                pattern = msgid("{id} was under way; it has heard of this rollback, and has taken everything back.")
                return StepAnswer(changed=True, said=[Text(pattern, id=wanted.id)], more={"state": "rolledback"})
        if not _is_due(wanted, journal, answer):
            return answer
        is_finished, work = journal.state(wanted.id) == "finished", steps.StepWork(wanted, journal)
        stops = not _runs_on(wanted, journal) if is_finished else work.stops
        if stops:
            refuse_harm(wanted, journal)
        if check:
            answer.changed = True
            behind = _words(journal.behind(wanted.id))
            answer.say(Text("{id} would be rolled back, to {release}.", id=wanted.id, release=behind))
            return answer
        take_back(wanted, journal, answer)
        history = journal.history()
        answer.more |= {"state": history.state(wanted.id), "standing": list(history.standing)}
    return answer


def _runs_on(wanted: Spec, journal: RolloutJournal) -> bool:
    """Whether the program takes its former settings while it is at work, as it took those of *wanted*."""
    return journal.was_reload(wanted.id) and steps.is_answered(wanted)


def refuse_harm(wanted: Spec, journal: RolloutJournal) -> None:
    """Raise, before a stop, if what is behind cannot start or be restored, or a class on air would be cut."""
    copied = host.silent(wanted)
    if copied is not None:  # else the rollback itself reports that it is missing
        if wanted.restore_database:
            host.refuse_unrestorable(wanted, copied)
        if journal.behind(wanted.id) is not None:
            _refuse_unready(wanted, copied.before)
    sentences = [] if wanted.even_on_air else on_air.cut_now(wanted, time.time())
    if sentences:
        raise TryAgain("{sentences} Nothing was stopped.", sentences=joined(sentences, BESIDE))


def _refuse_unready(wanted: Spec, before: FilesBefore) -> None:
    """Raise CallAPerson if the release that a rollback would start is gone, or cannot use the database as it is now.

    If the database is restored, too, it does not matter how it is now. Else that release is asked itself, by its own
    program: an older release knows best what it can read.
    """
    if before.link is None:
        return  # a rollback would start the old program
    program = wanted.current.parent / before.link / "venv/bin/lectern"
    version = program.parents[1].resolve().parent.name
    if not program.exists():
        raise CallAPerson(
            "{program}: the release that a rollback would start is gone. Nothing was stopped. Stage it again: "
            "ansible-playbook playbooks/rollout.yml -e release={version} --tags prepare.",
            program=program,
            version=version,
        )
    if wanted.restore_database:
        return
    argv = [str(program), "init", wanted.role, "--check", "--json"]
    answer = asyncio.run(subprocesses.run(argv, timeout_s=ASK_TIMEOUT_S, cwd=wanted.code_dir))
    if answer.returncode != 0:
        raise CallAPerson(
            "lectern {version}, which a rollback would start, cannot use the database as it is now ({why}). "
            "Nothing was stopped. Go on with {newer}; or add -e restore_database=true, which loses what was "
            "written since the rollout (it is exported first).",
            version=version,
            why=answer.last_words or msgid("it gives no reason"),
            newer=wanted.version,
        )


def of_standing(asked: Installed, *, check: bool = False) -> StepAnswer:
    """Roll back the last rollout of this host, whatever the inventory says now."""
    last = standing(asked)
    if isinstance(last, str):
        history = RolloutJournal.of(asked).history()
        return StepAnswer(said=[last], more={"standing": list(history.standing)})
    return run(last, check=check)


def _is_due(wanted: Spec, journal: RolloutJournal, answer: StepAnswer) -> bool:
    history = journal.history()
    state = history.state(wanted.id)
    answer.more |= {"state": state, "standing": list(history.standing)}
    if state == "finished" and wanted.half_only:  # another has finished it meanwhile
        answer.say(Text("{id} is finished already; nothing is stopped.", id=wanted.id))
        return False
    if state in {"half", "finished"}:
        return True
    if history.half is not None:
        raise CallAPerson(
            "{half} is half done on this host, and {id} is not what stands here; nothing was changed. Take that "
            "back: {type}.",
            half=history.half,
            id=wanted.id,
            type=TYPE,
        )
    answer.say(
        Text("{id} is rolled back already; nothing was changed.", id=wanted.id)
        if state == "rolledback"
        else Text("{id} has changed nothing on this host; nothing was changed.", id=wanted.id)
    )
    if history.last is not None:
        pattern = msgid("What stands here is {last}. To take that back: {type} -e release={version}.")
        answer.say(Text(pattern, last=history.last, type=TYPE, version=_version(history.last)))
    return False


@dataclass
class _Way:
    """One rollback, and how far it has come."""

    wanted: Spec
    journal: RolloutJournal
    answer: StepAnswer
    left: list[str] = field(default_factory=list)
    """What could not be restored yet, in sentences."""

    def __post_init__(self) -> None:
        self.supervisor = Supervisord(self.wanted.supervisorctl)
        self.silent = host.silent(self.wanted)
        self.states = self.journal.states_before(self.wanted.id)
        self.behind = self.journal.behind(self.wanted.id)

    def noted(self, step: str, state: str = "begin", *, since_rollback: bool = False) -> list[JournalNote]:
        """The lines that the journal of this round has of the step."""
        notes = self.journal.round(self.wanted.id)
        if since_rollback:
            notes = list(dropwhile(lambda note: note.step != "rollback", notes))
        return [note for note in notes if (note.step, note.state) == (step, state)]

    def step(self, title: str, name: str, work: Callable[[Spec], list[str]]) -> None:
        """Do one step, and say what it did: record it before and after, and time it."""
        with self.answer.timed(f"back: {title}"):
            self.journal.note(self.wanted.id, name, "begin")
            self.answer.say(*work(self.wanted))
            self.journal.note(self.wanted.id, name, "done")

    def put_back_elsewhere(self) -> None:
        """Restore keys, recordings and classes; failures wait until the old programs run, which matters more."""
        if self.behind is not None:
            return  # the release behind has the same keys, recordings and classes
        # After a power cut it would start among files that are not its own any more, and put them into quarantine.
        self.answer.say(*release_link.undeclare(self.wanted))
        works: list[tuple[str, str, str, Callable[[Spec], list[str]]]] = [
            ("keys", "rekey", "rekey", redis_keys.rename_back),
            ("recordings", "adopt", "adopt", takeover.undo),
        ]
        if self.wanted.role == "streamer":
            works.append(("classes", "reload", "withdraw", withdraw))  # once it ran, it could get classes
        for title, done, name, work in works:
            if self.noted(done) and not self.noted(name, "done", since_rollback=True):
                try:
                    self.step(title, name, work)
                except LecternError as error:
                    self.left.append(labelled(title, error.message))

    def put_back(self) -> None:
        """Restore files and link; the database is restored only if that is asked for."""
        wanted, copied = self.wanted, self.silent
        if copied is None:
            return  # the window had not reached its first change
        files.sweep(*store.of(wanted).files)
        if wanted.restore_database and not self.noted("restore", "done", since_rollback=True):
            begun, over = self.noted("restore", since_rollback=True), list[str]()
            if begun:
                over = begun[0].detail or []  # the database may be the former one by now, which does not know them
            elif self.behind is None and wanted.role == "streamer":
                with suppress(CallAPerson):  # a damaged database is what a restore is for
                    over = _over(wanted)
            self.journal.note(wanted.id, "restore", "begin", over)
            self.answer.say(*host.restore(wanted, copied), *_close(wanted, over))
            self.journal.note(wanted.id, "restore", "done")
        for file in settings_files.all_of(wanted):
            self.answer.say(*file.take_back(copied.before))
        self.answer.say(*release_link.take_back(wanted, copied.before))

    def stop(self, _: Spec) -> list[str]:
        self.supervisor.stop_all()
        return []

    def reload(self, _: Spec) -> list[str]:
        self.supervisor.begin_anew(self.states)
        gone = self.silent is not None and self.silent.before.data(self.wanted.conf) is None

        def look() -> bool:
            states = self.supervisor.states_or_none()
            return states is not None and not (gone and self.wanted.program in states)

        wait_for(look, supervisord.ANSWER_TIMEOUT_S, lambda: Text("supervisord did not begin anew after reload."))
        return supervisord.as_before(self.supervisor, self.states)

    def follow(self) -> None:
        """Let the playout go back, too; if that fails, it airs on with the newer release."""
        if self.behind is None or self.wanted.role != "streamer" or self.journal.was_reload(self.wanted.id):
            return
        try:
            answer = on_air.upgrade_playout(self.wanted.model_copy(update={"version": _version(self.behind)}))
            self.answer.say(*answer.said)
        except LecternError as error:
            self.answer.say(error.message)

    def finish(self) -> None:
        """Set the used backup aside; raises CallAPerson if something could not be restored."""
        if self.left:
            raise CallAPerson(
                "The old programs run again, but not all is back; {left} Mend that, then {type}.",
                left=joined(self.left, BESIDE),
                type=TYPE,
            )
        aside = self.wanted.backup_of(self.wanted.id)
        if aside == self.wanted.backup_dir and aside.exists():
            aside = host.set_aside(aside, "used")
        self.journal.note(self.wanted.id, "rolledback", "done", {"backup": aside.name})
        pattern = msgid("{id} is rolled back: {release} is at work again. The backup is kept as {path}.")
        self.answer.say(Text(pattern, id=self.wanted.id, release=_words(self.behind), path=aside))


def take_back(wanted: Spec, journal: RolloutJournal, answer: StepAnswer) -> None:
    """Undo the window of *wanted*, however far it has come; the caller holds the lock."""
    answer.changed = True
    way = _Way(wanted, journal, answer)
    is_restored = way.noted("restore", "done", since_rollback=True) or not way.noted("copy", "done")
    # Whoever asks for the database only now has seen the program fail with the present one: all is stopped again.
    is_reloaded = way.noted("reload", "done", since_rollback=True) and (is_restored or not wanted.restore_database)
    # Until a step has changed something, nothing of the copy is missed: a second one may have failed over the first.
    if not is_reloaded and way.silent is None and any(way.noted(step) for step in steps.CHANGING):
        raise CallAPerson(
            "{backup_dir}: what was copied before the change is gone. Nothing was changed. Find it (ls {backups_dir}), "
            "give it its name back, then {type}.",
            backup_dir=wanted.backup_dir,
            backups_dir=wanted.backups_dir,
            type=TYPE,
        )
    if not journal.history().taking_back:
        journal.note(wanted.id, "rollback", "begin")
    began = time.monotonic()
    if is_reloaded:
        way.put_back_elsewhere()
    elif _runs_on(wanted, journal):
        with answer.timed("back: files and link"):
            way.put_back()
        way.step("reload", "reload", steps.reload_settings)
    else:
        way.step("stop all", "stop", way.stop)
        way.put_back_elsewhere()
        with answer.timed("back: files and link"):
            way.put_back()
        way.step("reload", "reload", way.reload)
        answer.more["rollback_downtime_s"] = round(time.monotonic() - began, 3)
        answer.say(Text("Down for {down_s} s.", down_s=answer.more["rollback_downtime_s"]))
    with answer.timed("back: it answers"):
        if way.behind is not None:  # raises CallAPerson if the release to go back to is not healthy in time
            wait_until_well(Spec.of_backup(wanted.backups_dir / way.behind), way.supervisor)
    way.follow()
    if way.noted("withdraw", "done"):
        answer.say(*withdrawal_confirmed(wanted))
    way.finish()


def _words(behind_id: str | None) -> str:
    """What a rollback goes back to, for people."""
    if behind_id is None:
        return Text("the old program")
    return Text("lectern {version} ({id})", version=_version(behind_id), id=behind_id)


def _version(id_: str) -> str:
    """The version in the name of a rollout: role, version, digest."""
    return id_.partition("-")[2].rpartition("-")[0]
