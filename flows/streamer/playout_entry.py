"""The classes of a streamer as its playout wants them: the lines of the timetable, made from the rows."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from flows.host import StreamerHost
from flows.playout_link import Lesson
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
    lesson: Lesson
    line: str


@dataclass
class DesiredTimetable:
    """The timetable as the rows want it; *rows* and *lessons* are by class_id, those that begin soonest first."""

    rows: dict[str, Airing] = field(default_factory=dict)
    lessons: dict[str, Lesson] = field(default_factory=dict)
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
        found = sorted(airings.due(connection, now + AHEAD_S, now - KEPT_S), key=lambda one: one.start_time)
        renditions = cache.by_stem(connection, {one.stem for one in found})
        wanted = DesiredTimetable(session=leases.session(connection, self._host.settings.name) or "")
        made: dict[str, _Made] = {}
        for one in found:
            row = renditions.get(one.stem)
            of = one, row.duration_s if row is not None else None, slate, allowed
            known = self._made.get(one.class_id)
            wanted.rows[one.class_id] = one
            with Caught() as failed:
                made[one.class_id] = known if known is not None and known.of == of else self._make(of)
            if failed.error is not None:
                wanted.odd[one.class_id] = failed.error
        self._keep(made, {*wanted.odd, *airings.unreadable(connection)}, before)
        self._made = made
        for class_id, each in sorted(made.items(), key=lambda item: float(item[1].lesson["start"])):
            wanted.lessons[class_id] = each.lesson
            wanted.lines.append(each.line)
        return wanted

    def _make(self, of: Facts) -> _Made:
        made = lesson(of, self._host)
        return _Made(of, made, json.dumps(made))

    def _keep(self, made: dict[str, _Made], odd: set[str], before: Path | None) -> None:
        """Add to *made* the classes of *odd* as they were."""
        made |= {class_id: self._made[class_id] for class_id in odd & self._made.keys()}
        if odd - made.keys() and before is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                for line in before.read_text(encoding="utf-8").splitlines()[1:]:
                    fields = json.loads(line)
                    if fields["class_id"] in odd - made.keys():
                        made[fields["class_id"]] = _Made(None, fields, line)


def lesson(facts: Facts, host: StreamerHost) -> Lesson:
    """A class as the playout wants it."""
    one, duration_s, slate, allowed = facts
    path = cache_dir.rendition_path(host.settings.video_root, one.stem)  # its site may be below the former root
    made = {
        "class_id": one.class_id,
        "file": str(path.absolute()),
        "push_urls": [one.push_url],
        "start": one.start_time,
        "end": one.end_time,
        "duration_s": duration_s,
        "slate": slate,
    }
    with suppress(ValueError):  # else the playout refuses it with a reason
        url = urls.push(one.push_url)
        made |= {"push_urls": [url.text], "networks": allowed.of_server(url.host, url.port)}
    return made


def live(connection: Connection) -> set[str]:
    """The classes that are to be aired here, or may be again, including those whose rows cannot be read."""
    return {one.class_id for one in airings.live(connection)} | airings.unreadable(connection).keys()
