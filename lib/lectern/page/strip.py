"""The strip: classes as blocks on a line of time, a row a streamer, or a row an RTMP session; a template draws it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lectern.decide import account
from lectern.decide.account import Standing
from lectern.i18n import Text, labelled, msgid
from lectern.model.facts import Airing, AsRun
from lectern.model.views import Booked, ClassView

HOUR_S = 3600
BACK_S, AHEAD_S = 2 * HOUR_S, 6 * HOUR_S
"""Seconds of the day's strip before and behind now."""

MOST_ROWS, MOST_BLOCKS = 50, 500
"""Number of streamers, and of classes, beyond which a streamer is one line of counts."""

LANE_PX = {3: 18, 8: 9}
"""Height of a lane by the number of lanes in its row; with more lanes it is LOW_PX."""

LOW_PX = 5
NAMED_PX = 18
"""Height of a lane whose blocks have room for their names."""

DRAWN_EVERY_S = 20.0
"""Seconds for which the line of now stays where it is."""

MARGIN_S = 60.0
"""Seconds of the strip of one class before its start and behind its end."""

MARKS = (10, 60, 300, 600, 900, 1800, HOUR_S, 4 * HOUR_S, 24 * HOUR_S)
"""Seconds between two marks of the line of time: the first of these that makes at most MOST_MARKS of them."""

MOST_MARKS = 10
WAITING = Text("waiting classes")


@dataclass(frozen=True)
class Block:
    """What is drawn from *begins* to *ends* (epoch seconds); *kind* is its class in the style sheet."""

    begins: float
    ends: float
    kind: str
    name: str
    what: Text
    link: str = ""
    holes: "Sequence[Block]" = ()  # times in which its recording was not sent
    lane: int = 0

    def share(self, hole: "Block") -> tuple[float, float]:
        """Where *hole* begins, and how long it is, in per cent of the block."""
        whole = max(self.ends - self.begins, 0.001)
        return _percent(hole.begins - self.begins, whole), _percent(hole.ends - hole.begins, whole)


@dataclass(frozen=True)
class Row:
    """A line with its blocks; or, if there are too many to draw, the number of its classes in each state."""

    name: str
    blocks: Sequence[Block] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def lane_px(self) -> int:
        """The height of a lane."""
        lanes = self._lanes()
        return next((height for most, height in LANE_PX.items() if lanes <= most), LOW_PX)

    @property
    def height_px(self) -> int:
        """The height of the row."""
        return self._lanes() * self.lane_px + 2

    @property
    def is_named(self) -> bool:
        """Whether its blocks have room for their names."""
        return self.lane_px >= NAMED_PX

    def _lanes(self) -> int:
        return 1 + max((block.lane for block in self.blocks), default=0)


