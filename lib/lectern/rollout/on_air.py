"""Classes that a stop of this host would harm, and the playout, which airs those of a streamer meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import text

from lectern.db.airings import epoch
from lectern.errors import CallAPerson
from lectern.formatting import moment
from lectern.i18n import Text, msgid
from lectern.migrations.steps import shape
from lectern.playout.control_socket import UPGRADE_S, PlayoutUnreachable, RequestRefused, asked
from lectern.rollout import files
from lectern.rollout.backup import store
from lectern.rollout.backup.store import Store
from lectern.rollout.journal import RolloutJournal
from lectern.rollout.result import StepAnswer, shown, some
from lectern.rollout.spec import Spec
from lectern.rollout.takeover import old_database
from lectern.settings import StreamerSettings
from lectern.states import LIVE_AIRINGS, BookingState

_UNPLACED = frozenset({BookingState.RECEIVED, BookingState.WAITING, BookingState.PLACED})
_START_IT = msgid("{error}. Start it (systemctl start lectern-playout), or provision the host")


def refusals(wanted: Spec, now: float) -> list[str]:
    """A sentence for the classes that a stop at *now* (epoch seconds) would harm; empty if there are none.

    An upgrade harms no class that the playout holds; a teacher's inbox keeps the messages that arrive during the stop.
    """
    pattern = msgid(
        "{classes}: on air or due within {minutes:g} minutes{unheld}. Roll out after {until}, or with "
        "-e rollout_quiet_minutes=0 if only those count that are on air."
    )
    if wanted.role == "teacher":
        pattern = msgid(
            "{classes}: not yet placed on a streamer, and due within {minutes:g} minutes{unheld}. Roll out after "
            "{until}, or with -e rollout_quiet_minutes=0 if only those count that are on air."
        )
    return _told(wanted, now, wanted.quiet_minutes, pattern)


def cut_now(wanted: Spec, now: float) -> list[str]:
    """A sentence for the classes that a rollback at *now* (epoch seconds) would cut off; empty if there are none."""
    if wanted.role != "streamer":
        return []
    with suppress(PlayoutUnreachable, RequestRefused):
        is_ours = RolloutJournal.of(wanted).state(wanted.id) == "finished"  # else what ran before may run again
        if is_ours and (status := _asked(socket_of(wanted), "status"))["lease_until"] <= status["boot_now"]:
            return []  # whatever should be on air: without a lease it pushes nothing
    pattern = msgid(
        "{classes}: on air, and would be cut{unheld}. Roll back after {until}, or now with -e even_on_air=true."
    )
    return _told(wanted, now, 0, pattern)


def _told(wanted: Spec, now: float, minutes: float, pattern: str) -> list[str]:
    """The sentence *pattern* for the classes that begin within *minutes*, and that a stop would harm; none if none."""
    is_first = RolloutJournal.of(wanted).behind(wanted.id) is None
    if wanted.role == "teacher" and not is_first:
        return []
    held, why = (frozenset[str](), "") if is_first else _held(wanted)  # the old program has no playout
    harmed: list[tuple[float, float, str]] = []
    for class_id, start, end, state in coming(store.of(wanted), wanted.role, now):
        if start is None or start > now + minutes * 60:
            continue
        what: str = Text("{begin:moment} to {end:moment}", begin=start, end=end)
        is_harmed = class_id not in held
        if wanted.role == "teacher":
            what, is_harmed = f"{moment(start)}, {state}", state in _UNPLACED
        if is_harmed:
            harmed.append((start, end, Text("class {class_id} ({what})", class_id=shown(class_id), what=what)))
    if not harmed:
        return []
    named, until, unheld = some(name for _, _, name in sorted(harmed)), moment(max(until for _, until, _ in harmed)), ""
    if not is_first:
        why = why or Text("the resident has not told it of them yet")
        unheld = Text(", and the playout does not hold them ({why})", why=why)
    return [Text(pattern, classes=named, until=until, unheld=unheld, minutes=minutes)]


class ComingClass(NamedTuple):
    """A class that has not ended; *state* is None if no program of ours has seen it, *start* if it cannot be read."""

    class_id: str
    start: float | None
    end: float
    state: str | None


def coming(database: Store, role: str, now: float) -> Iterator[ComingClass]:
    """The classes in a database that are not over at *now* (epoch seconds); of a teacher's, in whatever state."""
    with database.reading() as connection:
        if role == "streamer":
            known = old_database.classes(connection)
            for row in old_database.tasks(connection):
                state = known[row.class_id].state if row.class_id in known else None
                end = epoch(row.end)
                if end is not None and end > now and (state is None or state in LIVE_AIRINGS):
                    yield ComingClass(row.class_id, epoch(row.start), end, state)
        elif shape(connection, "order_list") is not None:
            wanted = text("SELECT class_id, start_time, end_time, state FROM order_list WHERE end_time > :now")
            yield from (ComingClass(*row) for row in connection.execute(wanted, {"now": now}))


