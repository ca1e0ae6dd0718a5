"""The window of a rollout: from the stop of the old program until the new one is healthy; undone on any failure.

`open` leaves a process on the host, with everything imported and the rollout's lock held. It listens on a socket of
root's and does one task of the window at each request of the playbook. If no request comes for a while, it goes on by
itself, or undoes everything if a person confirms each task.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lectern.errors import CallAPerson, Caught, LecternError, Misuse, TryAgain
from lectern.i18n import BESIDE, ENGLISH, Text, joined, msgid
from lectern.rollout import on_air, redis_keys, release_link, rollback, steps, supervisord, verify
from lectern.rollout.backup import host
from lectern.rollout.journal import WINDOW, RolloutJournal, interruption, locked
from lectern.rollout.result import Failed, StepAnswer, failure, in_language, words
from lectern.rollout.spec import Installed, Spec
from lectern.rollout.steps import COMMIT, TASKS, RolloutStep, StepWork
from lectern.rollout.supervisord import Beat

SOCKET = "holder.sock"
FIRST_WORD_S = 60.0
"""Seconds without a first request after which the agent ends; nothing was stopped by then."""
PACE_S = 3.0
"""Seconds without another request after which the agent goes on by itself."""
BY_HAND_S = 600.0
"""Seconds without a request after which everything is undone, if a person confirms each task."""
OPEN_TIMEOUT_S = 60.0
_READ_S = 5.0


@dataclass
class RolloutAgent:
    """Sets the pace of one window: each task waits for a request on the socket, or for a timeout."""

    listener: socket.socket
    by_hand: bool
    check: Beat
    language: str = ENGLISH
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    asking: socket.socket | None = None
    spoken: bool = False

    @property
    def patience_s(self) -> float:
        """Seconds without a request after which the agent waits no longer."""
        return BY_HAND_S if self.by_hand else PACE_S if self.spoken else FIRST_WORD_S

    def wait(self, task: str) -> None:
        """Return when *task* is asked for, or its timeout has passed; raises TryAgain if everything is to be undone."""
        while (asked := self._next(time.monotonic() + self.patience_s)) is not None:
            self.spoken = True
            connection, wish = asked
            if wish == task:
                self.asking = connection
                return
            if wish in self.told:
                self._send(connection, {**self.told[wish], "changed": False})
            else:
                message = Text("The next task is {task}, not {wish}.", task=task, wish=wish)
                self._send(connection, {"failed": True, "msg": message, "said": []})
        if not self.spoken or self.by_hand:
            raise TryAgain(
                "No word came for {patience_s:g} s before the task {task}.", patience_s=self.patience_s, task=task
            )

    def tell(self, task: str, answer: StepAnswer) -> None:
        """Send the answer to the client that asked, and keep it for a client that asks later."""
        self.told[task] = answer.to_dict()
        self.reply(self.told[task])

    def reply(self, fields: dict[str, Any]) -> None:
        """Send an answer to the client that waits, if one does."""
        if self.asking is not None:
            self._send(self.asking, fields)
            self.asking = None

    def _send(self, connection: socket.socket, fields: dict[str, Any]) -> None:
        with suppress(OSError):  # the client has gone: what was done stays done
            connection.sendall(json.dumps(in_language(fields, self.language)).encode() + b"\n")
        connection.close()

    def _next(self, give_up_at: float) -> tuple[socket.socket, str] | None:
        """The next request, None at *give_up_at*; a client that sends nothing is given up after _READ_S."""
        while (left_s := give_up_at - time.monotonic()) > 0:
            self.check()
            ready, _, _ = select.select([self.listener], [], [], min(left_s, 0.5))
            if not ready:
                continue
            connection, _ = self.listener.accept()
            connection.settimeout(_READ_S)
            try:
                with connection.makefile("r", encoding="utf-8") as file:
                    return connection, str(json.loads(file.readline())["task"])
            except (OSError, ValueError, KeyError, TypeError):
                connection.close()
        return None


@dataclass
class Window:
    """One window, and how far it has come."""

    work: StepWork
    pace: RolloutAgent
    answer: StepAnswer = field(default_factory=StepAnswer)
    silent_since: float = 0.0

    def do(self, task: str, steps: list[RolloutStep]) -> None:
        """Do the steps of one task, and tell the pace its answer; none is begun if a signal has asked for the end."""
        already = len(self.answer.said), len(self.answer.diff), len(self.answer.steps)
        changed = False
        for step in steps:
            if step.name == "stop":
                self.silent_since = time.monotonic()
            self.work.beat()
            with self.answer.timed(step.title):
                self.work.journal.note(self.work.wanted.id, step.name, "begin")
                changed = step.work(self.work, self.answer) or changed
                self.work.journal.note(self.work.wanted.id, step.name, "done")
        if task == "healthy" and self.silent_since:
            self.answer.more["downtime_s"] = round(time.monotonic() - self.silent_since, 3)
        self.pace.tell(task, self.answer.since(already, changed=changed))

    def begin(self) -> None:
        """Note what runs, unless this window was begun before; raises TryAgain if the stop would harm a class."""
        wanted, journal, is_reload = self.work.wanted, self.work.journal, self.work.is_reload
        # Preflight has checked this, but some time ago.
        if self.work.stops and (sentences := on_air.refusals(wanted, time.time())):
            raise TryAgain("{sentences} Nothing was stopped.", sentences=joined(sentences, BESIDE))
        if journal.state(wanted.id) == "half":
            return
        before: dict[str, object] = {"digest": wanted.digest, "states": dict(self.work.supervisor.states())}
        before |= {"reload": True} if is_reload else {}
        journal.note(wanted.id, "window", "begin", before)

    def finish(self) -> None:
        """See that the other programs run as before, then record the rollout as finished."""
        wanted, journal = self.work.wanted, self.work.journal
        already = len(self.answer.said), len(self.answer.diff), len(self.answer.steps)
        ours, copied = {wanted.program}, host.silent(wanted)
        assert copied is not None  # a step before has made it
        for path in wanted.old_confs:
            ours |= supervisord.programs_in(copied.before.text(path))
        before = journal.states_before(wanted.id)
        others = {name: state for name, state in before.items() if name.partition(":")[0] not in ours}
        self.answer.say(*supervisord.as_before(self.work.supervisor, others, beat=self.work.beat))
        journal.note(wanted.id, "committed", "done", self.answer.more)
        self.answer.say(Text("{id} is finished.", id=wanted.id))
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
    if wanted.id in history.standing:  # another finished it while this one waited for the lock: its copy is needed
        raise TryAgain("{id} is finished already; nothing is stopped.", id=wanted.id)
    if host.read(wanted.backup_dir) is None:
        raise Misuse(
            "{backup_dir}: there is no backup of this rollout. Run `lectern rollout backup` first.",
            backup_dir=wanted.backup_dir,
        )
    if wanted.role == "teacher":  # after the stop it would be too late
        with redis_keys.opened(wanted, lambda: Text("Nothing was changed. Start it, or correct redis_url.")) as client:
            client.ping()
    release_link.render_instance(wanted, journal)


def through(window: Window) -> None:
    """Do what is left of the window at its pace; what was done of it before a kill is not done again.

    Raises TryAgain, before any change, if it may not begin, Failed if it failed and the host is as before, CallAPerson
    if even the rollback failed.
    """
    wanted, journal, left = window.work.wanted, window.work.journal, window.work.steps
    is_reloaded = any((note.step, note.state) == ("reload", "done") for note in journal.round(wanted.id))
    if is_reloaded and journal.state(wanted.id) == "half" and not any(verify.faults_of_new(wanted)):
        left = []  # a crash came after the reload, and the host is as wanted: nothing must be stopped again
    # The playbook asks for all tasks, also for those that have nothing to do.
    tasks = [(task, [step for step in left if step.task == task]) for task in TASKS[wanted.role][:-1]]
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
    failed_in = window.answer.steps[-1][0] if window.answer.steps else Text("the beginning")
    why = Text("The window failed in step {step}: {cause}", step=failed_in, cause=words(error))
    with Caught() as second:
        window.work.journal.note(window.work.wanted.id, "failed", "done", {"why": why})
        rollback.take_back(window.work.wanted, window.work.journal, window.answer)
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


def open_(wanted: Spec, *, by_hand: bool) -> StepAnswer:
    """Leave an agent behind for the window of *wanted*; raises what keeps the window from beginning."""
    journal = RolloutJournal.of(wanted)
    if journal.state(wanted.id) == "finished":
        sentence = Text("{id} is finished already; nothing is stopped.", id=wanted.id)
        return StepAnswer(said=[sentence], more={"opened": False, **steps.plan(steps.checked(wanted)).more})
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _hold(wanted, journal, writing, by_hand=by_hand)
    os.close(writing)
    with os.fdopen(reading, "r", encoding="utf-8") as file:
        ready, _, _ = select.select([file], [], [], OPEN_TIMEOUT_S)
        reply = file.readline() if ready else ""
    if not reply:
        raise CallAPerson("The process of the window did not start. See {log}.", log=wanted.rollout_dir / "holder.log")
    fields = json.loads(reply)
    if "msg" in fields:
        if journal.state(wanted.id) == "finished":
            return open_(wanted, by_hand=by_hand)
        raise (Misuse if fields["misuse"] else TryAgain)(fields["msg"])
    how = msgid("Process {pid} does the window; it goes on by itself {pace_s:g} s after the last request.")
    if by_hand:
        how = msgid("Process {pid} waits up to {minutes:g} min for each request, then takes all back.")
    sentence = Text(how, pid=fields["pid"], pace_s=PACE_S, minutes=BY_HAND_S / 60)
    return StepAnswer(changed=True, said=[sentence], more={"opened": True})


def _hold(wanted: Spec, journal: RolloutJournal, opened: int, *, by_hand: bool) -> None:
    """Be the agent, from the fork to its exit; never returns."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pipe, code = os.fdopen(opened, "w", encoding="utf-8"), 1
    try:
        with interruption() as check, locked(wanted.rollout_dir, work=WINDOW), _listening(wanted) as listener:
            make_ready(wanted, journal)
            _let_go(wanted.rollout_dir / "holder.log")
            pipe.write(json.dumps({"pid": os.getpid()}) + "\n")
            pipe.close()
            language = wanted.env.get("LECTERN_LANG", ENGLISH)
            pace = RolloutAgent(listener, by_hand, check, language)
            try:
                through(Window(StepWork(wanted, journal, check), pace))
            except BaseException as error:
                pace.reply(failure(error))  # to the client that waits for an answer
                raise
            code = 0
    except BaseException as error:  # noqa: BLE001 (whatever it is, whoever opened must hear of it)
        message = words(error)
        with suppress(OSError, ValueError):  # the pipe may be closed already: then the log has it
            pipe.write(json.dumps({"msg": message, "misuse": isinstance(error, Misuse)}) + "\n")
            pipe.close()
        with suppress(OSError):
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()
    os._exit(code)


