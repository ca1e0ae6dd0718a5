"""What a flow of a streamer has decided, as one value: the writer commits it, the printer shows it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lectern import errors
from lectern.decided import Decided
from lectern.errors import ErrorCode
from lectern.facts import Airing, AsRun, Cached, Idle
from lectern.messages import Prepare, Report
from lectern.outgoing import Kind, Outgoing
from lectern.settings import StreamerSettings
from lectern.states import AIRING_MOVES, AiringState, check_move
from lectern.told import Past
from lectern.wire import called

AS_RUN_TOLD, EVENTS_TOLD, DETAIL_TOLD = 150, 60, 120
"""Number of parts and of events of a class that its teacher is told, and of characters of each event.

A message may be 64 KiB long.
"""


@dataclass(frozen=True)
class Admitted:
    """A class that is new or has come back; *code* and *message* are set if it was refused at once."""

    wanted: Prepare
    state: AiringState
    code: int | None = None
    message: str | None = None


@dataclass(frozen=True)
class Reserved:
    """Room for a download; *source* is the recording if that has no record_id."""

    stem: str
    size_bytes: int
    url: str
    source: str | None = None


@dataclass(frozen=True)
class Arrived:
    """A download that is complete and in its place."""

    before: Cached
    size_bytes: int
    duration_s: float
    etag: str | None = None
    crc64: int | None = None
    mtime: float | None = None


@dataclass
class StreamerChanges(Decided[StreamerSettings]):
    """What a flow of a streamer has decided; nothing of it happens before it is committed."""

    # classes
    admitted: list[Admitted] = field(default_factory=list)
    placed: list[tuple[str, int]] = field(default_factory=list)  # known classes, and their later placement
    moves: list[tuple[Airing, Airing]] = field(default_factory=list)  # before and after
    amended: list[tuple[Airing, Airing]] = field(default_factory=list)  # a class, and its revision, which it becomes
    unconfirmed: list[str] = field(default_factory=list)  # revisions whose content the playout is to confirm
    settled: list[str] = field(default_factory=list)  # revisions that wait for the playout no more
    given_up: list[Airing] = field(default_factory=list)  # broken, and over: nobody can retry them any more
    released_early: list[tuple[str, int | None]] = field(default_factory=list)  # before they came; up to a placement
    taken_away: list[str] = field(default_factory=list)  # classes that are over here, and moved or cancelled
    sent: list[tuple[str, Sequence[AsRun]]] = field(default_factory=list)  # parts that were sent of a class
    missing_s: list[float] = field(default_factory=list)  # seconds that each class lacks that was aired to its end
    session: str | None = None  # of the lease that is held from now on
    # renditions
    evicted: list[Idle] = field(default_factory=list)
    lost: list[Cached] = field(default_factory=list)
    reserved: list[Reserved] = field(default_factory=list)
    resized: list[tuple[Cached, int]] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    failed: list[tuple[Cached, str]] = field(default_factory=list)
    cited: Counter[str] = field(default_factory=Counter)

    @property
    def ready(self) -> list[float]:
        """When the classes begin that became ready with these changes (epoch seconds)."""
        return [one.wanted.start_time for one in self.admitted if one.state is AiringState.READY] + [
            after.start_time for _, after in self.moves if after.state is AiringState.READY
        ]

    def row(self, class_id: str, decision: str, detail: str = "") -> None:
        """Add one line to the table that the run shows in the UI."""
        self.table.append({"class": class_id, "decision": decision, "detail": detail})

    def admit(self, wanted: Prepare, state: AiringState) -> None:
        """Take a class, which cites its rendition."""
        self.admitted.append(Admitted(wanted, state))
        self.cited[wanted.stem] += 1

    def refuse(self, wanted: Prepare, code: ErrorCode, why: str) -> None:
        """Refuse a class and report it; the refusal is kept, so that a second delivery gets the same one."""
        self.admitted.append(Admitted(wanted, AiringState.REFUSED, code.number, why))
        self.report("prepared", wanted, code, why)
        self.note("refused", wanted, f"{code.number}: {why}")
        self.row(wanted.class_id, f"refuse {code.number}", why)

    def move(self, one: Airing, state: AiringState, code: ErrorCode | None = None, message: str = "") -> Airing:
        """Move a class to *state*; raises ForbiddenMove if the tables have no such move. Returns it as it is then."""
        check_move(AIRING_MOVES, one.class_id, one.state, state)
        # A class that waits again has lost its file.
        lost = state is AiringState.WAITING or (one.lost and state is not AiringState.READY)
        after = replace(one, state=state, message=message, code=one.code if code is None else code.number, lost=lost)
        self.moves.append((one, after))
        return after

    def amend(self, one: Airing, revision: Airing) -> Airing:
        """Give a class the content of its *revision*, which is cancelled. Returns the class as it is then."""
        its = {name: getattr(revision, name) for name in ("stem", "push_url", "start_time", "end_time", "record_id")}
        runs_on = revision.start_time == one.start_time or one.state is not AiringState.READY
        after = replace(one, **its, run_id=one.run_id if runs_on else None)
        self.amended.append((one, revision))
        self.move(revision, AiringState.CANCELLED)
        if after.state is AiringState.WAITING and revision.state is AiringState.READY:
            after = self.move(after, AiringState.READY)
            self.report("prepared", after, message="changed to a recording that is here")
        elif after.state in {AiringState.READY, AiringState.ON_AIR} and revision.state is AiringState.WAITING:
            after = self.move(after, AiringState.WAITING)
        return after

    def evict(self, gone: Sequence[Idle]) -> None:
        """Take renditions out of the cache; their files go after the commit."""
        self.evicted += gone
        for one in gone:
            self.note("evicted", stem=one.stem)

    def report(
        self,
        cmd: Literal["prepared", "ended"],
        about: Airing | Prepare,
        code: ErrorCode | None = None,
        message: str = "",
        parts: Sequence[AsRun] = (),
        events: Sequence[Past] = (),
    ) -> None:
        """Report to the teacher how the Prepare of a class went, or how the class ended.

        *parts* are what was sent of it, *events* its story on this streamer.
        """
        is_aired = code in {None, errors.AIRED_WITH_GAPS}
        self.tell(
            Report(
                cmd=cmd,
                class_id=about.class_id,
                streamer=self.settings.name,
                result="success" if is_aired else "fail",
                code=code.number if code else 0,
                message=message,
                placement=about.placement,
                as_run=[vars(one) for one in parts] or None,
                events=[
                    {"at": one.at, "what": one.what, "detail": one.detail[:DETAIL_TOLD]}
                    for one in events[-EVENTS_TOLD:]
                ]
                or None,
            )
        )

    def report_amended(
        self, revision: str, placement: int, of_placement: int, code: ErrorCode | None = None, message: str = ""
    ) -> None:
        """Report that a class is aired as its *revision* says, or why it is not; *of_placement* is the class's."""
        self.tell(
            Report(
                cmd="amended",
                class_id=revision,
                streamer=self.settings.name,
                result="fail" if code else "success",
                code=code.number if code else 0,
                message=message,
                placement=placement,
                of_placement=of_placement,
            )
        )

    def tell(self, said: Report) -> None:
        """Send a report to the teacher."""
        self.sends.append(Outgoing(self.settings.report_stream, Kind.STREAM, said, said.class_id))

    def alarm(self, code: ErrorCode, said: str, about: Airing | Prepare, *, noted: bool = True) -> None:
        """Raise an alarm about a class; with *noted*, the class's story has it, too."""
        self.raise_alarm(code, said, class_id=called(about.class_id), record_id=about.record_id)
        if noted:
            self.note("alarm", about, said)
