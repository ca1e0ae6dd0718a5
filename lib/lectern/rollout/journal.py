"""The rollout's journal on a host, recorded before and after each step; its lock, and the signals that end it."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.i18n import Text, msgid
from lectern.rollout import files
from lectern.rollout.spec import Installed, Spec
from lectern.rollout.supervisord import Beat, States

State = Literal["untouched", "half", "finished", "rolledback"]
Phase = Literal["begin", "done"]

LOCK_TIMEOUT_S = 10.0
TAKE_BACK_S = 300.0
"""Seconds within which a window that was sent SIGTERM has ended its step and undone everything."""
WINDOW = "window"
_POLL_S = 0.05


@dataclass(frozen=True)
class JournalNote:
    """One line of the journal."""

    at: float
    id: str
    step: str
    state: Phase
    detail: Any = None


class RolloutJournal:
    """Append-only lines of JSON, a history for each role; a line that a crash has torn was never begun."""

    def __init__(self, path: Path, role: str) -> None:
        self.path, self._role = path, role

    @classmethod
    def of(cls, wanted: Installed) -> "RolloutJournal":
        """The journal of the host and role of *wanted*."""
        return cls(wanted.rollout_dir / "journal.jsonl", wanted.role)

    def notes(self) -> list[JournalNote]:
        """All complete lines of this role, in their order.

        Raises CallAPerson if a line that is not the last cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        *whole, _torn = data.split(b"\n")
        notes: list[JournalNote] = []
        for number, line in enumerate(whole, 1):
            try:
                known = json.loads(line)  # a newer release may have added fields
                note = JournalNote(**{name: known[name] for name in JournalNote.__annotations__ if name in known})
            except (ValueError, TypeError) as error:
                if line:  # an empty line comes from a line that was cut off
                    raise CallAPerson(
                        "{path}: line {number} cannot be read ({error}). Look at it with a person who knows what "
                        "was done here; take the line out, then run this again.",
                        path=self.path,
                        number=number,
                        error=error,
                    ) from error
                continue
            if note.id.startswith(f"{self._role}-"):
                notes.append(note)
        return notes

    def note(self, id_: str, step: str, state: Phase, detail: Any = None) -> None:  # noqa: ANN401 (any JSON)
        """Append one line; it is on the disk when this returns."""
        fields = {"at": round(time.time(), 3), "id": id_, "step": step, "state": state}
        if detail is not None:
            fields["detail"] = detail
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # torn by a crash: it was never begun
                data = self.path.read_bytes().rpartition(b"\n")[0]
                os.ftruncate(descriptor, len(data) + 1 if data else 0)
            left = memoryview(json.dumps(fields).encode() + b"\n")
            while left:  # a disk that is almost full takes a part, and refuses the next one
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            files.sync(self.path.parent)

    def state(self, id_: str) -> State:
        """How far the rollout *id_* is on this host, by the journal alone."""
        return self.history().state(id_)

    def history(self) -> "History":
        """The history that all lines together tell."""
        return History.of(self.notes())

    def behind(self, id_: str) -> str | None:
        """The id of the rollout that *id_* replaced, or would replace; None if it replaces the old program."""
        notes = self.notes()
        begun = [at for at, note in enumerate(notes) if (note.id, note.step, note.state) == (id_, "window", "begin")]
        standing = History.of(notes[: begun[-1]] if begun else notes).standing
        return next((other for other in reversed(standing) if other != id_), None)

    def was_reload(self, id_: str) -> bool:
        """Whether the last window of *id_* stopped nothing."""
        return any(note.step == "window" and "reload" in note.detail for note in self.round(id_)[:1])

    def states_before(self, id_: str) -> States:
        """The state of each program before the last window of *id_*; empty if none was begun."""
        return next((note.detail["states"] for note in self.round(id_)[:1] if note.step == "window"), {})

    def round(self, id_: str) -> list[JournalNote]:
        """The lines of *id_* since its window was begun last; a resumed window is the same round."""
        notes = [note for note in self.notes() if note.id == id_]
        begun = [at for at, note in enumerate(notes) if (note.step, note.state) == ("window", "begin")]
        return notes[begun[-1] if begun else 0 :]


@dataclass(frozen=True)
class History:
    """The rollouts that stand on this host, each upon the one before, and the one that is half done, if any."""

    standing: tuple[str, ...]
    """Ids of finished rollouts that were not rolled back, the newest last."""
    half: str | None
    taking_back: bool
    """Whether the half-done step is a rollback."""
    rolledback: frozenset[str]
    back: JournalNote | None
    """The end of the rollback that was done last; None if anything was begun since."""

    @classmethod
    def of(cls, notes: list[JournalNote]) -> "History":
        """The history that *notes*, in their order, tell."""
        standing: list[str] = []
        half: str | None = None
        taking_back, back = False, None
        rolledback: set[str] = set()
        for note in notes:
            match note.step, note.state:
                case "window", "begin":
                    half, taking_back, back = note.id, False, None
                    rolledback.discard(note.id)
                case "rollback", "begin":
                    half, taking_back, back = note.id, True, None
                case "committed", "done":
                    standing.append(note.id)
                    half = None
                case "rolledback", "done":
                    half, taking_back, back = None, False, note
                    rolledback.add(note.id)
                    if standing and standing[-1] == note.id:
                        standing.pop()
                case _:
                    pass
        return cls(tuple(standing), half, taking_back, frozenset(rolledback), back)

    def back_of(self, asked: Installed) -> JournalNote | None:
        """The end of the rollback that was done last, if it took back the version that is asked for."""
        is_asked_for = self.back is not None and self.back.id.startswith(f"{asked.role}-{asked.version}-")
        return self.back if is_asked_for else None

    def state(self, id_: str) -> State:
        """How far the rollout *id_* is."""
        if self.half == id_:
            return "half"
        if self.standing[-1:] == (id_,):
            return "finished"
        return "rolledback" if id_ in self.rolledback else "untouched"

    @property
    def last(self) -> str | None:
        """The id of the rollout that a rollback of this host would undo."""
        return self.half or next(reversed(self.standing), None)


