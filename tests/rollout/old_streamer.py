"""A streamer as the old program left it: its database, its recordings, and what is there afterwards."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from lectern.db import schema
from lectern.db.engine import open_database, opened, transaction
from lectern.rollout.spec import Spec
from lectern.rollout.takeover import old_files, streamer
from lectern.rollout.takeover.streamer import MOVES, StreamerAdoption
from tests.effects import old_databases as old
from tests.playbooks.hosts.snapshot import entry
from tests.playout.flvs import FILE_HEAD, tag

NOW = 1_764_010_800.0
ORIGIN, PUSH = "http://origin.example", "rtmp://push.example/live/a"
PATTERNS = (
    r"/(?P<record_id>\d+)_\d+/video_",
    r"/(?P<record_id>\d+)(?:_(?P<resolution>\d+[pP]?))?\.flv$",
    r"/(?P<record_id>\d+)/[^/]+$",
)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a kill, unlike a power cut, does not ask for a disk
OURS = ("task_list", "video_list", "class_list", "dir_info", "event_list")
Value = str | int | float | bytes | None


def flv(seconds: float = 4.0, *, first_s: float = 0.0, filler: str = "", has_headers: bool = False) -> bytes:
    """A recording in which a picture comes every second; *filler* makes it another one of the same length.

    *has_headers*: it begins with the configuration of its decoders, which has the time 0.
    """
    tags = [tag(18, 0, b"\x02\x00\x0aonMetaData" + filler.encode())]
    tags += [tag(9, 0, b"\x17\x00" + bytes(20)), tag(8, 0, b"\xaf\x00" + bytes(2))] if has_headers else []
    tags += [tag(9, int((first_s + at) * 1000), b"\x17\x01" + bytes(20)) for at in range(int(seconds))]
    tags.append(tag(8, int((first_s + seconds) * 1000), b"\xaf\x01" + bytes(7)))
    return FILE_HEAD + b"".join(tags)


def wanted(top: Path, video_root: Path, old_roots: Sequence[Path] = (), patterns: Sequence[str] = PATTERNS) -> Spec:
    """What a rollout below *top* wants, as far as the adoption of a streamer reads it."""
    fields: dict[str, Any] = {"root": top, "video_root": video_root, "old_video_roots": list(old_roots)}
    fields |= {"role": "streamer", "name": "streamer1", "version": "2.0.0", "record_patterns": list(patterns)}
    return Spec.model_construct(**fields)


@dataclass
class OldStreamer:
    """The folders of one host, below *top*."""

    top: Path
    old_roots: list[Path] = field(default_factory=list)
    patterns: Sequence[str] = PATTERNS

    def __post_init__(self) -> None:
        self.code, self.video_root = self.top / "code", self.top / "video"
        self.database = self.code / "task_list.db"
        self.url = f"sqlite:///{self.database}"
        self.code.mkdir(parents=True, exist_ok=True)
        self.video_root.mkdir(exist_ok=True)

    # -- before the rollout -----------------------------------------------------------------------------------

    def has_old_tables(self, *statements: str) -> None:
        """Make the old table of classes, and what *statements* make beside it; the schema is not upgraded yet."""
        old.build(self.database, [old.OLD_TASKS, *statements])

    def has_tables(self) -> None:
        """The old table of classes, and the schema of this program around it."""
        self.database.write_bytes(_upgraded())

    def has_class(
        self, class_id: str, url: Value, start: Value = NOW + 7200, end: Value = NOW + 10_000, push_url: Value = PUSH
    ) -> None:
        """A row of ``task_list``; by default of a class that begins in two hours."""
        self.has_classes([(class_id, url, start, end, push_url)])

    def has_classes(self, rows: Iterable[Sequence[Value]]) -> None:
        """Rows of ``task_list``: class_id, url, start, end, push_url."""
        columns = "(class_id, video_url, start_time, end_time, push_url, status, teacher_name)"
        self.execute(f"INSERT INTO task_list {columns} VALUES (?, ?, ?, ?, ?, 1, 'Li')", rows)

    def has_file(self, place: str, content: bytes | None = None, *, age_s: float = 1000.0) -> Path:
        path = self.top / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(flv(filler=place.encode(errors="surrogateescape").hex()) if content is None else content)
        os.utime(path, (NOW - age_s, NOW - age_s))
        return path

    def is_upgraded(self) -> None:
        """The schema is that of this program."""
        with opened(self.url) as engine:
            schema.upgrade(engine, "streamer")

    # -- what is done -----------------------------------------------------------------------------------------

    def engine(self) -> Engine:
        return open_database(self.url)

    @contextmanager
    def committed(self) -> Iterator[Connection]:
        """A transaction of this program."""
        with opened(self.url) as engine, transaction(engine) as connection:
            yield connection

    @property
    def wanted(self) -> Spec:
        return wanted(self.top, self.video_root, self.old_roots, self.patterns)

    @property
    def journal(self) -> Path:
        return self.wanted.backup_dir / MOVES

    @property
    def aside(self) -> Path:
        """Where a migration at NOW puts strange files."""
        return self.video_root / "quarantine" / "20251124T190000Z"

    def quarantined(self, place: str) -> Path:
        """The place there of what lay at *place* in the store."""
        return Path(f"{self.aside}{self.video_root}/{place}")

    def planned(self, now: float = NOW) -> StreamerAdoption:
        with opened(self.url) as engine, engine.connect() as connection:
            return StreamerAdoption(connection, self.wanted, now)

    def adopt(self, now: float = NOW, engine: Engine | None = None) -> list[str]:
        used = engine or self.engine()
        try:
            return streamer.adopt(used, self.wanted, now)
        finally:
            used.dispose()

    def undo(self) -> list[str]:
        return old_files.undo_moves(self.journal)

    # -- what is there ----------------------------------------------------------------------------------------

    def execute(self, statement: str, rows: Iterable[Sequence[Value]] = ((),)) -> None:
        """Write to the database, as another program."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            connection.executemany(statement, rows)
            connection.execute("COMMIT")

    def rows(self, query: str) -> list[tuple[Value, ...]]:
        """Read the database, as another program."""
        return old.rows(self.database, query)

    def states(self) -> dict[Value, Value]:
        return dict(self.rows("SELECT class_id, state FROM class_list"))  # type: ignore[arg-type]

    def cached(self) -> dict[Value, tuple[Value, ...]]:
        """State, citations and size of every rendition."""
        found = self.rows("SELECT id, state, num_cite, size_bytes FROM video_list")
        return {stem: tuple(rest) for stem, *rest in found}

    def sums(self) -> tuple[Value, ...]:
        """Bytes, number, reserved bytes and reserved number of the store."""
        (found,) = self.rows(
            f"SELECT size, num, reserved_bytes, reserved_num FROM dir_info WHERE dir = '{self.video_root}'"
        )
        return found

    def dump(self) -> dict[str, list[tuple[object, ...]]]:
        """Every value of the tables that the migration may touch, to the byte."""
        found = old.dump(self.database)
        return {table: found.get(table, []) for table in OURS}

    def tree(self) -> dict[str, list[object]]:
        """Everything below *top* but the database and the rollout's own folder, with the time of every file."""
        return {
            str(path.relative_to(self.top)): [*entry(path), path.is_dir() or path.lstat().st_mtime_ns]
            for path in sorted(self.top.rglob("*"))
            if not path.is_relative_to(self.wanted.rollout_dir) and not path.name.startswith("task_list.db")
        }

    def contents(self) -> list[str]:
        """What is in all files, wherever they lie."""
        return sorted(str(one[3]) for one in self.tree().values() if str(one[0])[0] == "-")


@cache
def _upgraded() -> bytes:
    """A database with the old table and the new schema; to make it takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        host = OldStreamer(Path(folder))
        host.has_old_tables()
        host.is_upgraded()
        return host.database.read_bytes()


def local(seconds: float) -> str:
    """A time as the old program wrote it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
