"""What was sent of a class and what was not, and why: report, explain, page and alarm all say it from here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, inf
from operator import attrgetter
from typing import NamedTuple

from lectern.i18n import Text, joined, labelled
from lectern.model.facts import AsRun
from lectern.model.views import Booked, EventView, Gap
from lectern.states import ON_STREAMER, BookingState
from lectern.wire.fields import BACKUP

WHOLE = Text("aired whole")
"""How the message of a class begins of which at most a moment is missing."""

RECORDING_OVER = Text("its recording is over")
"""The playout's reason for the end of a class at the end of its recording."""

LOST_S, LOST_SHARE, LEAST_S = 5.0, 0.01, 2.0
"""A class has gaps if it lacks more than LOST_S or LOST_SHARE of its length; up to LEAST_S are a moment."""

NEAR_S = 2.0
"""Seconds before a gap in which an event may be its reason, and seconds of sending that do not part two gaps."""

SHOWN_S = 1.0
"""Seconds from which a gap is named; shorter ones are only counted."""

NAMED = 5
"""Number of gaps that a sentence names, the longest ones; it only counts the others."""

_WHYS: Mapping[str, str] = {
    "push refused": Text("the push was refused"),
    "push broke off": Text("the push broke off"),
    "nothing to send": Text("there was nothing to send"),
    "fell behind": Text("its receiver took less than it was sent"),
    "lease over": Text("its streamer held no lease"),
    "playout away": Text("the playout was not there"),
    "moved": Text("it was moved to another streamer"),
    "placed": Text("it was booked too late"),
    "prepare": Text("it was booked too late"),
}
"""The reason of a gap in which nothing was sent, by the event that says so, up to its colon.

*Placed* is noted by its teacher, *prepare* by its streamer.
"""

_SLATE: str = Text("the slate was sent")
_OVER, _UNKNOWN = Text("its recording was over"), Text("no reason is known")
_DETAILED = frozenset({"push refused", "push broke off", "nothing to send", "slate"})


@dataclass(frozen=True)
class SentAccount:
    """What was sent of a class that lasts *length_s*, and its gaps in time order."""

    length_s: float
    recording_s: float
    slate_s: float
    sessions: int
    gaps: Sequence[Gap]

    @property
    def missing_s(self) -> float:
        """Seconds in which the recording was not sent; the slate does not count as sent."""
        return max(0.0, self.length_s - self.recording_s)

    @property
    def is_whole(self) -> bool:
        """Whether people may say that the class was aired whole."""
        return self.missing_s <= max(LEAST_S, min(LOST_S, LOST_SHARE * self.length_s))

    def missing(self) -> str:
        """What is missing, with the longest gaps and their reasons; empty if nothing is."""
        if not self.gaps:
            return ""
        longest = sorted(self.gaps, key=lambda gap: -gap.missing_s)[:NAMED]
        named = [gap.text() for gap in self.gaps if gap in longest and gap.missing_s >= SHOWN_S]
        more = len(self.gaps) - len(named)
        if more:
            others = Text.many("{n:,} more gap", "{n:,} more gaps", n=more)
            named.append(others if named else Text.many("{n:,} gap", "{n:,} gaps", n=more))
        return Text(
            "{missing_s:length} of {whole_s:length} were not sent: {gaps}",
            missing_s=self.missing_s,
            whole_s=self.length_s,
            gaps=joined(named),
        )

    def sentence(self) -> str:
        """How the class was aired: whole, or what is missing and why."""
        text = WHOLE if self.is_whole else self.missing()
        return joined((text, _sessions(self)))


def sent(
    start: float, end: float, parts: Sequence[AsRun], reasons: Iterable[EventView] = (), message: str = ""
) -> SentAccount:
    """What the *parts* sent of the class from *start* to *end* (epoch seconds).

    *reasons* are events of the class; *message* is how it ended, in the words of its playout.
    """
    is_over = RECORDING_OVER in message
    recording = _joined(parts, "recording", start, end)
    slate = _joined(parts, "slate", start, end)
    missing = _without([(start, end)], recording)
    shown = both(missing, slate) if slate else []
    known = sorted((event for event in reasons if _kind(event) in _WHYS or event.what == "slate"), key=attrgetter("at"))
    told = [event for event in known if event.what == "slate"]
    pieces = [
        (*piece, _SLATE, next((event.detail for event in reversed(told) if event.at <= piece[1]), ""))
        for piece in shown
    ]
    for piece in _without(missing, shown) if shown else missing:
        why = (_OVER, "") if is_over and recording and piece[0] >= recording[-1][1] else _why(piece, known)
        pieces.append((*piece, *why))
    return SentAccount(
        max(0.0, end - start),
        sum(ends - begins for begins, ends in recording),
        sum(ends - begins for begins, ends in shown),
        len({(part.streamer, part.url, part.session) for part in parts}),
        _grouped(sorted(pieces)),
    )


