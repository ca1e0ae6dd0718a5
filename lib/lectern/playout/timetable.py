"""The classes to be aired, and the file that keeps them over any restart."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lectern.playout.files import Files
from lectern.playout.index import path_of
from lectern.playout.reach import is_network
from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.url import target

MAX_URLS = 4
FORGET_S = 24 * 3600.0
"""Seconds after the end of a class until its status is forgotten."""


class BadRequest(Exception):
    """A request that cannot be done; the text says why."""


@dataclass(frozen=True)
class Lesson:
    """A class as it was asked for; times are epoch seconds."""

    class_id: str
    file: str
    push_urls: tuple[str, ...]
    start: float
    end: float
    index: str | None = None
    duration_s: float | None = None
    slate: str | None = None
    networks: tuple[str, ...] | None = None
    """The networks in which its push hosts must lie, such as `public` and `10.0.0.0/8`; None allows any address."""

    @property
    def files(self) -> Files:
        """The files that the class is aired from."""
        recording = Path(self.file)
        length_s = self.end - self.start
        needed_ms = None if self.duration_s is None else min(self.duration_s, length_s) * 1000
        index = Path(self.index) if self.index else path_of(recording)
        return Files(recording, index, Path(self.slate) if self.slate else None, needed_ms)


@dataclass
class Entry:
    """A class of the timetable, and what became of it."""

    lesson: Lesson
    as_run: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    """Why the class is over, in words; None if it is not."""
    first_byte_at: float | None = None


def lesson(fields: dict[str, Any]) -> Lesson:
    """The class that *fields* ask for; raises BadRequest with what is wrong with them."""
    urls = fields.get("push_urls")
    if not isinstance(urls, list) or not 1 <= len(urls) <= MAX_URLS or len(set(map(str, urls))) < len(urls):
        raise BadRequest(f"push_urls: 1 to {MAX_URLS} different URLs are needed")
    for number, url in enumerate(urls):
        try:
            target(str(url))
        except NotRtmp as error:
            raise BadRequest(f"push_urls[{number}]: {error}") from error
    found = Lesson(
        class_id=_text(fields, "class_id"),
        file=_path(fields, "file") or "",
        push_urls=tuple(map(str, urls)),
        start=_number(fields, "start") or 0.0,
        end=_number(fields, "end") or 0.0,
        index=_path(fields, "index", is_needed=False),
        duration_s=_number(fields, "duration_s", is_needed=False),
        slate=_path(fields, "slate", is_needed=False),
        networks=networks(fields),
    )
    if found.end <= found.start:
        raise BadRequest("end: it must be after start")
    return found


class TimetableFile:
    """The file that keeps the timetable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Entry]:
        """The entries by class_id, without unreadable entries; raises BadRequest if the file itself cannot be read."""
        try:
            rows = list(json.loads(self.path.read_text(encoding="utf-8"))["classes"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadRequest(f"{self.path}: it cannot be read: {error}") from error
        found = {}
        for row in rows:
            try:
                known, ended = lesson(row["lesson"]), row["ended"]
                sent = [one for one in row["as_run"] if _is_whole(one)]
                began = _number(row, "first_byte_at", is_needed=False)
                entry = Entry(known, sent, None if ended is None else str(ended), began)
            except (BadRequest, AttributeError, KeyError, TypeError):  # no object, or one of another release
                continue
            found[known.class_id] = entry
        return found

    def text(self, entries: dict[str, Entry]) -> str:
        """The text of the file; it is made at once, so that a thread can write it later."""
        return json.dumps({"classes": [asdict(one) for one in entries.values()]})


def _is_whole(row: Any) -> bool:  # noqa: ANN401 (JSON)
    """Whether a row of the as-run has all the numbers that sums need."""
    numbers = ("url", "session", "from", "to", "position_s", "sent_s", "bytes")
    known = isinstance(row, dict) and isinstance(row.get("source"), str)
    return known and all(type(row.get(name)) in (int, float) for name in numbers)


def networks(fields: dict[str, Any]) -> tuple[str, ...] | None:
    """The networks of a request, in which push hosts must lie; raises BadRequest that says what is wrong with them."""
    found = fields.get("networks")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) and is_network(one) for one in found):
        raise BadRequest("networks: a list of networks, such as 10.0.0.0/8, and of the word public is needed")
    return tuple(found)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise BadRequest(f"{name}: a text of 1 to 1,024 characters is needed")
    return value


def _path(fields: dict[str, Any], name: str, *, is_needed: bool = True) -> str | None:
    if fields.get(name) is None and not is_needed:
        return None
    value = _text(fields, name)
    if not value.startswith("/") or "\0" in value:
        raise BadRequest(f"{name}: an absolute path is needed")
    return value


def _number(fields: dict[str, Any], name: str, *, is_needed: bool = True) -> float | None:
    value = fields.get(name)
    if value is None and not is_needed:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise BadRequest(f"{name}: a number of seconds is needed")
    return float(value)
