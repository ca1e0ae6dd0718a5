"""Everything that prevents a rollout, found before anything is stopped: one sentence each, with what to type."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

import httpx
from redis.exceptions import NoPermissionError

from lectern.errors import LecternError
from lectern.i18n import BESIDE, Text, joined
from lectern.redis import connection
from lectern.rollout import files, on_air, redis_keys, rollback, settings_files, steps
from lectern.rollout.backup import host, store
from lectern.rollout.backup.store import Store
from lectern.rollout.files import sha256
from lectern.rollout.journal import RolloutJournal, State, process_at_work
from lectern.rollout.result import Failed, StepAnswer, shown, some
from lectern.rollout.spec import Spec
from lectern.rollout.supervisord import Supervisord
from lectern.states import BookingState

CLOCK_TOLERANCE_S = 2.0
ASK_TIMEOUT_S = 10.0
_OPEN = (BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED, BookingState.READY)

T = TypeVar("T")
Gate = Callable[[T], Iterable[str] | None]


def preflight(wanted: Spec, *, check: bool = False) -> StepAnswer:
    """How far this host is and what is to be done; raises Failed with everything that is in the way.

    A *check* is also made before the release is staged and before wget is installed, so it does not ask for them.
    """
    state = RolloutJournal.of(wanted).state(wanted.id)
    answer = StepAnswer(more={"state": state, "id": wanted.id})
    work = steps.checked(wanted)
    skipped: set[Gate[Spec]] = set() if work.stops else {classes, host.refuse_small_disk}
    skipped |= {programs} if check else set()
    skipped |= {release} if check and not wanted.release.exists() else set()
    faults = [sentence for gate in _GATES[state] if gate not in skipped for sentence in _asked(gate, wanted)]
    if _GATES[state] is _BEFORE and work.is_first:
        faults += [sentence for gate in (keys, adoptable) for sentence in _asked(gate, work)]
    if faults:
        answer.say(*faults)
        listed = [Text("({number}) {fault}", number=number, fault=fault) for number, fault in enumerate(faults, 1)]
        message = Text.many(
            "One thing is in the way of {id}: {faults}",
            "{n:,} things are in the way of {id}: {faults}",
            n=len(faults),
            id=wanted.id,
            faults=joined(listed, BESIDE) if len(faults) > 1 else faults[0],
        )
        raise Failed(message, answer)
    answer.say(*steps.plan(work).said)
    return answer


def _asked(gate: Gate[T], about: T) -> list[str]:
    try:
        return list(gate(about) or ())
    except LecternError as error:
        return [error.message]
    except OSError as error:
        thing = error.filename or gate.__name__
        return [Text("{thing}: {error}. Run this as root.", thing=thing, error=error.strerror or error)]


# -- the gates ----------------------------------------------------------------------------------------------------


def other_rollout(wanted: Spec) -> Iterator[str]:
    """Refuse if a rollout is at work on this host now, another is half done, or the rollback of this one."""
    history = RolloutJournal.of(wanted).history()
    if (process := process_at_work(wanted.rollout_dir)) is not None:  # no time-out of this one may end it
        yield Text(
            "{rollout}: another rollout is at work on this host (process {process}). Wait until it is done (ps -p "
            "{process}), then run this again; to take back what it does, type {command}.",
            rollout=history.half or Text("nothing is stopped yet"),
            process=process,
            command=rollback.TYPE,
        )
    elif history.half is not None and history.taking_back:
        yield Text(
            "The rollback of {half} was begun and did not end. Finish it first: {command}.",
            half=history.half,
            command=rollback.TYPE,
        )
    elif history.half not in {None, wanted.id}:
        yield Text(
            "Another rollout, {half}, is half done here. Run it again with its inventory, or take it back: {command}.",
            half=history.half,
            command=rollback.TYPE,
        )


def user(wanted: Spec) -> None:
    """Refuse if this host does not know the user of the program."""
    files.Owner.user(wanted.user, 0o600)


def places(wanted: Spec) -> Iterator[str]:
    """Refuse if a folder, or a file of the old program, is missing."""
    for name, folder in (("code_dir", wanted.code_dir), ("programs_dir", wanted.programs_dir)):
        if not folder.is_dir():
            yield Text("{folder}: there is no such folder. Correct `{name}`.", folder=folder, name=name)
    first = RolloutJournal.of(wanted).history().last is None
    missing = [str(conf) for conf in wanted.old_confs if not conf.exists()]
    if first and missing:
        yield Text(
            "{missing}: the old program's supervisor file is not there. Correct `old_programs` (ls {programs_dir}).",
            missing=", ".join(missing),
            programs_dir=wanted.programs_dir,
        )
    if first and wanted.role == "streamer" and wanted.old_programs and not wanted.database.exists():
        yield Text(
            "{database}: the old program's database is not there. Correct `database` (find / -name {name}).",
            database=wanted.database,
            name=wanted.database.name,
        )
    if wanted.current.exists() and not wanted.current.is_symlink():
        yield Text("{current}: it is no link, and nothing may take its place. Move it away.", current=wanted.current)


def release(wanted: Spec) -> Iterator[str]:
    """Refuse if the release is missing, incomplete, or of another version than is wanted."""
    manifest, complete = wanted.release / "manifest.json", wanted.release / ".complete"
    again = Text(
        "Stage it again (rm -r {release}, then ansible-playbook playbooks/rollout.yml).", release=wanted.release
    )
    if not complete.exists() or not manifest.exists():
        yield Text("{release}: the release is not there, or not complete. {again}", release=wanted.release, again=again)
    elif sha256(manifest) != complete.read_text(encoding="utf-8").strip():
        yield Text("{complete}: it was written for another manifest. {again}", complete=complete, again=again)
    elif (version := json.loads(manifest.read_text(encoding="utf-8")).get("version")) != wanted.version:
        yield Text(
            "{manifest}: it is version {version}, and {wanted} is wanted. {again}",
            manifest=manifest,
            version=version,
            wanted=wanted.version,
            again=again,
        )


def silence(wanted: Spec) -> None:
    """Refuse if supervisord does not answer."""
    Supervisord(wanted.supervisorctl).states()


def database_schema(wanted: Spec) -> None:
    """Refuse if the database cannot be brought up to this release."""
    steps.schema_changes(wanted)


def settings(wanted: Spec) -> None:
    """Refuse if a file of settings cannot be read or edited, or if the new program would not start with it."""
    settings_files.as_wanted(wanted)


def left_behind(wanted: Spec) -> Iterator[str]:
    """Refuse if classes that are still to come would stay behind in another database.

    If this rollout replaces the old program, its classes are taken over.
    """
    behind = RolloutJournal.of(wanted).behind(wanted.id)
    if behind is None or wanted.other_database:
        return
    before, after, now = store.of(Spec.of_backup(wanted.backups_dir / behind)), store.of(wanted), time.time()
    if before.shown == after.shown:
        return

    def to_come(database: Store) -> set[str]:
        coming = on_air.coming(database, wanted.role, now)
        return {class_.class_id for class_ in coming if wanted.role == "streamer" or class_.state in _OPEN}

    if left := to_come(before) - to_come(after):
        yield Text(
            "{classes}: booked in {before}, and not in {after}, in which the new program would look. Keep the database "
            "of before, or bring its rows over first; or, if the platform is to book these classes again, add "
            "-e rollout_other_database=true.",
            classes=some(shown(id_) for id_ in sorted(left)),
            before=before.shown,
            after=after.shown,
        )


def programs(wanted: Spec) -> Iterator[str]:
    """Refuse if the wget that the settings name is missing."""
    path = wanted.env.get("wget_path", "wget")
    if wanted.role == "streamer" and shutil.which(path) is None:
        yield Text(
            "{path}: there is no such program. Install it (apt-get install wget), or correct wget_path.", path=path
        )


def redis(wanted: Spec) -> Iterator[str]:
    """Refuse if Redis does not answer, takes no writes or is one of a cluster, or if its clock is off."""
    with redis_keys.opened(wanted, lambda: "Correct redis_url, or start it; nothing was changed.") as client:
        seconds, micros = client.time()
        off_s = time.time() - (int(seconds) + int(micros) / 1e6)
        with suppress(NoPermissionError):
            if client.info("cluster").get("cluster_enabled"):
                yield connection.NO_CLUSTER
        with suppress(NoPermissionError):  # the user may have been given our keys one by one
            client.eval(connection.TRY_WRITE, 1, connection.TRIED_KEY)
    if abs(off_s) > CLOCK_TOLERANCE_S:
        yield Text(
            "This host's clock is {off_s:+.1f} s off that of Redis. Set it (systemctl restart systemd-timesyncd).",
            off_s=off_s,
        )


def prefect(wanted: Spec) -> Iterator[str]:
    """Refuse if the Prefect API does not answer, or rejects the login."""
    url = f"{wanted.prefect_api_url.rstrip('/')}/admin/version"
    auth = wanted.env.get("PREFECT_API_AUTH_STRING")
    name, _, password = (auth or "").partition(":")
    try:
        answer = httpx.get(url, timeout=ASK_TIMEOUT_S, auth=(name, password) if auth else None, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # the latter: no name of a host
        yield Text(
            "{url}: Prefect does not answer ({error}). Start it, or correct prefect_api_url.", url=url, error=error
        )
        return
    if answer.status_code in {401, 403}:
        yield Text("{url}: Prefect refuses the login. Correct PREFECT_API_AUTH_STRING.", url=url)
    elif not answer.is_success:
        yield Text(
            "{url}: Prefect answers {status_code}. Is prefect_api_url right (it ends in /api)?",
            url=url,
            status_code=answer.status_code,
        )


def classes(wanted: Spec) -> Iterator[str]:
    """Refuse if the stop would harm a class or, in an upgrade of a streamer, if its playout does not answer."""
    if wanted.role == "streamer" and not steps.checked(wanted).is_first and (why := on_air.is_missing(wanted)):
        yield Text(
            "{why}. It airs the classes while the host is stopped, and after that. Start it (systemctl start "
            "lectern-playout), or provision the host: ansible-playbook playbooks/provision.yml.",
            why=why,
        )
    yield from on_air.refusals(wanted, time.time())


def health_address(wanted: Spec) -> Iterator[str]:
    """Refuse if nobody could be asked at `health_url`: the program would count as not well, and be taken back."""
    try:
        url = httpx.URL(wanted.health_url)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        yield Text(
            "`{role}_health_url` is no http address, so nobody could ask the new program whether it is well. "
            "Correct it, such as http://127.0.0.1:8801/health; an address of IPv6 stands in brackets.",
            role=wanted.role,
        )


def adoptable(work: steps.StepWork) -> list[str]:
    """Refuse if something of the old program cannot be taken over."""
    return work.takeover[1]


def keys(work: steps.StepWork) -> Iterator[str]:
    """Refuse if a key's new name is taken, or if the rules fit no key, as those of an example."""
    wanted = work.wanted
    if wanted.rekey and not work.renames[0] and not wanted.unmatched_rules:
        message = "; ".join(f"{rule.old} => {rule.new}" for rule in wanted.rekey)
        yield Text(
            "The rules for the old program's keys ({message}) fit no key in Redis. Correct `teacher_rekey` "
            "(redis-cli --scan shows what there is); if there are none to rename, add "
            "-e rollout_unmatched_rules=true.",
            message=message,
        )


_ALWAYS: tuple[Gate[Spec], ...] = (
    other_rollout,
    release,
    user,
    places,
    silence,
    settings,
    health_address,
    redis,
    prefect,
)
_BEFORE: tuple[Gate[Spec], ...] = (*_ALWAYS, host.refuse_small_disk, database_schema, left_behind, programs, classes)
_GATES: dict[State, tuple[Gate[Spec], ...]] = {
    "untouched": _BEFORE,
    "rolledback": _BEFORE,
    "half": (*_ALWAYS, classes),  # the window goes on: no class keeps programs down that are stopped already
    "finished": (),
}
