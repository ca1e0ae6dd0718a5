"""The classes of a streamer as its playout wants them: the lines of the timetable, made from the rows."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from flows.host import StreamerHost
from flows.playout_link import ScheduledClass
from lectern import urls
from lectern.allowlist import Allowlist
from lectern.db import airings, cache, leases
from lectern.errors import Caught
from lectern.model.facts import Airing
from lectern.storage import cache_dir

AHEAD_S = 2 * 3600.0
"""Seconds ahead for which the playout gets the classes: a lease ends long before it would need more."""


KEPT_S = 60.0
"""Seconds after its end until a class is taken out of the timetable, if the playout has not told its end before.

The playout ends it by a clock that nobody sets; if it were taken out a moment too early, it would be cancelled.
"""

Facts = tuple[Airing, float | None, str | None, Allowlist]
"""What a class of the timetable is made of: its row, its rendition's seconds, the slate, where it may be pushed to."""


@dataclass(frozen=True)
class _Made:
    """A class of the timetable, as it is and as its line in the file; *of* is None if it was read from there."""

    of: Facts | None
    lesson: ScheduledClass
    line: str


@dataclass
class DesiredTimetable:
    """The timetable as the rows want it; *rows* and *lessons* are by class_id, those that begin soonest first."""

    rows: dict[str, Airing] = field(default_factory=dict)
    lessons: dict[str, ScheduledClass] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    session: str = ""
    """The session of the lease for which these are our classes."""

    odd: dict[str, Exception] = field(default_factory=dict)
    """Classes of which no line can be made, which are aired as before."""


class TimetableReader:
    """Makes the timetable; a class whose row is as it was is not made again."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._made: dict[str, _Made] = {}

    def wanted(
        self, connection: Connection, now: float, slate: str | None, allowed: Allowlist, before: Path | None
    ) -> DesiredTimetable:
        """The classes that begin soon, or are on air; *allowed* says where classes may be pushed to.

        A class whose row cannot be read stays as it is in the timetable: as this process made it, or as it is in the
        file *before*.
        """
        classes = sorted(airings.due(connection, now + AHEAD_S, now - KEPT_S), key=lambda airing: airing.start_time)
        renditions = cache.by_stem(connection, {airing.stem for airing in classes})
        wanted = DesiredTimetable(session=leases.session(connection, self._host.settings.name) or "")
        entries: dict[str, _Made] = {}
        for airing in classes:
            row = renditions.get(airing.stem)
            of = airing, row.duration_s if row is not None else None, slate, allowed
            known = self._made.get(airing.class_id)
            wanted.rows[airing.class_id] = airing
            with Caught() as failed:
                entries[airing.class_id] = known if known is not None and known.of == of else self._make(of, known)
            if failed.error is not None:
                wanted.odd[airing.class_id] = failed.error
        self._keep(entries, {*wanted.odd, *airings.unreadable(connection)}, before)
        self._made = entries
        for class_id, each in sorted(entries.items(), key=lambda item: float(item[1].lesson["start"])):
            wanted.lessons[class_id] = each.lesson
            wanted.lines.append(each.line)
        return wanted

    def _make(self, of: Facts, known: _Made | None) -> _Made:
        entry = lesson(of, self._host)
        if known is not None and known.lesson["push_urls"] == entry["push_urls"]:
            entry = _still_reached(entry, known.lesson)
        return _Made(of, entry, json.dumps(entry))

    def _keep(self, entries: dict[str, _Made], odd: set[str], before: Path | None) -> None:
        """Add to *entries* the classes of *odd* as they were."""
        entries |= {class_id: self._made[class_id] for class_id in odd & self._made.keys()}
        if odd - entries.keys() and before is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                for line in before.read_text(encoding="utf-8").splitlines()[1:]:
                    fields = json.loads(line)
                    if fields["class_id"] in odd - entries.keys():
                        entries[fields["class_id"]] = _Made(None, fields, line)


def lesson(facts: Facts, host: StreamerHost) -> ScheduledClass:
    """A class as the playout wants it."""
    airing, duration_s, slate, allowed = facts
    path = cache_dir.rendition_path(host.settings.video_root, airing.stem)  # its site may be below the former root
    fields = {
        "class_id": airing.class_id,
        "file": str(path.absolute()),
        "push_urls": [airing.push_url],
        "start": airing.start_time,
        "end": airing.end_time,
        "duration_s": duration_s,
        "slate": slate,
    }
    with suppress(ValueError):  # else the playout refuses it with a reason
        url = urls.push(airing.push_url)
        fields |= {"push_urls": [url.text], "networks": allowed.of_server(url.host, url.port)}
    return fields


def _still_reached(entry: ScheduledClass, before: ScheduledClass) -> ScheduledClass:
    """A class of the timetable with all networks that it might reach *before*: a shorter list ends no push."""
    old, new = before.get("networks"), entry.get("networks")
    if new is None or (old is not None and set(old) <= set(new)):
        return entry
    return {**entry, "networks": old and [*new, *sorted(set(old) - set(new))]}


def live(connection: Connection) -> set[str]:
    """The classes that are to be aired here, or may be again, including those whose rows cannot be read."""
    return {airing.class_id for airing in airings.live(connection)} | airings.unreadable(connection).keys()
