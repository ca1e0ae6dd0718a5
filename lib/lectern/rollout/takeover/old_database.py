"""The tables of a streamer, as any program has left them, and which of their classes are still to be aired."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection

from lectern import rendition_ids
from lectern.db.airings import BEYOND, epoch
from lectern.formatting import moment
from lectern.i18n import Text, msgid
from lectern.migrations.steps import shape
from lectern.rendition_ids import HeldStem, stem
from lectern.rollout.backup import quoted
from lectern.rollout.result import shown
from lectern.states import LIVE_AIRINGS, AiringState, FileState, Resolution
from lectern.urls import Url, http, push, redact_url
from lectern.wire.fields import is_name

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class OldTaskRow:
    """A class in ``task_list``; texts that are not UTF-8 hold surrogates."""

    class_id: str
    video_url: str
    push_url: str
    start: str | None
    end: str | None


@dataclass(frozen=True, slots=True)
class OldClassRow:
    """A class in ``class_list``; *state* is None if no program of ours has seen it."""

    class_id: str
    video_id: str
    site: str | None = None
    state: AiringState | None = None
    record_id: int | None = None
    run_id: str | None = None
    released_at: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class OldFileRow:
    """A rendition in ``video_list``; *state* is None if no program of ours has seen it."""

    stem: str
    site: str | None = None
    update_time: float | None = None
    state: FileState | None = None
    size_bytes: int | None = None
    url: str | None = None
    duration_s: float | None = None
    tries: int | None = None
    reason: str | None = None
    etag: str | None = None
    crc64: str | None = None


def tasks(connection: Connection) -> list[OldTaskRow]:
    """All rows of ``task_list``."""
    names = ("class_id", "video_url", "push_url", "start_time", "end_time")
    return [
        OldTaskRow(row[0] or "", row[1] or "", row[2] or "", *row[3:]) for row in _rows(connection, "task_list", names)
    ]


def classes(connection: Connection) -> dict[str, OldClassRow]:
    """All rows of ``class_list``."""
    names = ("class_id", "video_id", "site", "state", "record_id", "run_id", "released_at", "code", "message")
    return {
        key: OldClassRow(key, stem or "", site, _among(AiringState, state), _whole(record), *rest)
        for key, stem, site, state, record, *rest in _rows(connection, "class_list", names)
        if key is not None
    }


def files(connection: Connection) -> dict[str, OldFileRow]:
    """All rows of ``video_list``."""
    names = ("id", "site", "update_time", "state", "size_bytes", "url", "duration_s", "tries", "reason", "etag")
    rows: dict[str, OldFileRow] = {}
    for key, site, used, state, size, url, length, tries, *rest in _rows(connection, "video_list", (*names, "crc64")):
        if key is not None:
            kind, bytes_, tried = _among(FileState, state), _whole(size), _whole(tries)
            rows[key] = OldFileRow(key, site, _number(used), kind, bytes_, url, _number(length), tried, *rest)
    return rows


def _among(kind: type[S], text: str | None) -> S | None:
    return kind(text) if text in set(kind) else None


def database_file(connection: Connection) -> Path | None:
    """The path of the database; None if it is in memory."""
    file = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar_one()
    return Path(str(file)) if file else None


def _rows(connection: Connection, table: str, names: tuple[str, ...]) -> Iterator[tuple[str | None, ...]]:
    """The columns *names* of a table, each as text or None; empty if there is no such table yet."""
    found = shape(connection, table)
    if found is None:
        return
    columns = [quoted(found.columns[name]) if name in found.columns else "NULL" for name in names]
    # As bytes, because an old text need not be valid UTF-8. S608: the statement is built of quoted names only.
    wanted = f"SELECT {', '.join(f'CAST({name} AS BLOB)' for name in columns)} FROM {table}"  # noqa: S608
    for row in connection.exec_driver_sql(wanted):
        yield tuple(None if value is None else value.decode("utf-8", "surrogateescape") for value in row)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number.is_integer() else None


_DIGITS = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Task:
    """What a row of ``task_list`` says of its recording; *stem* is None if neither a record nor a URL names it."""

    class_id: str
    path: str
    stem: str | None


@dataclass(frozen=True, slots=True)
class Going:
    """A class that has not ended; *start* is epoch seconds."""

    class_id: str
    stem: str
    start: float


@dataclass(frozen=True)
class Judged:
    """All classes of the old program, sorted."""

    tasks: list[Task] = field(default_factory=list)
    going: list[Going] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    urls: dict[str, str] = field(default_factory=dict)
    """The URL of each rendition, from the latest class that has one."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Classes whose times cannot be read, but that cannot begin any more; each in words."""
    refused: list[str] = field(default_factory=list)
    """Classes that this program has refused before, and that have not ended."""
    refusals: list[str] = field(default_factory=list)


