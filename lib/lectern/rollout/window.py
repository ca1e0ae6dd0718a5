"""The window of a rollout: from the stop of the old program until the new one is healthy; undone on any failure."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from lectern.errors import CallAPerson, Caught, LecternError, Misuse, TryAgain
from lectern.i18n import BESIDE, Text, joined
from lectern.rollout import on_air, redis_keys, release_link, rollback, supervisord, verify
from lectern.rollout.backup import host
from lectern.rollout.journal import Interruption, RolloutJournal, states_before
from lectern.rollout.result import Failed, StepAnswer, words
from lectern.rollout.spec import Spec
from lectern.rollout.steps import COMMIT, TASKS, RolloutStep, StepWork


class WindowPace(Protocol):
    """Decides when the next task of the window may be done, and gets its answer."""

    def wait(self, task: str) -> None:
        """Return when *task* may be done; raises TryAgain if everything is to be undone instead."""

    def tell(self, task: str, answer: StepAnswer) -> None:
        """Take the answer of *task*."""


@dataclass
class Window:
    """One window, and how far it has come."""

    wanted: Spec
    journal: RolloutJournal
    interruption: Interruption
    pace: WindowPace
    answer: StepAnswer = field(default_factory=StepAnswer)
    silent_since: float = 0.0

    def __post_init__(self) -> None:
        self.work = StepWork(self.wanted, self.journal, self.interruption.check)

    def do(self, task: str, steps: list[RolloutStep]) -> None:
        """Do the steps of one task, and tell the pace its answer; none is begun if a signal has asked for the end."""
        already = len(self.answer.said), len(self.answer.diff), len(self.answer.steps)
        changed = False
        for step in steps:
            if step.name == "stop":
                self.silent_since = time.monotonic()
            self.interruption.check()
            with self.answer.timed(step.title):
                self.journal.note(self.wanted.id, step.name, "begin")
                changed = step.work(self.work, self.answer) or changed
                self.journal.note(self.wanted.id, step.name, "done")
        if task == "healthy" and self.silent_since:
            self.answer.more["downtime_s"] = round(time.monotonic() - self.silent_since, 3)
        self.pace.tell(task, self.answer.since(already, changed=changed))

    def is_almost_done(self) -> bool:
        """Whether a crash came after the reload and the host is as wanted, so that nothing must be stopped again."""
        notes = self.journal.round(self.wanted.id)
        reloaded = any((note.step, note.state) == ("reload", "done") for note in notes)
        return reloaded and self.journal.state(self.wanted.id) == "half" and not any(verify.faults_of_new(self.wanted))

    def begin(self) -> None:
        """Note what runs, unless this window was begun before; raises TryAgain if the stop would harm a class."""
        if self.journal.state(self.wanted.id) == "half":
            return
        is_reload = self.work.is_reload
        # Preflight has checked this, but some time ago.
        if not is_reload and (sentences := on_air.refusals(self.wanted, time.time())):
            raise TryAgain("{sentences} Nothing was stopped.", sentences=joined(sentences, BESIDE))
        before: dict[str, object] = {"digest": self.wanted.digest, "states": dict(self.work.supervisor.states())}
        before |= {"reload": True} if is_reload else {}
        self.journal.note(self.wanted.id, "window", "begin", before)

    def finish(self) -> None:
        """See that the other programs run as before, then record the rollout as finished."""
        already = len(self.answer.said), len(self.answer.diff), len(self.answer.steps)
        ours, copied = {self.wanted.program}, host.silent(self.wanted)
        assert copied is not None  # a step before has made it
        for path in self.wanted.old_confs:
            ours |= supervisord.programs_in(copied.before.text(path))
        states = states_before(self.journal.round(self.wanted.id))
        others = {name: state for name, state in states.items() if name.partition(":")[0] not in ours}
        self.answer.say(*supervisord.as_before(self.work.supervisor, others, beat=self.interruption.check))
        self.journal.note(self.wanted.id, "committed", "done", self.answer.more)
        self.answer.say(Text("{id} is finished.", id=self.wanted.id))
        if "downtime_s" in self.answer.more:
            self.answer.say(Text("Down for {down_s} s.", down_s=self.answer.more["downtime_s"]))
        self.pace.tell(COMMIT, self.answer.since(already, changed=True))


def make_ready(wanted: Spec, journal: RolloutJournal) -> None:
    """Render the files that the window switches to; raises Misuse or TryAgain, before a change, if it may not begin."""
    history = journal.history()
    if history.half is not None and (history.half != wanted.id or history.taking_back):
        raise Misuse(
            "{id} is half {how} on this host. Nothing was changed. Finish that first: {command}.",
            id=history.half,
            how=Text("rolled back") if history.taking_back else Text("done"),
            command=rollback.TYPE,
        )
    if host.read(wanted.backup_dir) is None:
        raise Misuse(
            "{backup_dir}: there is no backup of this rollout. Run `lectern rollout backup` first.",
            backup_dir=wanted.backup_dir,
        )
    if wanted.role == "teacher":
        redis_keys.refuse_silence(wanted)
    release_link.render_instance(wanted, journal)


def through(window: Window) -> None:
    """Do what is left of the window at its pace; what was done of it before a kill is not done again.

    Raises TryAgain, before any change, if it may not begin, Failed if it failed and the host is as before, CallAPerson
    if even the rollback failed.
    """
    # The playbook asks for all tasks, also for those that have nothing to do.
    steps_left = [] if window.is_almost_done() else window.work.steps
    tasks = [(task, [step for step in steps_left if step.task == task]) for task in TASKS[window.wanted.role][:-1]]
    window.pace.wait(tasks[0][0])
    window.begin()
    window.answer.changed = True
    try:
        for number, (task, steps) in enumerate(tasks):
            if number > 0:
                window.pace.wait(task)
            window.do(task, steps)
        window.pace.wait(COMMIT)
        window.finish()
    except BaseException as error:
        raise _undone(window, error) from error


def _undone(window: Window, error: BaseException) -> LecternError:
    """Undo what was done, whatever *error* is; returns the error to raise."""
    cause = words(error)
    failed_in = window.answer.steps[-1][0] if window.answer.steps else Text("the beginning")
    why = Text("The window failed in step {step}: {cause}", step=failed_in, cause=cause)
    with Caught() as second:
        window.journal.note(window.wanted.id, "failed", "done", {"why": why})
        rollback.take_back(window.wanted, window.journal, window.answer)
    if second.error is not None:  # a full disk, a locked database: a person must hear of the half host
        return CallAPerson(
            "{why} Then the rollback failed too: {second} The host is half done. Mend what is named, then {command}.",
            why=why,
            second=words(second.error),
            command=rollback.TYPE,
        )
    silent_s = time.monotonic() - window.silent_since if window.silent_since else 0
    window.answer.more["downtime_s"] = round(silent_s, 3)
    return Failed(Text("{why} The host was rolled back and is as it was before.", why=why), window.answer)