@contextmanager
def _listening(wanted: Installed) -> Iterator[socket.socket]:
    """The socket, in a folder that is closed to others; it is removed when the agent ends."""
    path = wanted.rollout_dir / SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        with chdir(wanted.rollout_dir):  # a socket's path may have no more than 108 bytes
            listener.bind(SOCKET)
        listener.listen(8)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _let_go(log: Path) -> None:
    """Close the caller's standard streams, so that the caller does not wait for this process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, descriptor), (2, descriptor)):
        os.dup2(target, number)


def ended(asked: Installed, task: str) -> StepAnswer:
    """What happened to *task* when the agent has ended; raises unless the window is finished."""
    journal = RolloutJournal.of(asked)
    noted = next(reversed(journal.notes()), None)
    if noted is None or noted.step == "backup":  # made before the agent; whatever was rolled out earlier is not meant
        raise Misuse(
            "{task}: nothing was begun on this host, or its process has given up. Nothing was stopped.", task=task
        )
    last, state = noted.id, journal.state(noted.id)
    if state == "finished":
        return StepAnswer(said=[Text("{task}: {last} is finished; the host went on by itself.", task=task, last=last)])
    why = next((note.detail["why"] for note in reversed(journal.round(last)) if note.step == "failed"), None)
    if state == "rolledback":
        why = why or Text("{id} was taken back.", id=last)
        raise CallAPerson("{task}: {why} The host is as it was before.", task=task, why=why)
    raise TryAgain(
        "{task}: the process that did the window ended in the middle. {why} Run the same rollout again, "
        "which goes on; or take it back.",
        task=task,
        why=why or "",
    )
