"""The story of a class in few lines: what happened many times in a row is one line."""

from collections.abc import Iterable
from dataclasses import dataclass

from lectern import words
from lectern.told import Past

SERIES = 3
"""Number of equal events from which on they are shown as one line."""

BY_TURNS = frozenset(
    {"connected", "on air", "push broke off", "push refused", "slate", "nothing to send", "recording again"}
)
"""Events that alternate while a push host has trouble: each kind of them is then shown as one line."""


@dataclass(frozen=True)
class Line:
    """A series of *number* events of one kind: its first, and its last."""

    first: Past
    last: Past
    number: int = 1

    @property
    def thing(self) -> str:
        """The class or the rendition that it is about."""
        return self.first.class_id or self.first.stem or ""

    def text(self) -> str:
        """The line for people, without its time."""
        if self.number == 1:
            detail = self.first.detail
            return f"{self.thing}: {self.first.what}{'. ' + detail if detail else ''}"
        last = f"; the last: {self.last.detail}" if self.last.detail else ""
        return f"{self.thing}: {self.first.what}, {self.number:,} times until {words.clock(self.last.at)}{last}"

    def written(self) -> str:
        """The line with its time and host."""
        return f"{words.moment(self.first.at)}  {self.first.host}  {self.text()}"


def lines(events: Iterable[Past]) -> list[Line]:
    """The story in lines, in time order."""
    told: list[list[Past]] = []
    for event in sorted(events, key=lambda one: one.at):
        within = next((one for one in told[-2:] if _goes_on(one[-1], event, told[-1][-1])), None)
        if within is None:
            told.append([event])
        else:
            within.append(event)
    found = [Line(one, one) for series in told if len(series) < SERIES for one in series]
    found += [Line(series[0], series[-1], len(series)) for series in told if len(series) >= SERIES]
    return sorted(found, key=lambda one: one.first.at)


def _goes_on(before: Past, event: Past, newest: Past) -> bool:
    """Whether *event* belongs to the series that *before* ended so far; *newest* is the last of all."""
    if (before.what, before.class_id, before.stem, before.host) != (event.what, event.class_id, event.stem, event.host):
        return False
    return before is newest or {before.what, newest.what} <= BY_TURNS
