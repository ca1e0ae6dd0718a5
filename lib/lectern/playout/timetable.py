"""The timetable: the file in which the resident says which classes are to be aired, and a class of it."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.playout.files import Files
from lectern.playout.index import path_of
from lectern.playout.reach import is_network
from lectern.playout.rtmp import NotRtmp
from lectern.playout.rtmp.url import target

NAME = "timetable.jsonl"
"""The file in the playout's folder: a header, then a class a line, by their start."""
MAX_BYTES = 64 * 1024 * 1024
MAX_CLASSES = 10_000
"""Number of classes of a timetable that are aired; the classes after them are left out."""
MAX_URLS = 4


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


@dataclass(frozen=True)
class Difference:
    """A version of the timetable, and how it differs from the lines that a worker has."""

    version: str
    new: list[bytes]
    """The lines that the worker does not have, the class that begins soonest first."""
    gone: frozenset[bytes]
    left_out: int
    """Number of classes at the end of the file that are more than MAX_CLASSES."""


def difference(path: Path, known: Collection[bytes]) -> Difference:
    """Read the timetable at *path* and compare it with the *known* lines; raises BadRequest if it cannot be read.

    It parses the header only, so that a thread can do it beside the sending loop.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        head, *lines = data.splitlines()
        fields = json.loads(head)
        version, count = str(fields["version"]), fields["count"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(f"{path}: it cannot be read: {error}") from error
    if len(data) > MAX_BYTES or count != len(lines):
        raise BadRequest(f"{path}: it cannot be read: it has {len(data)} bytes, and {len(lines)} classes of {count}")
    wanted = lines[:MAX_CLASSES]
    new = [line for line in wanted if line not in known]
    return Difference(version, new, frozenset(known).difference(wanted), len(lines) - len(wanted))


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
        class_id=class_id_of(fields),
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


def class_id_of(fields: dict[str, Any]) -> str:
    """The class_id of *fields*; raises BadRequest if they have none."""
    return _text(fields, "class_id")


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
