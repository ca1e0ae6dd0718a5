"""The process that keeps a host's programs stopped: playbook tasks set its pace; without them it goes on by itself.

`open` leaves it on the host, with everything imported and the rollout's lock held. It listens on a socket of root's and
does one task of the window at each request. If no request comes for a while, it goes on by itself, or undoes everything
if a person confirms each task.
"""

import asyncio
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lectern import subprocesses
from lectern.errors import CallAPerson, LecternError, Misuse, TryAgain
from lectern.i18n import ENGLISH, Text, msgid
from lectern.rollout import steps, window
from lectern.rollout.journal import WINDOW, Interruption, RolloutJournal, locked
from lectern.rollout.result import StepAnswer, in_language, words
from lectern.rollout.spec import Installed, Spec

SOCKET = "holder.sock"
FIRST_WORD_S = 60.0
"""Seconds without a first request after which the agent ends; nothing was stopped by then."""
PACE_S = 3.0
"""Seconds without another request after which the agent goes on by itself."""
BY_HAND_S = 600.0
"""Seconds without a request after which everything is undone, if a person confirms each task."""
OPEN_TIMEOUT_S = 60.0
_READ_S = 5.0
_SYSTEMD, _SYSTEMD_S = Path("/run/systemd/system"), 5.0

Failure = Callable[[BaseException], dict[str, Any]]


@dataclass
class RolloutAgent:
    """Sets the pace of one window: each task waits for a request on the socket, or for a timeout."""

    listener: socket.socket
    by_hand: bool
    check: Callable[[], None]
    language: str = ENGLISH
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    asking: socket.socket | None = None
    spoken: bool = False

    def wait(self, task: str) -> None:
        """Return when *task* is asked for, or its timeout has passed; raises TryAgain if everything is to be undone."""
        patience_s = FIRST_WORD_S if not self.spoken else BY_HAND_S if self.by_hand else PACE_S
        give_up_at = time.monotonic() + patience_s
        while (asked := self._next(give_up_at)) is not None:
            self.spoken = True
            give_up_at = time.monotonic() + (BY_HAND_S if self.by_hand else PACE_S)
            connection, wish = asked
            if wish == task:
                self.asking = connection
                return
            if wish in self.told:
                _reply(connection, {**self.told[wish], "changed": False})
            else:
                message = Text("The next task is {task}, not {wish}.", task=task, wish=wish)
                _reply(connection, in_language({"failed": True, "msg": message, "said": []}, self.language))
        if not self.spoken or self.by_hand:
            raise TryAgain(
                "No word came for {patience_s:g} s before the task {task}.", patience_s=patience_s, task=task
            )

    def tell(self, task: str, answer: StepAnswer) -> None:
        """Send the answer to the client that asked, and keep it for a client that asks later."""
        self.told[task] = in_language(answer.to_dict(), self.language)
        self.reply(self.told[task])

    def reply(self, fields: dict[str, Any]) -> None:
        """Send an answer to the client that waits, if one does."""
        if self.asking is not None:
            _reply(self.asking, in_language(fields, self.language))
            self.asking = None

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


def _reply(connection: socket.socket, fields: dict[str, Any]) -> None:
    with suppress(OSError):  # the client has gone: what was done stays done
        connection.sendall(json.dumps(fields).encode() + b"\n")
    connection.close()


def open_(wanted: Spec, failure: Failure, *, by_hand: bool) -> StepAnswer:
    """Leave an agent behind for the window of *wanted*; raises what keeps the window from beginning."""
    journal = RolloutJournal.of(wanted)
    if journal.state(wanted.id) == "finished":
        nothing = {task: answer.to_dict() for task, answer in steps.plan(steps.checked(wanted)).items()}
        sentence = Text("{id} is finished already; nothing is stopped.", id=wanted.id)
        return StepAnswer(said=[sentence], more={"opened": False, "plan": nothing})
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        _hold(wanted, journal, failure, writing, by_hand=by_hand)
    os.close(writing)
    with os.fdopen(reading, "r", encoding="utf-8") as file:
        ready, _, _ = select.select([file], [], [], OPEN_TIMEOUT_S)
        reply = file.readline() if ready else ""
    if not reply:
        raise CallAPerson("The process of the window did not start. See {log}.", log=wanted.rollout_dir / "holder.log")
    fields = json.loads(reply)
    if "msg" in fields:
        raise (Misuse if fields["misuse"] else TryAgain)(fields["msg"])
    how = msgid("Process {pid} does the window; it goes on by itself {pace_s:g} s after the last request.")
    if by_hand:
        how = msgid("Process {pid} waits up to {minutes:g} min for each request, then takes all back.")
    sentence = Text(how, pid=fields["pid"], pace_s=PACE_S, minutes=BY_HAND_S / 60)
    return StepAnswer(changed=True, said=[sentence], more={"opened": True})