def rendition(patterns: Iterable[str], path: str) -> str | None:
    """The stem of the rendition in *path*, by the first of the *patterns* that finds a record; None if none does."""
    for pattern in patterns:
        matched = re.search(pattern, path)
        record = matched and matched.groupdict().get("record_id")
        if not matched or not record or not _DIGITS.fullmatch(record) or int(record) >= 2**63:
            continue
        named = matched.groupdict().get("resolution")
        if not named:
            return stem(int(record), None)
        resolution = named.upper() if named[-1] in "pP" else f"{named}P"
        if resolution in set(Resolution):
            return stem(int(record), Resolution(resolution))
    return None


def judge(rows: Iterable[OldTaskRow], known: Mapping[str, OldClassRow], patterns: Sequence[str], now: float) -> Judged:
    """Sort the classes of *rows*; a class keeps the rendition that ``class_list`` has for it."""
    judged, by_pattern = Judged(), cache(lambda path: rendition(patterns, path))
    held: dict[str, HeldStem] = {}
    urls: dict[str, tuple[float, str]] = {}
    for row in rows:
        before, path = known.get(row.class_id), _path(row.video_url)
        cited, is_url = before.video_id if before else "", _fits(http, row.video_url)
        # A class has the rendition that is known, else that of the record that a pattern finds, else that of its URL.
        found = cited if rendition_ids.record_of(cited) is not None else by_pattern(path)
        if found is None and is_url:
            is_named = cited in {rendition_ids.of_url(row.video_url), rendition_ids.hashed(row.video_url)}
            found = cited if is_named else rendition_ids.chosen(None, None, row.video_url, held)
            held.setdefault(found, HeldStem(rendition_ids.source(row.video_url)))
        judged.tasks.append(Task(row.class_id, path, found))
        if found and is_url:
            urls[found] = max((epoch(row.start) or 0.0, row.video_url), urls.get(found, (0.0, "")))
            judged.urls[found] = urls[found][1]
        _sort(judged, row, before, found, now)
    return judged


def _sort(judged: Judged, row: OldTaskRow, before: OldClassRow | None, found: str | None, now: float) -> None:
    """Sort the class of *row*, which was known as *before*, and whose rendition is *found*."""
    start, end = epoch(row.start), epoch(row.end)
    if before and before.state and before.state not in LIVE_AIRINGS:
        if before.state is AiringState.REFUSED and end and end >= now:
            judged.refused.append(f"{shown(row.class_id)} ({before.code}: {before.message})")
    elif end is not None and end < now:
        judged.ended.add(row.class_id)
    elif start is None or end is None:
        text = f"{shown(row.class_id)} (start_time {_text(row.start)}, end_time {_text(row.end)})"
        if _may_come(row.start, now) or _may_come(row.end, now):
            why = msgid(
                "class {text}: its times cannot be read, and it may be to come; correct them in the old program "
                "(epoch seconds), or cancel the class there"
            )
            judged.refusals.append(Text(why, text=text))
        else:
            judged.unreadable[row.class_id] = text
    elif fault := _fault(row, found, start, end):
        text = msgid("class {class_id} at {start:moment}: {why}")
        refusal = Text(text, class_id=shown(row.class_id), start=start, why=fault)
        judged.refusals.append(refusal)
    elif found:
        judged.going.append(Going(row.class_id, found, start))


def _fault(row: OldTaskRow, fault: str | None, start: float, end: float) -> str | None:
    """Why a class that has not ended cannot be taken over; None if it can."""
    if not is_name(row.class_id):
        return Text(
            "its class_id has other characters than A-Z a-z 0-9 _ . : -; book it anew under another, and cancel it"
        )
    if end <= start:
        text = msgid("it ends ({end}) before it begins; correct its times, or cancel it in the old program")
        return Text(text, end=moment(end))
    if not _fits(push, row.push_url):
        text = msgid("its push_url {url} is no rtmp address; correct it, or cancel the class")
        return Text(text, url=shown(redact_url(row.push_url)))
    if fault is None:
        return Text(
            "its video_url {url} names no record; add a pattern to record_patterns, or cancel the class in the old "
            "program",
            url=shown(redact_url(row.video_url)),
        )
    return None


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return url


def _fits(read: Callable[[str], Url], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _may_come(value: str | None, now: float) -> bool:
    """Whether a time lies ahead, in seconds or in milliseconds."""
    seconds = epoch(value)
    if seconds is None:
        try:
            number = float(value or "")
        except ValueError:
            return False
        seconds = number / 1000 if BEYOND <= number < 1000 * BEYOND else 0.0
    return seconds >= now


def _text(value: str | None) -> str:
    return "NULL" if value is None else shown(value if len(value) <= 40 else f"{value[:40]}...")
