"""What was aired of the classes that have begun, and the file that keeps it over any restart; the worker writes it."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lectern.playout import timetable
from lectern.playout.kept import Kept
from lectern.playout.slices import in_slices
from lectern.playout.timetable import BadRequest, Lesson

if TYPE_CHECKING:
    from lectern.playout.airing import Airing
    from lectern.playout.schedule import Schedule

NAME = "aired.jsonl"
"""The file in the playout's folder: a header, the classes on air, then those that are over, each on a line."""
SAVE_EVERY_S = 2.0
"""Seconds after which the rows of a class on air are written again."""
_CHECK_S = 1.0


@dataclass
class Entry:
    """A class, and what became of it."""

    lesson: Lesson
    as_run: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    """Why the class is over, in words; None if it is not."""
    first_byte_at: float | None = None

    def line(self) -> str:
        """The entry as a line of the file."""
        return json.dumps({**vars(self), "lesson": vars(self.lesson)})


def entry(line: bytes) -> Entry | None:
    """The entry of a line; None if it is of another release, or is none."""
    try:
        row = json.loads(line)
        known, ended = timetable.lesson(row["lesson"]), row["ended"]
        sent = [one for one in row["as_run"] if _is_whole(one)]
        began = row.get("first_byte_at")
    except (BadRequest, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
    began = float(began) if type(began) in (int, float) else None
    return Entry(known, sent, None if ended is None else str(ended), began)


def read(path: Path) -> tuple[dict[str, Entry], list[bytes]]:
    """The classes that were on air, by class_id, and the lines of those that are over; raises BadRequest."""
    try:
        head, *lines = path.read_bytes().splitlines()
        number = int(json.loads(head)["on_air"])
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{path}: it cannot be read: {error}") from error
    found = [one for line in lines[:number] if (one := entry(line)) is not None]
    return {one.lesson.class_id: one for one in found}, lines[number:]


class AiredFile:
    """Writes the file at most once a second; a class is turned into its line only when something of it is new."""

    def __init__(self, path: Path, schedule: "Schedule") -> None:
        self.saved = Kept("what was aired", path, self._text, is_synced=True)
        self._schedule = schedule
        self._lines: dict[str, str] = {}
        self._rows: dict[str, int] = {}  # number of as-run rows when a class was last written
        self._over: set[str] = set()  # classes whose last line is written
        self._on_air_at = time.monotonic()  # when the rows of classes on air were last written

    def restore(self, lines: list[bytes]) -> Iterator[None]:
        """Take in the classes that were over before this worker began, a class at each step."""
        for line in lines:
            found = entry(line)
            if found is not None:
                self._lines[found.lesson.class_id] = line.decode()
                self._over.add(found.lesson.class_id)
                self._schedule.ended(found)
            yield

    async def save_for_ever(self) -> None:
        """Save when a session began or a class ended, and every 2 s on air; forget classes long over."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self._schedule.forget(time.time())
            await self.save()

    async def save(self, *, everything: bool = False) -> None:
        """Write what is new, or *everything* that is sent by now."""
        schedule, now = self._schedule, time.monotonic()
        is_due = everything or now - self._on_air_at >= SAVE_EVERY_S
        self._on_air_at = now if is_due else self._on_air_at
        self._over &= schedule.over.keys()
        new = [one for one in schedule.active.values() if self._is_new(one, is_due=is_due)]
        new += [schedule.over[one] for one in schedule.over.keys() - self._over]
        gone = self._lines.keys() - schedule.airings.keys()
        for class_id in gone:
            del self._lines[class_id]
            self._rows.pop(class_id, None)
        await in_slices(self._encoded(new))
        if new or gone or (is_due and self.saved.problem is not None):
            await self.saved.write()

    def _is_new(self, one: "Airing", *, is_due: bool) -> bool:
        return one.row_count != self._rows.get(one.class_id, 0) or (is_due and one.state == "on_air")

    def _encoded(self, new: list["Airing"]) -> Iterator[None]:
        for one in new:
            one.write_down()
            self._lines[one.class_id], self._rows[one.class_id] = one.entry.line(), one.row_count
            if one.entry.ended is not None:
                self._over.add(one.class_id)
            yield

    def _text(self) -> str:
        """The text of the file; a thread makes it."""
        lines = list(self._lines.items())
        ended = [line for class_id, line in lines if class_id in self._over]
        on_air = [line for class_id, line in lines if class_id not in self._over]
        return "\n".join([json.dumps({"on_air": len(on_air)}), *on_air, *ended, ""])


def _is_whole(row: Any) -> bool:  # noqa: ANN401 (JSON)
    """Whether a row of the as-run has all the numbers that sums need."""
    numbers = ("url", "session", "from", "to", "position_s", "sent_s", "bytes")
    known = isinstance(row, dict) and isinstance(row.get("source"), str)
    return known and all(type(row.get(name)) in (int, float) for name in numbers)
