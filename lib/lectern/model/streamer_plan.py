"""What a flow of a streamer has decided, as one value: the writer commits it, the printer shows it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lectern import errors, i18n
from lectern.errors import ErrorCode
from lectern.i18n import Text, labelled, packed, wire
from lectern.model.facts import Airing, AsRun, Cached, Idle
from lectern.model.plan import Decided, Increment, RowChange
from lectern.model.tables.streamer import classes, dirs, files, tasks
from lectern.model.views import DETAIL_TOLD, EventView
from lectern.rendition_ids import rendition_path
from lectern.settings import StreamerSettings
from lectern.states import AIRING_MOVES, FILE_MOVES, LIVE_AIRINGS, AiringState, FileState, check_move
from lectern.wire.fields import called
from lectern.wire.messages import AiringEvent, AiringReport, Prepare, Report
from lectern.wire.outgoing import Outgoing, OutgoingKind

AS_RUN_TOLD, EVENTS_TOLD = 150, 60
"""Number of parts and of events of a class that its teacher is told: a message may be 64 KiB long."""

_CLASS = ("state", "record_id", "run_id", "code", "message", "placement")
"""The values of a class whose columns have their names; `become` writes the others."""

_TASK = ("video_url", "push_url", "start_time", "end_time", "institution_id")
ANY_PLACEMENT = 2**31 - 1


@dataclass
class StreamerChanges(Decided[StreamerSettings]):
    """What a flow of a streamer has decided; nothing of it happens before it is committed."""

    cited: Counter[str] = field(default_factory=Counter)  # citations that renditions gain, or lose
    session: str | None = None  # of the lease that is held from now on
    checks: Sequence[tuple[float, int]] = ()  # the last ones of downloads on its host: seconds, and bytes
    # done after the commit
    admitted: list[tuple[Prepare, AiringState]] = field(default_factory=list)  # classes that are new or have come back
    moved: list[Airing] = field(default_factory=list)  # classes that come to another state, as they are then
    amended: list[tuple[Airing, Airing]] = field(default_factory=list)  # a class, and its revision, which it becomes
    evicted: list[Idle] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # renditions
    reserved: list[str] = field(default_factory=list)  # renditions to download
    downloaded_bytes: int = 0
    missing_s: list[float] = field(default_factory=list)  # seconds that each class lacks that was aired to its end

    @property
    def ready(self) -> list[float]:
        """When the classes begin that became ready with these changes (epoch seconds)."""
        its = [wanted.start_time for wanted, state in self.admitted if state is AiringState.READY]
        return its + [one.start_time for one in self.moved if one.state is AiringState.READY]

    @property
    def unconfirmed(self) -> list[str]:
        """The revisions that wait from now on for the playout to confirm them."""
        its = [one for one in self.rows.values() if one.table is classes and one.after is not None]
        return [str(one.key["class_id"]) for one in its if (one.after or {}).get("unconfirmed_since") is not None]

    def row(self, class_id: str, decision: str, detail: str = "") -> None:
        """Add one line to the table that the run shows in the UI."""
        self.table.append({"class": class_id, "decision": decision, "detail": detail})

    # -- a class -------------------------------------------------------------------------------------------------------

    def admit(self, wanted: Prepare, state: AiringState, **more: object) -> None:
        """Make the rows of a class instead of any that it has; the old program's table is filled as that did."""
        if state in LIVE_AIRINGS:
            self.cited[wanted.stem] += 1
        self.admitted.append((wanted, state))
        key, of_task = {"class_id": wanted.class_id}, {name: getattr(wanted, name) for name in _TASK}
        self.change(tasks, key, None, {**key, **of_task, "status": state})
        site = str(rendition_path(self.settings.video_root, wanted.stem))
        of_class = {"video_id": wanted.stem, "site": site, "record_id": wanted.record_id, "placement": wanted.placement}
        self.change(classes, key, None, {**key, **of_class, "state": state, "updated_at": self.now, **more})

    def refuse(self, wanted: Prepare, code: ErrorCode, why: str) -> None:
        """Refuse a class and report it; the refusal is kept, so that a second delivery gets the same one."""
        # Released at once: it never cited its rendition.
        self.admit(wanted, AiringState.REFUSED, code=code.number, message=why, released_at=self.now)
        self.report("prepared", wanted, code, why)
        self.note("refused", wanted, labelled(code.number, why))
        self.row(wanted.class_id, f"refuse {code.number}", why)

    def move(self, one: Airing, state: AiringState, code: ErrorCode | None = None, message: str = "") -> Airing:
        """Move a class to *state*; raises ForbiddenMove if the tables have no such move. Returns it as it is then.

        A class that is over cites its rendition no more; one that waits again has lost its file.
        """
        check_move(AIRING_MOVES, one.class_id, one.state, state)
        waits = state is AiringState.WAITING
        after = self.become(
            one,
            {"updated_at": self.now},
            state=state,
            message=message,
            code=one.code if code is None else code.number,
            lost=waits or (one.lost and state is not AiringState.READY),
            run_id=None if waits else one.run_id,
            cites=one.cites and state in LIVE_AIRINGS,
        )
        self.moved.append(after)
        return after

    def give_up(self, one: Airing) -> None:
        """Take back the citation of a class that is over, once; its state and reason stay."""
        self.become(one, {}, cites=False)

    def amend(self, one: Airing, revision: Airing) -> Airing:
        """Give a class the content of its *revision*, which is cancelled. Returns the class as it is then."""
        its = {name: getattr(revision, name) for name in (*_TASK, "stem", "record_id")}
        runs_on = revision.start_time == one.start_time or one.state is not AiringState.READY
        after = self.become(one, {"updated_at": self.now}, **its, run_id=one.run_id if runs_on else None)
        self.cited.update([revision.stem])
        self.uncite(one.stem)
        self.amended.append((one, revision))
        self.move(revision, AiringState.CANCELLED)
        if after.state is AiringState.WAITING and revision.state is AiringState.READY:
            after = self.move(after, AiringState.READY)
            self.report("prepared", after, message=Text("changed to a recording that is here"))
        elif after.state in {AiringState.READY, AiringState.ON_AIR} and revision.state is AiringState.WAITING:
            after = self.move(after, AiringState.WAITING)
        return after

    def uncite(self, stem: str) -> None:
        """Take one citation back, never below 0; the file stays."""
        self.cited[stem] -= 1

    def wait(self, revisions: Iterable[str], since: float | None) -> None:
        """Note since when *revisions* wait for the playout to confirm them; None if they wait no more."""
        for one in revisions:
            self.change(classes, {"class_id": one}, {}, {"unconfirmed_since": since})

    def bar(self, class_id: str, placement: int) -> None:
        """Note that an unknown class was released, up to *placement*."""
        after = {"class_id": class_id, "video_id": "", "state": AiringState.CANCELLED, "placement": placement}
        self.change(classes, {"class_id": class_id}, None, {**after, "updated_at": self.now, "released_at": self.now})

    def become(self, one: Airing, noted: Mapping[str, object], **after: Any) -> Airing:  # noqa: ANN401 (fields of an airing)
        """Give a class the values *after*, and *noted*, columns that no decision reads. Returns it as it is then."""
        new = {name: value for name, value in after.items() if value != getattr(one, name)}
        key, before = {"class_id": one.class_id}, dict[str, object]()
        of_task = {name: new[name] for name in _TASK if name in new}
        of_class = {**noted, **{name: new[name] for name in _CLASS if name in new}}
        if "state" in new:
            of_task["status"] = new["state"]
            if one.state is not AiringState.WAITING:  # so is read a row of the old program, too, which has NULL
                before["state"] = one.state
        if "stem" in new:
            of_class |= {"video_id": new["stem"], "site": str(rendition_path(self.settings.video_root, new["stem"]))}
        if "lost" in new:
            of_class["lost_at"] = self.now if new["lost"] else None
        if "cites" in new:
            before["released_at"], of_class["released_at"] = None, self.now
            self.uncite(one.stem)
        for table, columns in ((classes, of_class), (tasks, of_task)):
            if columns:
                self.change(table, key, before if table is classes else {}, columns)
        return replace(one, **new)

    # -- a rendition ---------------------------------------------------------------------------------------------------

    def evict(self, gone: Sequence[Idle]) -> None:
        """Take renditions out of the cache, and forget downloads that have not begun; files go after the commit."""
        self.evicted += gone
        for one in gone:
            self.note("evicted", stem=one.stem)
            if one.queued:
                self.change(files, {"id": one.stem}, {}, None)
                self._add(reserved_bytes=-one.size_bytes, reserved_num=-1)
            else:
                check_move(FILE_MOVES, one.stem, FileState.READY, FileState.EVICTING)
                self.change(files, {"id": one.stem}, {}, {"state": FileState.EVICTING})
                self._add(size=-one.size_bytes, num=-1)

    def lose(self, row: Cached) -> None:
        """Forget a rendition whose file was in the cache and is lost."""
        self.lost.append(row.stem)
        self.change(files, {"id": row.stem}, {}, None)
        self._add(size=-row.size_bytes, num=-1)

    def reserve(self, stem: str, size_bytes: int, url: str, source: str | None) -> None:
        """Reserve room for a download; *source* is the recording if that has no record_id."""
        self.reserved.append(stem)
        site = str(rendition_path(self.settings.video_root, stem))
        after = {"id": stem, "num_cite": 0, "site": site, "update_time": self.now, "state": FileState.DOWNLOADING}
        its = {"size_bytes": size_bytes, "url": url, "source": source, "tries": 0}
        self.change(files, {"id": stem}, None, {**after, **its})
        self._add(reserved_bytes=size_bytes, reserved_num=1)

    def resize(self, before: Cached, size_bytes: int) -> None:
        """Change a reservation to the size that its download really has."""
        self.change(files, {"id": before.stem}, {}, {"size_bytes": size_bytes})
        self._add(reserved_bytes=size_bytes - before.size_bytes)

    def arrive(self, before: Cached, size_bytes: int, crc64: int | None = None, **more: float | str | None) -> None:
        """Count a download that is complete and in its place as used, no longer as reserved; *more* are columns."""
        self.downloaded_bytes += size_bytes
        its = {"size_bytes": size_bytes, "crc64": None if crc64 is None else str(crc64), **more}
        self._over(before, FileState.READY, {**its, "update_time": self.now, "reason": None, "run_id": None})
        self._add(size=size_bytes, num=1)

    def fail(self, before: Cached, reason: str) -> None:
        """Give back the reservation of a download that failed for good, and keep the reason."""
        self._over(before, FileState.BAD, {"num_cite": 0, "reason": reason})

    def _over(self, before: Cached, state: FileState, its: Mapping[str, object]) -> None:
        check_move(FILE_MOVES, before.stem, before.state, state)
        self.change(files, {"id": before.stem}, {"state": before.state}, {"state": state, **its})
        self._add(reserved_bytes=-before.size_bytes, reserved_num=-1)

    def _add(self, **sums: int) -> None:
        more = {name: Increment(number) for name, number in sums.items()}
        self.change(dirs, {"dir": str(self.settings.video_root)}, {}, more)

    # -- the rows ------------------------------------------------------------------------------------------------------

    def written(self) -> list[RowChange]:
        """All rows that are changed, with the citations of renditions; one that is cited is used, too."""
        found = dict(self.rows)
        for stem, number in self.cited.items():
            used: dict[str, object] = {"update_time": self.now} if number >= 0 else {}
            one = RowChange(files, {"id": stem}, {}, {"num_cite": Increment(number), **used})
            known = found.get((files, stem))
            found[files, stem] = one if known is None else known.then(one)
        return list(found.values())

    # -- what is said --------------------------------------------------------------------------------------------------

    def report(
        self,
        cmd: Literal["prepared", "ended"],
        about: Airing | Prepare,
        code: ErrorCode | None = None,
        message: str = "",
        parts: Sequence[AsRun] = (),
        events: Sequence[EventView] = (),
    ) -> None:
        """Report to the teacher how the Prepare of a class went, or how the class ended.

        *parts* are what was sent of it, *events* its story on this streamer.
        """
        told: list[dict[str, Any]] = []
        for event in events[-EVENTS_TOLD:]:
            told.append({"at": event.at, "what": event.what, "detail": event.detail[:DETAIL_TOLD]})
            if len(event.detail) <= DETAIL_TOLD and isinstance(pair := packed(event.detail), dict):
                told[-1]["sentence"] = pair
        sent = {"as_run": [one.row() for one in parts] or None, "events": told or None}
        self.report_as(cmd, about.class_id, about.placement, (code, message), **sent)

    def report_amended(
        self, revision: str, placement: int, of_placement: int, code: ErrorCode | None = None, message: str = ""
    ) -> None:
        """Report that a class is aired as its *revision* says, or why it is not; *of_placement* is the class's."""
        self.report_as("amended", revision, placement, (code, message), of_placement=of_placement)

    def report_as(
        self,
        cmd: Literal["prepared", "amended", "ended"],
        class_id: str,
        placement: int,
        why: tuple[ErrorCode | None, str],
        **more: Any,  # noqa: ANN401 (fields of a report)
    ) -> None:
        """Report of a class by its id, also of one that never came."""
        code, message = why
        is_aired = code in {None, errors.AIRED_WITH_GAPS}
        said = {"result": "success" if is_aired else "fail", "code": code.number if code else 0, "message": message}
        whose = {"class_id": class_id, "streamer": self.settings.name, "placement": placement}
        report = Report(cmd=cmd, **whose, **said, **wire(message), **more)
        self.sends.append(Outgoing(self.settings.report_stream, OutgoingKind.STREAM, report, class_id))

    def state(self, one: Airing, event: AiringEvent, at: float, why: str = "", since: float | None = None) -> None:
        """Tell the teacher how a class is aired since *at*, for the platform; *since*: what it ends began then."""
        its = {"class_id": one.class_id, "streamer": self.settings.name, "placement": one.placement}
        report = AiringReport(**its, event=event, at=at, since=since, message=why, **i18n.wire(why))
        self.sends.append(Outgoing(self.settings.report_stream, OutgoingKind.STREAM, report, one.class_id))

    def alarm(self, code: ErrorCode, said: str, about: Airing | Prepare, *, noted: bool = True) -> None:
        """Raise an alarm about a class; with *noted*, the class's story has it, too."""
        self.raise_alarm(code, said, class_id=called(about.class_id), record_id=about.record_id)
        if noted:
            self.note("alarm", about, said)