BRIDGE_S = 20.0
"""Seconds that the lease must still last: the window takes a few, and the new resident renews the lease then."""


def socket_of(wanted: Spec) -> Path:
    """The path of the playout's socket, from the wanted settings; relative paths begin in the code folder."""
    return wanted.code_dir / (_of_playout(wanted, "socket") or f"{_of_playout(wanted, 'dir')}/playout.sock")


def _of_playout(wanted: Spec, what: str) -> str:
    settings, name = {name.lower(): value for name, value in wanted.env.items()}, f"playout_{what}"
    return str(settings.get(name, StreamerSettings.model_fields[name].default or ""))


def end_lease(wanted: Spec) -> None:
    """Let the playout air nothing any more: it would go on until its lease is over, beside the old program."""
    with suppress(PlayoutUnreachable):  # then it airs nothing
        asyncio.run(asked(wanted.code_dir / _of_playout(wanted, "dir") / "lease.sock", "lease", until=0))


def _held(wanted: Spec) -> tuple[frozenset[str], str]:
    """The classes that the playout airs, or will air, while the resident is stopped; or why it may air none.

    It holds nothing if it does not answer, or if its lease would end in the window.
    """
    try:
        status = _asked(socket_of(wanted), "status")
    except (PlayoutUnreachable, RequestRefused) as error:
        return frozenset(), Text(_START_IT, error=error)
    left_s = status["lease_until"] - status["boot_now"]
    if left_s < BRIDGE_S:
        left = Text("ends in {left_s:.0f} s", left_s=left_s) if left_s > 0 else Text("has run out")
        text = msgid("its lease {left}, and must last for {bridge_s:g} s. See `lectern playout status`")
        return frozenset(), Text(text, left=left, bridge_s=BRIDGE_S)
    return frozenset(class_["class_id"] for class_ in status["classes"] if class_["state"] != "ended"), ""


def is_missing(wanted: Spec) -> str:
    """Why the playout does not answer; empty if it does."""
    try:
        _asked(socket_of(wanted), "hello")
    except (PlayoutUnreachable, RequestRefused) as error:
        return str(error)
    return ""


def upgrade_playout(wanted: Spec, *, check: bool = False) -> StepAnswer:
    """Let a worker of the release that is installed now take over; classes on air go on in their sessions.

    Raises CallAPerson if the playout refuses, or if none answers: the host would air nothing.
    """
    path = socket_of(wanted)
    before = _answered(path, "hello")
    if before["release"] == wanted.version:
        return StepAnswer(said=[Text("The playout is {version} already.", version=wanted.version)])
    if check:
        would = Text("The playout would be upgraded from {release}.", release=before["release"])
        return StepAnswer(changed=True, said=[would])
    link, target = wanted.root / "playout", f"releases/{wanted.version}"
    led = files.link_target(link)  # from it a provisioned host starts its playout: the next worker is of its release
    is_led = led not in (None, target) and (wanted.root / target).is_dir()
    if is_led:
        files.switch_link(link, target)
    try:
        with suppress(PlayoutUnreachable):  # the old worker ended, as it should
            _asked(path, "upgrade")
    except RequestRefused as error:
        if is_led:
            files.switch_link(link, str(led))
        raise CallAPerson(
            "The playout was not upgraded: {error}. Classes go on with {release}.",
            error=error,
            release=before["release"],
        ) from error
    after = _answered(path, "status")
    if after["release"] == before["release"]:
        if is_led:
            files.switch_link(link, str(led))
        still = Text(
            "The playout is {release} still: it is started neither out of {link} nor out of {current}.",
            release=after["release"],
            link=link,
            current=wanted.current,
        )
        return StepAnswer(said=[still])
    text = Text(
        "The playout is {release} now. It was started again meanwhile, and all its sessions are new.",
        release=after["release"],
    )
    if (taken := after["worker"]["taken_over"]) is not None:
        text = Text(
            "The playout is {release} now: {kept} of {sessions} sessions went on, the longest gap was {gap_s:.2f} s.",
            release=after["release"],
            **{name: taken.get(name, 0) for name in ("kept", "sessions", "gap_s")},
        )
    return StepAnswer(changed=True, said=[text])


def _answered(path: Path, do: str) -> dict[str, Any]:
    """What the playout answers; raises CallAPerson if it is not there: a rollback says so, and goes on."""
    try:
        return _asked(path, do)
    except PlayoutUnreachable as error:
        raise CallAPerson("{sentence}.", sentence=Text(_START_IT, error=error)) from error


def _asked(path: Path, do: str) -> dict[str, Any]:
    return asyncio.run(asked(path, do, timeout_s=UPGRADE_S))
