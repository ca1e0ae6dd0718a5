"""The as-run report: what was planned of each class, what was really sent, and the sums by institution."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import NamedTuple

from lectern.decide import gaps
from lectern.model.facts import AsRun, Planned
from lectern.states import BookingState
from lectern.wire.fields import BACKUP

PUNCTUAL_S = 1.0
"""Seconds from its start within which the first byte of a punctual class is sent."""

PUSHED = frozenset(
    {BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.BROKEN, BookingState.PLACED, BookingState.READY}
)
"""States of classes that were to be aired: neither refused nor cancelled in time."""

TO_COME = frozenset({BookingState.PLACED, BookingState.READY})
"""States of those classes of which no end was reported."""


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
    """The sums over the classes of an institution."""

    classes: int = 0
    punctual: int = 0
    planned_s: float = 0.0
    sent_s: float = 0.0
    slate_s: float = 0.0
    missing_s: float = 0.0
    pushed_s: float = 0.0
    size_bytes: int = 0
    transcoding_s: float = 0.0

    def add(self, line: ReportLine) -> None:
        """Count a class."""
        self.pushed_s += line.pushed_s
        self.size_bytes += line.size_bytes
        if line.counts:
            self.classes += 1
            self.punctual += line.punctual
            self.planned_s += line.sent_s + line.missing_s
            self.sent_s += line.sent_s
            self.slate_s += line.slate_s
            self.missing_s += line.missing_s

    def told(self) -> dict[str, float | None]:
        """The figures for people: per cent, hours, minutes, bytes, and seconds to a tenth."""
        return {
            "classes": self.classes,
            "punctuality_percent": _percent(self.punctual, self.classes),
            "availability_percent": _percent(self.sent_s, self.planned_s),
            "sent_s": round(self.sent_s, 1),
            "slate_s": round(self.slate_s, 1),
            "missing_s": round(self.missing_s, 1),
            "push_hours": round(self.pushed_s / 3600, 3),
            "size_bytes": self.size_bytes,
            "transcoding_minutes": round(self.transcoding_s / 60, 1),
        }


@dataclass
class AsRunReport:
    """The classes of a time, and their sums by institution."""

    lines: list[ReportLine] = field(default_factory=list)
    totals: dict[str, Total] = field(default_factory=dict)

    def whole(self) -> Total:
        """The sums of all institutions."""
        names = [column.name for column in fields(Total)]
        return Total(**{name: sum(getattr(total, name) for total in self.totals.values()) for name in names})


def line(planned: Planned, parts: Sequence[AsRun], now: float = inf) -> ReportLine:
    """What was sent of a class until *now* (epoch seconds), beside what was planned.

    Missing are the seconds of the class in which its recording was not sent, each of them; the slate does not count as
    sent, and a recording that is shorter than its class leaves the rest missing. Nothing is missing yet of a class that
    is to be aired and has not ended: what was sent of it is known after its end.
    """
    is_to_come = planned.state in TO_COME and now < planned.end
    sent = gaps.sent(planned.start, planned.end, parts)
    is_counted = planned.state in PUSHED and not is_to_come
    return ReportLine(
        *planned[:6],
        round(parts[0].begins, 1) if parts else None,
        round(max(part.ends for part in parts), 1) if parts else None,
        round(sent.recording_s, 2),
        round(sent.slate_s, 2),
        round(sent.missing_s, 2) if is_counted else 0.0,
        sent.sessions,
        sum(part.sent_bytes or 0 for part in parts),
        planned.state,
        planned.why,
        planned.by,
        sum(part.ends - part.begins for part in parts),
        is_to_come,
    )


def report(
    booked: Iterable[Planned], parts: Mapping[str, Sequence[AsRun]], transcoding_s: Mapping[str, float], now: float
) -> AsRunReport:
    """All classes of *booked* with their *parts*, as they stand at *now* (epoch seconds).

    *transcoding_s* are the seconds that transcoders worked for each institution.
    """
    result = AsRunReport()
    for planned in booked:
        row = line(planned, parts.get(planned.class_id, ()), now)
        result.lines.append(row)
        result.totals.setdefault(row.institution, Total()).add(row)
    for institution, seconds in transcoding_s.items():
        result.totals.setdefault(institution, Total()).transcoding_s += seconds
    return result


def _percent(part: float, whole: float) -> float | None:
    return round(100 * part / whole, 3) if whole else None
