"""Looks whether a host is as the last step should have left it; changes nothing, whatever is on air."""

from collections.abc import Callable, Iterator

from lectern.db import schema
from lectern.errors import LecternError
from lectern.i18n import BESIDE, Text, joined, msgid
from lectern.rollout import release_link, rollback, settings_files, supervisord
from lectern.rollout.backup import host, opened, store
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import Failed, StepAnswer
from lectern.rollout.spec import Spec
from lectern.rollout.supervisord import Health, Supervisord


def run(wanted: Spec) -> StepAnswer:
    """Check that a finished rollout is complete, or that a rolled back one is gone without a trace; raises Failed."""
    journal = RolloutJournal.of(wanted)
    state = journal.state(wanted.id)
    answer = StepAnswer(more={"state": state})
    faults = list(_FAULTS.get(state, _of_unfinished)(wanted, journal))
    if faults:
        answer.say(*faults)
        told = Text("{id} ({state}): {faults}", id=wanted.id, state=state, faults=joined(faults, BESIDE))
        raise Failed(told, answer)
    answer.say(Text("{id} ({state}): all is as it should be.", id=wanted.id, state=state))
    return answer


def _of_finished(wanted: Spec, _: RolloutJournal) -> Iterator[str]:
    yield from faults_of_new(wanted)
    silent = host.silent(wanted)
    if silent is None:
        yield Text(
            "{backup_dir}: the backup is gone, so this rollout cannot be taken back.", backup_dir=wanted.backup_dir
        )
        return
    try:
        silent.whole_in(wanted.backup_dir / host.SILENT)
    except LecternError as error:
        yield error.message


def faults_of_new(wanted: Spec) -> Iterator[str]:
    """What differs from the wanted state where the new program should run; one sentence each."""

    def of_link() -> list[str]:
        return [Text("{path}: not as wanted.", path=difference.path) for difference in release_link.pending(wanted)]

    looks: list[Callable[[], list[str]]] = [of_link, *(file.faults for file in settings_files.all_of(wanted))]
    looks.append(lambda: _schema(wanted))
    for look in looks:
        try:
            yield from look()
        except LecternError as error:
            yield error.message
    health = Health(wanted, Supervisord(wanted.supervisorctl))
    if not health.is_well():
        yield health.fault()


def _schema(wanted: Spec) -> list[str]:
    with opened(store.of(wanted).url) as engine:
        schema.check(engine, wanted.role)
    return []


def _of_rolledback(wanted: Spec, journal: RolloutJournal) -> Iterator[str]:
    notes = [note for note in journal.notes() if note.id == wanted.id and note.step == "rolledback"]
    folder = wanted.backups_dir / notes[-1].detail["backup"]
    copied = host.read(folder / host.SILENT)
    if copied is not None:
        if not release_link.is_back(wanted, copied.before):
            yield Text(
                "{programs_dir}, {current}: not as before the window (compare with {folder}).",
                programs_dir=wanted.programs_dir,
                current=wanted.current,
                folder=folder,
            )
        yield from (
            Text("{path}: still has our values.", path=file.path)
            for file in settings_files.all_of(wanted)
            if not file.is_back(copied.before)
        )
    before = journal.states_before(wanted.id)
    try:
        states = Supervisord(wanted.supervisorctl).states()
    except LecternError as error:
        yield error.message
        return
    lost = [name for name in sorted(supervisord.ran(before)) if states.get(name) != "RUNNING"]
    text = msgid("{program}: ran before the window, and is {state} now.")
    yield from (Text(text, program=name, state=states.get(name) or Text("gone")) for name in lost)


def _of_unfinished(wanted: Spec, journal: RolloutJournal) -> Iterator[str]:
    history = journal.history()
    if history.half == wanted.id:
        what = Text("rolled back") if history.taking_back else Text("done")
        yield Text("it is half {what}. Run the rollout again, or {command}.", what=what, command=rollback.TYPE)
        return
    other = Text(", {last} was", last=history.last) if history.last else ""
    yield Text("it was not rolled out on this host{other}. Run ansible-playbook playbooks/rollout.yml.", other=other)


_FAULTS = {"finished": _of_finished, "rolledback": _of_rolledback}
"""What is looked at, by the state of a rollout that has ended."""
