"""The story of a class in few lines: what happened many times in a row is one line."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lectern import words
from lectern.streamer_changes import DETAIL_TOLD
from lectern.told import Found, Gap, Past

NOT_SENT = "not sent"
"""The line of a gap, which stands at its begin and names its end."""

_GOES_ON = re.compile("(?:at|by|from|on|to|until|with) ")

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

    def text(self, translate: Callable[[str], str] = str) -> str:
        """The line for people, without its time, in the language of *translate*."""
        detail = self.first.detail
        said = f"{self.first.what}{' ' if _GOES_ON.match(detail) else ': '}{detail}" if detail else self.first.what
        if self.number > 1:
            said = f"{self.first.what}, {self.number:,} times until {words.clock(self.last.at)}"
            said += f"; the last: {self.last.detail}" if self.last.detail else ""
        return f"{self.thing}: {translate(said)}"

    def written(self, translate: Callable[[str], str] = str) -> str:
        """The line with its time and host."""
        return f"{words.moment(self.first.at)}  {self.first.host}  {self.text(translate)}"


def story(found: Found, gaps: Iterable[Gap]) -> list[Line]:
    """The story of a class in lines, in time order, with a line for each of its *gaps*.

    Its teacher has a copy of what its streamer noted: of both, the last one is told.
    """
    told = {(one.at, one.what, one.class_id, one.host, one.detail[:DETAIL_TOLD]): one for one in found.events}
    for gap in gaps:
        said = f"until {words.clock(gap.ends)}, {words.length(gap.missing_s)}: {gap.reason()}"
        event = Past(gap.begins, NOT_SENT, found.class_id, None, found.host, said)
        told[event.at, event.what, event.class_id, event.host, said] = event
    return lines(told.values())


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
    if event.what == NOT_SENT:
        return False
    if (before.what, before.class_id, before.stem, before.host) != (event.what, event.class_id, event.stem, event.host):
        return False
    return before is newest or {before.what, newest.what} <= BY_TURNS