def named(wanted: Spec) -> Spec:
    """*wanted* under a name that no other rollout has that stands on this host.

    A setting that was changed and is changed back wants the same as a rollout that stands below another one, whose
    backup is still needed: it is rolled out again under a name of its own.
    """
    history = RolloutJournal.of(wanted).history()
    specs = (wanted.model_copy(update={"again": number}) for number in count())
    return next(it for it in specs if it.id not in history.standing or history.state(it.id) in {"half", "finished"})


@contextmanager
def interruption() -> Iterator[Beat]:
    """Let SIGTERM and SIGINT wait for the yielded check, which raises TryAgain if one of them has arrived.

    The loss of the terminal or of ssh is ignored meanwhile.
    """
    arrived: list[int] = []

    def check() -> None:
        if arrived:
            raise TryAgain("Ended by {name}.", name=signal.Signals(arrived[-1]).name)

    handlers: dict[signal.Signals, signal._HANDLER] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), lambda number, _frame: arrived.append(number))
        handlers[signal.SIGHUP] = signal.SIG_IGN
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(
    rollout_dir: Path, timeout_s: float = LOCK_TIMEOUT_S, *, work: str = "", ends_window: bool = False
) -> Iterator[bool]:
    """Hold the lock of this host's rollout; raises TryAgain, in words, if another has it for *timeout_s*.

    *work* WINDOW says that this process undoes everything on SIGTERM. With *ends_window*, such a process is sent that
    signal and waited for; yields whether one was.
    """
    files.make_folder(rollout_dir)
    path = rollout_dir / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at, has_ended_one = time.monotonic() + timeout_s, False
    try:
        while not _taken(descriptor):
            holder, _, its_work = os.pread(descriptor, 40, 0).decode(errors="replace").partition(" ")
            if ends_window and not has_ended_one and its_work == WINDOW:
                with suppress(ProcessLookupError):
                    os.kill(int(holder), signal.SIGTERM)
                give_up_at, has_ended_one = time.monotonic() + TAKE_BACK_S, True
            if time.monotonic() >= give_up_at:
                raise TryAgain(
                    "{path}: another rollout is at work on this host (process {process}). Wait until it is done "
                    "(ps -p {holder}), then run this again.",
                    path=path,
                    process=holder or "unknown",
                    holder=holder,
                )
            time.sleep(_POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {work}".strip().encode(), 0)
        yield has_ended_one
    finally:
        os.close(descriptor)


def process_at_work(rollout_dir: Path) -> int | None:
    """The process that does a window in *rollout_dir*, found without a word to it; None if there is none."""
    with suppress(FileNotFoundError), (rollout_dir / "lock").open() as lock:
        process, _, work = lock.read().partition(" ")
        if work == WINDOW and not _taken(lock.fileno()):
            return int(process)
    return None


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def standing(asked: Installed) -> Spec | str:
    """The last rollout, which stands or is half done; or a sentence that says why there is nothing to roll back.

    Raises Misuse if the version that is asked for stands, but another one upon it.
    """
    history = RolloutJournal.of(asked).history()
    if history.last is None:
        return Text("No release of lectern stands on this host as {role}; nothing was changed.", role=asked.role)
    spec = Spec.of_backup(asked.backup_of(history.last))
    # A change of settings stands upon its own release. Whoever lost the answer types the same again.
    if (back := history.back_of(asked)) and asked.version == spec.version and not asked.further:
        text = msgid(
            "{id} is rolled back already; nothing was changed. {last}, of the same release, stands: to roll that back, "
            "too, add -e further=true."
        )
        return Text(text, id=back.id, last=history.last)
    if asked.version in {"", spec.version}:
        options = {"restore_database": asked.restore_database, "even_on_air": asked.even_on_air}
        return spec.model_copy(update=options)
    if any(id_.startswith(f"{asked.role}-{asked.version}-") for id_ in history.standing):
        raise Misuse(
            "lectern {version} stands upon {asked} on this host, and goes first. Nothing was changed. Type: "
            "ansible-playbook playbooks/rollback.yml -e release={version}.",
            version=spec.version,
            asked=asked.version,
        )
    text = msgid("lectern {asked} does not stand on this host; what does is {version}. Nothing was changed.")
    return Text(text, asked=asked.version, version=spec.version)


def looked_at(asked: Installed) -> Spec:
    """The rollout that stands on this host; else the one rolled back last, also if its version is asked for.

    Raises Misuse if there never was any, or if another version stands than is asked for.
    """
    history = RolloutJournal.of(asked).history()
    if history.last is not None:
        spec = Spec.of_backup(asked.backup_of(history.last))
        if asked.version in {"", spec.version}:
            return spec
        if history.back_of(asked) is None:
            raise Misuse(
                "lectern {version} is at work on this host, and {asked} was named.",
                version=spec.version,
                asked=asked.version,
            )
    if history.back is None:
        raise Misuse(
            "Nothing was rolled out here as {role}. Type: ansible-playbook playbooks/rollout.yml.", role=asked.role
        )
    return Spec.of_backup(asked.backups_dir / history.back.detail["backup"])
