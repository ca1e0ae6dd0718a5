"""Windows of the day in which something may be done, at which rate, and when so many bytes will have come."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

RATE = r"^\d+(\.\d+)?[kKmMgG]?$"
DAY_S = 86_400
FAR_S = 60 * DAY_S
"""Seconds that a forecast looks ahead; what is not done by then is never done."""

_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)(?:=(\d+(?:\.\d+)?[kKmMgG]?))?")
_UNITS = {"k": 1024.0, "m": 1024.0**2, "g": 1024.0**3}


def rate_bytes(rate: str) -> float:
    """Bytes a second, as wget reads them; 0 is no limit."""
    return (float(rate.rstrip("kKmMgG")) or math.inf) * _UNITS.get(rate[-1].lower(), 1.0)


@cache
def time_zone(name: str) -> tzinfo | None:
    """The time zone *name*; None, the host's own, if it is empty. Raises ValueError if the host does not know it."""
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError) as error:
        raise ValueError(f"{name!r:.40}: no such time zone; write one such as Asia/Shanghai, or none") from error


@dataclass(frozen=True)
class Windows:
    """Windows in seconds of the day by the clock of *zone*, in their order, each with its bytes a second.

    When clocks are changed, a window is open while the clock shows its times: it may be an hour longer, or shorter.
    """

    spans: tuple[tuple[int, int, float], ...] = ((0, DAY_S, math.inf),)
    zone: tzinfo | None = None

    @classmethod
    @cache
    def parsed(cls, text: str, timezone: str = "") -> "Windows":
        """Read ``00:00-06:30=20m, 22:00-24:00``; empty is always. Raises ValueError that says what is wrong.

        A window may go on after midnight; without a rate it has no limit.
        """
        spans: list[tuple[int, int, float]] = []
        for part in (part.strip() for part in text.split(",") if part.strip()):
            if (found := _WINDOW.fullmatch(part)) is None:
                raise ValueError(
                    f"{part!r:.40} cannot be read; write 00:00-06:30=20m, 22:00-24:00, or nothing for always"
                )
            begin, end = (int(found[n]) * 3600 + int(found[n + 1]) * 60 for n in (1, 3))
            if begin >= DAY_S or end > DAY_S or int(found[2]) > 59 or int(found[4]) > 59 or begin == end:
                raise ValueError(f"{part!r}: its times must be two of 00:00 to 24:00")
            if found[5] is not None and not float(found[5].rstrip("kKmMgG")):
                raise ValueError(f"{part!r}: leave the rate away for no limit, or the window for no download")
            rate = math.inf if found[5] is None else rate_bytes(found[5])
            spans += [(begin, end, rate)] if begin < end else [(0, end, rate), (begin, DAY_S, rate)]
        spans = sorted(span for span in spans if span[0] < span[1]) or list(cls.spans)
        for before, after in pairwise(spans):
            if before[1] > after[0]:
                raise ValueError(f"{_clock(after[0])} to {_clock(min(before[1], after[1]))} is in two windows")
        return cls(tuple(spans), time_zone(timezone))

    @property
    def are_always(self) -> bool:
        """Whether it is the same window always."""
        return self.spans[0][:2] == (0, DAY_S)

    def rate_at(self, at: float) -> float:
        """Bytes a second of all downloads together at *at* (epoch seconds); 0 outside the windows."""
        second = self._second(math.floor(at))
        return next((rate for begin, end, rate in self.spans if begin <= second < end), 0.0)

    def ahead(self, at: float) -> Iterator[tuple[float, float, float]]:
        """Begin, end and rate of each window from *at* on, for FAR_S seconds; gaps are among them, with the rate 0."""
        since, rate, last = at, self.rate_at(at), at + FAR_S
        while at < last:
            at = last if self.are_always else self._edge(math.floor(at))
            if (then := self.rate_at(at)) != rate or at >= last:
                yield since, at, rate
                since, rate = at, then

    def ends(self, left_bytes: float, begin: float, each_bytes: float = math.inf) -> float:
        """When *left_bytes* begun at *begin* will have come, if no more than *each_bytes* a second may come."""
        if left_bytes <= 0:
            return begin
        for at, until, rate in self.ahead(begin):
            took_s = left_bytes / bytes_a_second if (bytes_a_second := min(rate, each_bytes)) else math.inf
            if took_s <= until - at:
                return at + took_s
            left_bytes -= bytes_a_second * (until - at)
        return math.inf

    def _second(self, at: int) -> int:
        local = datetime.fromtimestamp(at, self.zone)
        return local.hour * 3600 + local.minute * 60 + local.second

    def _offset_s(self, at: int) -> float:
        local = datetime.fromtimestamp(at, self.zone)
        offset = (local if self.zone else local.astimezone()).utcoffset()
        return offset.total_seconds() if offset is not None else 0.0

    def _edge(self, at: int) -> int:
        """The next time after *at* at which a window may begin or end, or clocks are changed."""
        second, offset_s = self._second(at), self._offset_s(at)
        edges = {DAY_S, *(edge for begin, end, _ in self.spans for edge in (begin, end))}
        edge = at + min(edge for edge in edges if edge > second) - second
        if self._offset_s(edge) == offset_s:
            return edge
        while edge - at > 1:
            middle = (at + edge) // 2
            at, edge = (middle, edge) if self._offset_s(middle) == offset_s else (at, middle)
        return edge


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}"


ALWAYS = Windows()