def _hold(wanted: Spec, journal: RolloutJournal, failure: Failure, opened: int, *, by_hand: bool) -> None:
    """Be the agent, from the fork to its exit; never returns."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pipe, code = os.fdopen(opened, "w", encoding="utf-8"), 1
    try:
        with Interruption() as interruption, locked(wanted.rollout_dir, work=WINDOW), _listening(wanted) as listener:
            window.make_ready(wanted, journal)
            _let_go(wanted.rollout_dir / "holder.log")
            _leave_session()
            pipe.write(json.dumps({"pid": os.getpid()}) + "\n")
            pipe.close()
            language = wanted.env.get("LECTERN_LANG", ENGLISH)
            pace = RolloutAgent(listener, by_hand, interruption.check, language)
            try:
                window.through(window.Window(wanted, journal, interruption, pace=pace))
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
def address(folder: Path) -> Iterator[str]:
    """A short path to the socket in *folder*: a socket's path is limited to 108 bytes."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


@contextmanager
def _listening(wanted: Spec) -> Iterator[socket.socket]:
    """The socket, which only its owner may use; it is removed when the agent ends."""
    path = wanted.rollout_dir / SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            with address(wanted.rollout_dir) as place:
                listener.bind(place)
        finally:
            os.umask(before)
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


def _leave_session() -> None:
    """Under systemd, move to a unit of its own: else the end of the caller's session (ssh) could end this process.

    It does what `systemd-run --scope` does, but for a running process that has everything imported.
    """
    if not _SYSTEMD.is_dir():
        return
    properties = ["PIDs", "au", "1", str(os.getpid()), "CollectMode", "s", "inactive-or-failed"]
    words = ["ssa(sv)a(sa(sv))", f"lectern-rollout-{os.getpid()}.scope", "fail", "2", *properties, "0"]
    place = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    argv = ["busctl", "--system", "call", *place, "StartTransientUnit", *words]
    try:
        done = asyncio.run(subprocesses.run(argv, timeout_s=_SYSTEMD_S))
        reason = "" if done.returncode == 0 else done.last_words or f"it ended with {done.returncode}"
    except LecternError as error:
        reason = error.message
    if reason:
        sys.stderr.write(f"The agent stays in the session of its caller: {reason}\n")
        sys.stderr.flush()


def ended(asked: Installed, task: str) -> StepAnswer:
    """What happened to *task* when the agent has ended; raises unless the window is finished."""
    journal = RolloutJournal.of(asked)
    begun = [note.id for note in journal.notes() if (note.step, note.state) == ("window", "begin")]
    last = begun[-1] if begun else ""
    state = journal.state(last)
    if state == "finished":
        return StepAnswer(said=[Text("{task}: {last} is finished; the host went on by itself.", task=task, last=last)])
    why = next((note.detail["why"] for note in reversed(journal.round(last)) if note.step == "failed"), None)
    if state == "rolledback":
        why = why or Text("{id} was taken back.", id=last)
        raise CallAPerson("{task}: {why} The host is as it was before.", task=task, why=why)
    if state == "half":
        raise TryAgain(
            "{task}: the process that did the window ended in the middle. {why} Run the same rollout again, "
            "which goes on; or take it back.",
            task=task,
            why=why or "",
        )
    raise Misuse("{task}: nothing was begun on this host, or its process has given up. Nothing was stopped.", task=task)
