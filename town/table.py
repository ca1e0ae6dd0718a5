"""The table of the demo: a class is booked, answered, aired or refused, and judged."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from town.platform import Platform, seconds
from town.stack import Stack, until

LESSON_S = 12
ANSWER_S = 60.0
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
        """A booking of a class that starts in *lead_s*; without *resolution* of the old kind, without a record."""
        start = time.time() + lead_s
        origin = self.stack.origin
        fields = {
            "cmd": "order",
            "class_id": class_id,
            "institution_id": "i-7",
            "video_url": origin.url_for(f"{record}/{record}.flv"),
            "start_time": start,
            "end_time": start + length_s,
            "push_url": f"rtmp://127.0.0.1:{self.stack.rtmp_port}/live/{class_id}",
        }
        if resolution is not None:
            urls = {one: origin.url_for(f"{record}/{record}_{one}.flv") for one in listed}
            fields |= {"record_id": record, "video_resolution": resolution, "video_url_list": urls}
        return fields

    def row(self, class_id: str, path: str, expected: str, rendition: str) -> Row:
        """Begin a row."""
        found = Row(class_id, path, expected, rendition=rendition)
        self.rows.append(found)
        return found

    async def book(self, booking: dict[str, Any]) -> None:
        """Publish a booking on the documented channel."""
        await self.platform.publish("order", booking)

    # -- what must be true -----------------------------------------------------------------------------------------

    async def aired(self, row: Row, booking: dict[str, Any], *, pushes: int = 1) -> None:
        """The class was answered with success, and received from its second to its end."""
        answer = await self.platform.answer(row.class_id, booking["end_time"] - time.time())
        if answer is None or answer["result"] != "success":
            self.judge(row, answer, "it was not answered with success")
            return
        row.code, row.result = answer["code"], "ready"
        length = booking["end_time"] - booking["start_time"]
        await asyncio.sleep(max(0.0, booking["end_time"] + 1.0 - time.time()))
        await eventually(lambda: self._over(row.class_id), 15)
        taken = self.platform.received(row.class_id)
        row.received_s = seconds(taken)
        if not taken or taken[0].first_media_at is None:
            self.judge(row, answer, "nothing was received")
            return
        row.late_s = round(taken[0].first_media_at - booking["start_time"], 2)
        faults = []
        if len(taken) != pushes:
            faults.append(f"{len(taken)} pushes, not {pushes}")
        if any(one.concurrent for one in taken):
            faults.append("pushed twice at once")
        if row.received_s < length - SLACK_S - (4 if pushes > 1 else 0):
            faults.append(f"only {row.received_s} of {length} s were received")
        if row.late_s > ON_TIME_S or row.late_s < -0.1:
            faults.append(f"began {row.late_s} s after its second")
        self.judge(row, answer, "; ".join(faults), result="aired")

    def _over(self, class_id: str) -> bool:
        return all(one.ended_at is not None for one in self.platform.received(class_id))

    async def refused(self, row: Row, code: int, timeout_s: float = ANSWER_S, *, alarm: bool = False) -> None:
        """The class was refused with *code*, once; and an alarm came, if one should."""
        answer = await self.platform.answer(row.class_id, timeout_s)
        fault = "" if answer and answer["code"] == code else f"was not refused with {code} within {timeout_s:g} s"
        if alarm and not fault:
            came = await eventually(lambda: any(one["code"] == code for one in self.platform.alarms), 5)
            fault = "" if came else f"no alarm {code} came"
        if not fault and self.platform.received(row.class_id):
            fault = "was pushed all the same"
        self.judge(row, answer, fault)

    def judge(self, row: Row, answer: dict[str, Any] | None, fault: str, *, result: str | None = None) -> None:
        """Close a row."""
        row.result = result or ("no answer" if answer is None else "refused" if answer["code"] else "ready")
        row.code = answer["code"] if answer else None
        row.ok = not fault
        row.why = fault


def report(rows: Sequence[Row], target: Path) -> None:
    """Write ``demo-report.json``."""
    target.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


async def eventually(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether *condition* became true within *timeout_s*."""
    try:
        await until(condition, timeout_s, "a condition")
    except TimeoutError:
        return False
    return True
