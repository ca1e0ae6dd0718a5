"""The table of the demo: a class is booked, answered, aired or refused, and judged."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from town import recordings
from town.platform import Platform, seconds
from town.stack import Stack
from town.waits import GaveUp, Load, Sight, size

DATABASES = {"teacher": "teacher.db", "streamer1": "task_list.db"}
"""The database of each host, below the demo's root."""

NOTHING = "no host has noted anything of it"

LESSON_S = 12
SLACK_S = 2.0
"""What the connection and the nearest key picture may cost a class of its seconds."""

ON_TIME_S = 1.0


@dataclass
class Row:
    """One class of the table; *expected* is said before it happens."""

    class_id: str
    path: str
    expected: str
    result: str = "…"
    code: int | None = None
    rendition: str = ""
    received_s: float | None = None
    late_s: float | None = None
    ok: bool | None = None
    why: str = ""
    began_at: float = field(default_factory=time.time)
    load: Load | None = None  # of the machine since then, if it is not good


@dataclass
class Table:
    """The rows, in the order in which they begin, and what must be true of each."""

    stack: Stack
    platform: Platform
    rows: list[Row] = field(default_factory=list)

    # -- what a class is made of -----------------------------------------------------------------------------------

    def booking(
        self,
        class_id: str,
        record: int,
        resolution: str | None = None,
        *,
        lead_s: float = 25,
        length_s: float = LESSON_S,
        listed: Sequence[str] = (),
    ) -> dict[str, Any]:
        """A booking of a class that starts in *lead_s*, or as much later as this machine is slower.

        Without *resolution* it is of the old kind, without a record.
        """
        start = time.time() + lead_s * self.stack.slowness
        return {
            "cmd": "order",
            "class_id": class_id,
            "institution_id": "i-7",
            "start_time": start,
            "end_time": start + length_s,
            "push_url": f"rtmp://127.0.0.1:{self.stack.rtmp_port}/live/{class_id}",
            **self.stack.origin.recording(record, resolution, listed),
        }

    async def looped(self, record: int, seconds: float) -> None:
        """Make the recording *record* of another one, which begins again and again."""
        origin = self.stack.root / "origin"
        looped = ("-stream_loop", "-1", "-i", str(origin / "1007" / "1007.flv"), "-c", "copy", "-t", str(seconds))
        await recordings.encode(self.stack.programs.ffmpeg, *looped, to=origin / str(record) / f"{record}.flv")

    def row(self, class_id: str, path: str, expected: str, rendition: str) -> Row:
        """Begin a row."""
        found = Row(class_id, path, expected, rendition=rendition)
        self.rows.append(found)
        return found

    async def book(self, booking: dict[str, Any]) -> None:
        """Publish a booking on the documented channel."""
        await self.platform.publish("order", booking)

    # -- what must be true -----------------------------------------------------------------------------------------

    async def comes(
        self, condition: Callable[[], bool | Awaitable[bool]], what: str, class_id: str, latest: float | None = None
    ) -> str:
        """Wait for *condition* of a class until *latest* (epoch seconds), or while it gets on; says why it failed."""
        try:
            await self.stack.waits.until(condition, what, lambda: self._seen(class_id), latest=latest)
        except GaveUp as error:
            return str(error)
        return ""

    async def answer(self, class_id: str) -> tuple[dict[str, Any] | None, str]:
        """The first answer to a booking; None if it does not come, and what was waited for."""
        answers = self.platform.answers
        fault = await self.comes(lambda: bool(answers[class_id]), f"the answer to {class_id}", class_id)
        return (answers[class_id][0] if answers[class_id] else None), fault

    def _seen(self, class_id: str) -> Sight:
        """How a class gets on: what both hosts have noted of it, and the files that are made for any class."""
        newest = [_newest(self.stack.root / name, host, class_id) for host, name in DATABASES.items()]
        made = size(*(self.stack.root / name for name in ("video", "ecs", "origin", "received")))
        return Sight((newest, made), max(newest)[1])

    async def aired(self, row: Row, booking: dict[str, Any], *, pushes: int = 1) -> None:
        """The class was answered with success, and received from its second to its end."""
        answer, fault = await self.answer(row.class_id)
        after_s = answer["received_at"] - booking["start_time"] if answer is not None else 0.0
        answered = f"; its answer came {after_s:.1f} s after its start" if after_s > 0 else ""
        if answer is None or answer["result"] != "success":
            why = f"was not answered with success: {answer['message']}{answered}" if answer is not None else fault
            self.judge(row, answer, why)
            return
        row.code, row.result = answer["code"], "ready"
        length = booking["end_time"] - booking["start_time"]
        await asyncio.sleep(max(0.0, booking["end_time"] + 1.0 - time.time()))
        fault = await self.comes(lambda: self._over(row.class_id), f"the end of {row.class_id}", row.class_id)
        taken = self.platform.received(row.class_id)
        row.received_s = seconds(taken)
        if not taken or taken[0].first_media_at is None:
            self.judge(row, answer, f"nothing was received{answered}")
            return
        row.late_s = round(taken[0].first_media_at - booking["start_time"], 2)
        faults = [fault] if fault else []
        if len(taken) != pushes:
            faults.append(f"{len(taken)} pushes, not {pushes}")
        if any(one.concurrent for one in taken):
            faults.append("pushed twice at once")
        if row.received_s < length - SLACK_S - (4 if pushes > 1 else 0):
            faults.append(f"only {row.received_s} of {length} s were received")
        if row.late_s > ON_TIME_S or row.late_s < -0.1:
            faults.append(f"began {row.late_s} s after its second{answered}")
        self.judge(row, answer, "; ".join(faults), result="aired")

    def _over(self, class_id: str) -> bool:
        return all(one.ended_at is not None for one in self.platform.received(class_id))

    async def refused(self, row: Row, code: int, *, alarm: bool = False) -> None:
        """The class was refused with *code*; and an alarm came, if one should."""
        answer, fault = await self.answer(row.class_id)
        if answer and answer["code"] != code:
            fault = f"was not refused with {code}: {answer['message']}"
        if alarm and not fault:
            fault = await self.comes(lambda: self.alarmed(code), f"alarm {code}", row.class_id)
        if not fault and self.platform.received(row.class_id):
            fault = "was pushed all the same"
        self.judge(row, answer, fault)

    def alarmed(self, code: int) -> bool:
        """Whether an alarm of this code has come."""
        return any(one["code"] == code for one in self.platform.alarms)

    def judge(self, row: Row, answer: dict[str, Any] | None, fault: str, *, result: str | None = None) -> None:
        """Close a row."""
        row.result = result or ("no answer" if answer is None else "refused" if answer["code"] else "ready")
        row.code = answer["code"] if answer else None
        self.settle(row, fault)

    def settle(self, row: Row, fault: str, good: str = "") -> None:
        """Note that a row is *good*, which is worth saying of it, or its *fault*, and how busy the machine was."""
        said = self._seen(row.class_id).said
        is_new = fault and said != NOTHING and said not in fault
        row.ok, row.why = not fault, f"{fault}. Last said: {said}" if is_new else fault or good
        row.load = self.stack.waits.load_since(row.began_at) if fault else None


def report(rows: Sequence[Row], target: Path) -> None:
    """Write ``demo-report.json``."""
    target.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _newest(database: Path, host: str, class_id: str) -> tuple[float, str]:
    """When and what the newest event of a class in the *database* of *host* was; 0 if there is none, or none yet."""
    sql = "SELECT at, what, detail FROM event_list WHERE class_id = ? ORDER BY id DESC LIMIT 1"
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
            found = connection.execute(sql, (class_id,)).fetchone()
    except sqlite3.Error:
        found = None
    return (found[0], f"{host}: {found[1]} {found[2]}".strip()) if found else (0.0, NOTHING)