def as_run(account: SentAccount, parts: Sequence[AsRun]) -> str:
    """What was really sent of a class, for people; empty if nothing was sent."""
    if not parts:
        return ""
    begins, ends = min(part.begins for part in parts), max(part.ends for part in parts)
    recording = Text(
        "{length_s:length} of the recording, {begins:clock} to {ends:clock}",
        length_s=account.recording_s,
        begins=begins,
        ends=ends,
    )
    slate = [Text("{length_s:length} of the slate", length_s=account.slate_s)] if account.slate_s >= 1 else []
    size_bytes = sum(part.sent_bytes or 0 for part in parts)
    sent_bytes = [Text("{size_bytes:size}", size_bytes=size_bytes)] if size_bytes else []
    return joined((recording, *slate, _sessions(account), *sent_bytes))


def _sessions(account: SentAccount) -> Text:
    return Text.many("{n:,} session", "{n:,} sessions", n=account.sessions)


def not_aired(account: SentAccount, why: str | None) -> str:
    """The message for a class whose recording was never sent."""
    text: str = Text("not aired")
    if account.slate_s >= 1:
        text = joined((text, Text("the slate was sent for {slate_s:.0f} s", slate_s=account.slate_s)))
    return labelled(text, why) if why else text


def longest(parts: Sequence[AsRun], most: int) -> list[AsRun]:
    """At most *most* of the *parts*, in time order: without the shortest ones, which change the sums least."""
    if len(parts) <= most:
        return list(parts)
    return sorted(sorted(parts, key=lambda part: part.begins - part.ends)[:most], key=attrgetter("begins"))


Stretch = tuple[float, float]
"""The begin and the end of something, in seconds."""


def _joined(parts: Sequence[AsRun], source: str, start: float, end: float) -> list[Stretch]:
    """The time in which any session sent *source*: up to the media that it really sent, if it fell behind."""
    rows = sorted((row for row in parts if row.source == source), key=attrgetter("begins"))
    return merged((max(start, row.begins), min(end, row.ends, row.begins + row.sent_s)) for row in rows)


def merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The *stretches*, ordered by their begin, as fewer ones: those that touch are joined, empty ones are left out."""
    found: list[Stretch] = []
    for begins, ends in stretches:
        if found and found[-1][0] <= begins <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ends)
        elif begins < ends:
            found.append((begins, ends))
    return found


def _without(whole: Sequence[Stretch], taken: Sequence[Stretch]) -> list[Stretch]:
    """What is left of *whole* without *taken*; both are in time order and do not overlap."""
    edges = [-inf, *(edge for one in taken for edge in one), inf]
    return both(whole, list(zip(edges[::2], edges[1::2], strict=True)))


def both(stretches: Iterable[Stretch], others: Sequence[Stretch]) -> list[Stretch]:
    """Where one of *stretches* and one of *others* overlap."""
    pairs = ((max(stretch[0], other[0]), min(stretch[1], other[1])) for stretch in stretches for other in others)
    return [(begins, ends) for begins, ends in pairs if begins < ends]


def _why(piece: Stretch, known: Sequence[EventView]) -> tuple[str, str]:
    """The last event in the gap, or shortly before it, that says why nothing was sent."""
    near = [event for event in known if _kind(event) in _WHYS and piece[0] - NEAR_S <= event.at <= piece[1]]
    if not near:
        return _UNKNOWN, ""
    last = near[-1]
    return _WHYS[_kind(last)], last.detail if last.what in _DETAILED else ""


def _kind(event: EventView) -> str:
    return event.what.partition(":")[0]


def _grouped(pieces: Iterable[tuple[float, float, str, str]]) -> list[Gap]:
    """The gaps; one that follows after a moment of sending belongs to the one before, unless its reason is another.

    Of many tries to connect, the events name only a few.
    """
    gaps: list[Gap] = []
    for begins, ends, why, detail in pieces:
        last = gaps[-1] if gaps else None
        # After the slate, only a moment has no reason of its own.
        goes_on = last is not None and why is _UNKNOWN and (not last.is_slate or ends - begins <= NEAR_S)
        if last is not None and (why == last.why or goes_on) and begins - last.ends <= NEAR_S:
            missing_s = last.missing_s + ends - begins
            gaps[-1] = replace(last, ends=ends, missing_s=missing_s, detail=detail or last.detail)
        else:
            gaps.append(Gap(begins, ends, ends - begins, why, detail, is_slate=why is _SLATE))
    return gaps


PUNCTUAL_S = 1.0
"""Seconds from its start within which the first byte of a punctual class is sent."""

PUSHED = ON_STREAMER | {BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.BROKEN}
"""States of classes that were to be aired: neither refused nor cancelled in time."""


class ReportLine(NamedTuple):
    """A class as planned and as run; times are epoch seconds, None if nothing was sent."""

    class_id: str
    institution: str
    stem: str
    streamer: str
    start: float
    end: float
    began: float | None
    ended: float | None
    sent_s: float
    slate_s: float
    missing_s: float
    sessions: int
    size_bytes: int
    state: BookingState
    why: str
    by: str
    pushed_s: float
    is_to_come: bool

    @property
    def counts(self) -> bool:
        """Whether the class counts for punctuality and availability.

        Second airings, cancelled classes, and those that are still to be aired do not.
        """
        return self.state in PUSHED and not self.is_to_come and not self.class_id.endswith(BACKUP)

    @property
    def punctual(self) -> bool:
        """Whether its first byte was sent within PUNCTUAL_S of its start."""
        return self.began is not None and abs(self.began - self.start) <= PUNCTUAL_S


NAMES = ReportLine._fields[:-2]
"""The columns of the report, in order."""


@dataclass
class Total:
    """The classes of an institution, or of all, and the seconds that transcoders worked for them."""

    lines: list[ReportLine] = field(default_factory=list)
    transcoding_s: float = 0.0
    totals: dict[str, "Total"] = field(default_factory=dict)  # of each institution, if this is that of all

    def told(self) -> dict[str, float | None]:
        """The figures for people: per cent, hours, minutes, bytes, and seconds to a tenth."""
        counted = [line for line in self.lines if line.counts]
        sent_s, missing_s = fsum(line.sent_s for line in counted), fsum(line.missing_s for line in counted)
        return {
            "classes": len(counted),
            "punctuality_percent": _percent(sum(line.punctual for line in counted), len(counted)),
            "availability_percent": _percent(sent_s, sent_s + missing_s),
            "sent_s": round(sent_s, 1),
            "slate_s": round(fsum(line.slate_s for line in counted), 1),
            "missing_s": round(missing_s, 1),
            "push_hours": round(fsum(line.pushed_s for line in self.lines) / 3600, 3),
            "size_bytes": sum(line.size_bytes for line in self.lines),
            "transcoding_minutes": round(self.transcoding_s / 60, 1),
        }


def line(planned: Booked, parts: Sequence[AsRun], now: float = inf) -> ReportLine:
    """What was sent of a class until *now* (epoch seconds), beside what was planned.

    Missing are the seconds of the class in which its recording was not sent, each of them; the slate does not count as
    sent, and a recording that is shorter than its class leaves the rest missing. Nothing is missing yet of a class that
    is to be aired and has not ended: what was sent of it is known after its end.
    """
    start, end = planned.start_time, planned.end_time
    is_to_come = planned.state in ON_STREAMER and now < end
    account = sent(start, end, parts)
    is_counted = planned.state in PUSHED and not is_to_come
    return ReportLine(
        *(planned.class_id, planned.institution_id or "", planned.stem, planned.streamer or "", start, end),
        round(parts[0].begins, 1) if parts else None,
        round(max(part.ends for part in parts), 1) if parts else None,
        round(account.recording_s, 2),
        round(account.slate_s, 2),
        round(account.missing_s, 2) if is_counted else 0.0,
        account.sessions,
        sum(part.sent_bytes or 0 for part in parts),
        planned.state,
        planned.message or "",
        planned.by,
        sum(part.ends - part.begins for part in parts),
        is_to_come,
    )


def report(
    booked: Iterable[Booked], parts: Mapping[str, Sequence[AsRun]], transcoding_s: Mapping[str, float], now: float
) -> Total:
    """All classes of *booked* with their *parts*, as they stand at *now* (epoch seconds).

    *transcoding_s* are the seconds that transcoders worked for each institution.
    """
    result = Total()
    for planned in booked:
        row = line(planned, parts.get(planned.class_id, ()), now)
        result.lines.append(row)
        result.totals.setdefault(row.institution, Total()).lines.append(row)
    for institution, seconds in transcoding_s.items():
        result.transcoding_s += seconds
        result.totals.setdefault(institution, Total()).transcoding_s += seconds
    return result


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 3) if whole else None