@dataclass(frozen=True)
class Strip:
    """The rows from *begins* to *ends* (epoch seconds), which hold *now* or do not."""

    begins: float
    ends: float
    now: float
    rows: Sequence[Row]

    def x(self, at: float) -> float:
        """Where *at* (epoch seconds) is, in per cent of the width; what is outside is at the edge."""
        return min(max(_percent(at - self.begins, self.ends - self.begins), 0.0), 100.0)

    def width(self, block: Block) -> float:
        """The width of *block*, in per cent; each is wide enough to be seen."""
        return max(round(self.x(block.ends) - self.x(block.begins), 3), 0.15)

    def inner(self, block: Block) -> Block:
        """The part of *block* that the strip shows."""
        begins, ends = max(block.begins, self.begins), min(block.ends, self.ends)
        holes = [hole for hole in block.holes if hole.ends > begins and hole.begins < ends]
        return replace(block, begins=begins, ends=max(ends, begins), holes=holes)

    @property
    def marks(self) -> list[float]:
        """The times (epoch seconds) that have a mark."""
        length_s = self.ends - self.begins
        step = next((step for step in MARKS if length_s / step <= MOST_MARKS), length_s / MOST_MARKS)
        first = -(-self.begins // step) * step
        return [first + at * step for at in range(int((self.ends - first) // step) + 1)]


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 3)


def drawn_at(now: float) -> float:
    """The time for which *now* (epoch seconds) is drawn: a picture that changed each second would be sent each time."""
    return now // DRAWN_EVERY_S * DRAWN_EVERY_S


def of_day(
    stood: Iterable[tuple[ClassView, Standing]],
    parts: Mapping[str, Sequence[AsRun]],
    streamers: Iterable[str],
    now: float,
) -> Strip:
    """The strip of all *streamers* at *now* (epoch seconds), with the classes that *stood* so, and what was sent."""
    by_row: dict[str, list[Block]] = {name: [] for name in streamers}
    waits: list[Block] = []
    for view, standing in stood:
        booked = view.booked
        assert booked is not None  # the timetable lists only bookings
        known = replace(view, as_run=parts.get(view.class_id, ()))
        block = replace(_booked(view, booked, standing), link=view.class_id, holes=_holes(known, standing, now))
        (waits if booked.streamer is None else by_row.setdefault(booked.streamer, [])).append(block)
    rows = [Row(name, _in_lanes(blocks)) for name, blocks in sorted(by_row.items(), key=lambda row: _natural(row[0]))]
    at = drawn_at(now)
    return Strip(at - BACK_S, at + AHEAD_S, at, [*rows, *([Row(WAITING, _in_lanes(waits))] if waits else [])])


def of_counts(counted: Mapping[str | None, Mapping[str, int]], now: float) -> Strip:
    """The strip of so many classes, or streamers, that only their number is shown, by streamer and state."""
    by_name = sorted(counted.items(), key=lambda row: _natural(row[0] or "~"))
    at = drawn_at(now)
    return Strip(at - BACK_S, at + AHEAD_S, at, [Row(name or WAITING, counts=its) for name, its in by_name])


def of_class(view: ClassView, standing: Standing, now: float) -> Strip | None:
    """The strip of one class: as booked, with what was not sent, and a row for each session; None if it is unknown."""
    known = view.booked or view.cited
    if known is None or known.end_time <= known.start_time:
        return None
    planned = replace(_booked(view, known, standing), holes=_holes(view, standing, now))
    sessions: dict[tuple[str, int, int], list[Block]] = {}
    for part in view.as_run:
        sessions.setdefault((part.streamer, part.url, part.session), []).append(_sent(part))
    was_moved = len({part.streamer for part in view.as_run}) > 1  # each streamer numbers its sessions from 1
    ends = max([known.end_time, *(part.ends for part in view.as_run)])
    begins = min([known.start_time, *(part.begins for part in view.as_run)])
    rows = [Row(Text("booked"), [planned])]
    for (streamer, url, session), blocks in list(sessions.items())[:MOST_ROWS]:
        name = Text(msgid("session {n} of the second push URL") if url else msgid("session {n}"), n=session)
        rows.append(Row(labelled(streamer, name) if was_moved else name, blocks))
    return Strip(begins - MARGIN_S, ends + MARGIN_S, drawn_at(now), rows)


def _natural(name: str) -> list[tuple[str, int]]:
    """A key by which ``streamer2`` comes before ``streamer10``."""
    return [(words, int(number or 0)) for words, number in re.findall(r"(\D*)(\d{0,15})", name)]


def _booked(view: ClassView, known: Booked | Airing, standing: Standing) -> Block:
    what = Text(
        "{class_id} {begins:clock}-{ends:clock}, {standing}",
        class_id=view.class_id,
        begins=known.start_time,
        ends=known.end_time,
        standing=Text(standing.value),
    )
    return Block(known.start_time, known.end_time, standing.name.lower(), view.class_id, what)


def _sent(part: AsRun) -> Block:
    is_slate = part.source == "slate"
    what = Text(
        "{what} {begins:clock}-{ends:clock}, from {at:position}",
        what=Text("slate") if is_slate else Text("recording"),
        begins=part.begins,
        ends=part.ends,
        at=part.position_s,
    )
    return Block(part.begins, part.ends, "slate" if is_slate else "sent", "", what)


def _holes(view: ClassView, standing: Standing, now: float) -> list[Block]:
    """What was not sent of the class until *now*, by what its streamer says; afterwards, by the as-run."""
    gaps = account.known_gaps(view, now) if view.as_run or standing is Standing.ON_AIR else ()
    holes = []
    for gap in gaps:
        what = Text("slate") if gap.is_slate else Text("not sent")
        text = Text("{what} {begins:clock}-{ends:clock}", what=what, begins=gap.begins, ends=gap.ends)
        holes.append(Block(gap.begins, gap.ends, "slate" if gap.is_slate else "hole", "", text))
    return holes


def _in_lanes(blocks: Iterable[Block]) -> list[Block]:
    """The *blocks*, those that overlap in lanes of their own."""
    ends: list[float] = []
    laid = []
    for block in sorted(blocks, key=lambda block: (block.begins, block.name)):
        lane = next((at for at, end in enumerate(ends) if end <= block.begins), len(ends))
        ends[lane : lane + 1] = [block.ends]
        laid.append(replace(block, lane=lane))
    return laid
