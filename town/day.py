"""A day on the class platform that takes every path."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from lectern.errors import Caught
from town import recordings
from town.faults import Fault
from town.oss_transcoder import Behaviour, Rule
from town.outlived import Outlived
from town.platform import position_s
from town.reported import Reported
from town.settings import CACHE_NUM
from town.stack import Stack
from town.table import LESSON_S, SLACK_S, Row
from town.waits import STILL_S

NEVER_S = 100_000.0
DOWN_S = 2.5
"""Seconds without a receiver: the platform is told of it."""

STAYS_S = 45 * 60
"""Seconds of the class that is on air when the demo is kept."""


class Day(Outlived, Reported):
    """The paths, one a method."""

    async def old_booking(self) -> None:
        """A booking of the old kind."""
        row = self.row("c-old", "old booking, no resolution", "aired", "1001")
        booking = self.booking(row.class_id, 1001)
        await self.book(booking)
        await self.aired(row, booking)

    async def in_list(self) -> None:
        """The wanted resolution has its URL in the booking."""
        row = self.row("c-listed", "resolution in the list", "aired", "1002_480P")
        booking = self.booking(row.class_id, 1002, "480P", listed=("480P",))
        await self.book(booking)
        await self.aired(row, booking)

    async def over_http(self) -> None:
        """The booking comes over HTTP, and waits there for its answer."""
        row = self.row("c-http", "booking by HTTP", "aired", "1002_480P")
        made = json.loads(await self.stack.lectern("client", "add", "platform", "--json"))
        booking = self.booking(row.class_id, 1002, "480P", listed=("480P",))
        headers = {"Authorization": f"Bearer {made['token']}"}
        async with httpx.AsyncClient(base_url=made["url"], headers=headers, timeout=STILL_S, trust_env=False) as client:
            answer = await client.put(f"/v1/classes/{row.class_id}", params={"wait": 50}, json=booking)
        if not answer.is_success:
            self.judge(row, None, f"answered {answer.status_code} over HTTP: {answer.text}")
            return
        await self.aired(row, booking)

    async def transcoded(self) -> None:
        """Two classes wait for one transcoding; then a booking without the URL is refused."""
        rows = [self.row(f"c-oss-{n}", "OSS transcodes, two wait, one POST", "aired", "1003_480P") for n in (1, 2)]
        booked = [self.booking(row.class_id, 1003, "480P") for row in rows]
        for booking in booked:
            await self.book(booking)
        late = self.row("c-no-url", "transcoded already, but no URL", "refused 501, alarm", "1003_480P")
        await self.answer(rows[0].class_id)
        await self.book(self.booking(late.class_id, 1003, "480P"))
        await self.refused(late, 501, alarm=True)
        await asyncio.gather(*(self.aired(row, one) for row, one in zip(rows, booked, strict=True)))
        for row in rows:
            self._posted_once(row, 1003)

    def _posted_once(self, row: Row, record: int) -> None:
        number = sum(one.record_id == record for one in self.stack.oss.posts)
        if row.ok and number != 1:
            self.settle(row, f"{number} POSTs, not one")

    async def fallback(self) -> None:
        """The OSS fails, our own server succeeds."""
        self.stack.oss.behave(Rule(Behaviour.FAIL, record_id=1004))
        row = self.row("c-ecs", "OSS fails, ECS succeeds", "aired", "1004_480P")
        booking = self.booking(row.class_id, 1004, "480P", lead_s=40)
        await self.book(booking)
        await self.aired(row, booking)

    async def both_fail(self) -> None:
        """Both transcoders fail; the next booking tries again."""
        self.stack.oss.behave(Rule(Behaviour.FAIL, record_id=1005, times=1))
        self.stack.origin.faults.add(Fault("1005/*", method="GET", status=404, times=1))
        first = self.row("c-both-fail", "OSS and ECS fail", "refused 208, alarm", "1005_480P")
        await self.book(self.booking(first.class_id, 1005, "480P", lead_s=60))
        await self.refused(first, 208, alarm=True)
        again = self.row("c-again", "the next booking tries again", "aired", "1005_480P")
        booking = self.booking(again.class_id, 1005, "480P")
        await self.book(booking)
        await self.aired(again, booking)

    async def silent(self) -> None:
        """The OSS never answers; the next booking is refused at once."""
        self.stack.oss.behave(Rule(Behaviour.SILENT, record_id=1006))
        first = self.row("c-silent", "OSS is silent", "refused 207, alarm", "1006_480P")
        await self.book(self.booking(first.class_id, 1006, "480P", lead_s=90))
        await self.refused(first, 207, alarm=True)
        again = self.row("c-silent-2", "the next booking of it", "refused 207 at once, no second POST", "1006_480P")
        await self.book(self.booking(again.class_id, 1006, "480P"))
        await self.refused(again, 207)
        self._posted_once(again, 1006)

    async def twice(self) -> None:
        """The same booking comes twice."""
        row = self.row("c-twice", "the same booking twice", "the same answer twice, one airing", "1001")
        booking = self.booking(row.class_id, 1001)
        await self.book(booking)
        await self.book(booking)
        await self.aired(row, booking)
        answers = self.platform.answers[row.class_id]
        if row.ok and (len(answers) != 2 or answers[0]["code"] != answers[1]["code"]):
            self.judge(row, answers[0], f"{len(answers)} answers, not the same two", result="aired")

    async def malformed(self) -> None:
        """Nonsense is answered or put aside; what comes behind it is not harmed."""
        row = self.row("c-malformed", "malformed booking", "refused 400", "")
        dead = self.row("(no class_id)", "nonsense on the channel", "dead letter, alarm", "")
        behind = self.row("c-behind", "the booking behind them", "aired", "1002_480P")
        booking = self.booking(behind.class_id, 1002, "480P", listed=("480P",))
        nonsense = 'order me a class, "please"'
        for message in ({"cmd": "order", "class_id": row.class_id, "record_id": "six"}, nonsense, booking):
            await self.platform.publish("order", message)
        await self.refused(row, 400)
        self.settle(dead, await self.comes(lambda: self._buried(nonsense), "the dead letter", row.class_id))
        dead.result = "dead letter" if dead.ok else "lost"
        await self.aired(behind, booking)

    async def _buried(self, nonsense: str) -> bool:
        return any(one["body"] == nonsense for one in await self.platform.dead_letters())

    async def cancelled(self) -> None:
        """A class is cancelled before its time."""
        row = self.row("c-cancelled", "cancelled before its time", "not aired, released", "1002_480P")
        booking = self.booking(row.class_id, 1002, "480P", listed=("480P",))
        await self.book(booking)
        answer, fault = await self.answer(row.class_id)
        await self.platform.publish("cancel", {"cmd": "cancel", "class_id": row.class_id})
        await asyncio.sleep(max(0.0, booking["start_time"] + 4 - time.time()))
        fault = fault or ("was pushed" if self.platform.received(row.class_id) else "")

        async def is_released() -> bool:
            story = json.loads(await self.stack.lectern("explain", row.class_id, "--json"))
            return any(one["what"] == "released" for one in story["events"])

        fault = fault or await self.comes(is_released, "the release of its citation", row.class_id)
        self.judge(row, answer, fault, result="cancelled")

    async def receiver_killed(self) -> None:
        """The receiver dies in the middle of a class; last of the airings, because it cuts them all."""
        row = self.row("c-cut", "receiver killed in class", "resumed at the clock's position", "1007")
        booking = self.booking(row.class_id, 1007, lead_s=15, length_s=20)
        await self.book(booking)
        await asyncio.sleep(max(0.0, booking["start_time"] + 7 - time.time()))
        await self.stack.kill_receiver()
        killed = time.monotonic()
        await self.stack.start_receiver(DOWN_S)
        down_s = time.monotonic() - killed
        await self.aired(row, booking, pushes=2)
        if not row.ok:
            row.why += f"; the receiver was away for {down_s:.1f} s, not {DOWN_S} s"
            return
        second = self.platform.received(row.class_id)[1]
        source = self.stack.root / "origin" / "1007" / "1007.flv"
        where = await asyncio.to_thread(position_s, source, self.platform.file(second))
        clock = (second.first_media_at or second.started_at) - booking["start_time"]
        fault = (
            ""
            if where is not None and abs(where - clock) <= SLACK_S + 0.5
            else f"resumed at {where}, not {clock:.1f} s"
        )
        self.settle(row, fault, f"resumed at {where or 0.0:.1f} s, the clock said {clock:.1f} s")

    # -- the bounded cache, when everything else is over -----------------------------------------------------------

    async def full_cache(self) -> None:
        """Fill the cache: first something unpinned must go, then nothing can."""
        listed = await self._cached()
        pins = CACHE_NUM - len(listed)
        await asyncio.gather(*(self._pin(1100 + n) for n in range(pins)))
        row = self.row("c-lru", "cache full of unpinned ones", "the least recently used goes, aired", "1008")
        oldest = next(one["stem"] for one in listed if one["num_cite"] == 0)
        booking = self.booking(row.class_id, 1008, lead_s=12, length_s=8)
        await self.book(booking)
        await self.aired(row, booking)
        now = {one["stem"] for one in await self._cached()}
        if row.ok and (oldest in now or len(now) != CACHE_NUM):
            self.settle(row, f"{oldest} is still there, or more went: {sorted(now)}")
        await self._unpinned(row)
        await asyncio.gather(*(self._pin(1100 + n) for n in range(pins, CACHE_NUM)))
        full = self.row("c-full", "cache full of pinned ones", "refused 316, alarm", "1009")
        before = await self._cached()
        await self.book(self.booking(full.class_id, 1009, lead_s=60))
        await self.refused(full, 316, alarm=True)
        if full.ok and [one["stem"] for one in await self._cached()] != [one["stem"] for one in before]:
            self.settle(full, "something was evicted in vain")

    async def _unpinned(self, row: Row) -> None:
        """The class that was aired has given its citation back."""

        async def is_free() -> bool:
            return all(one["num_cite"] == 0 for one in await self._cached() if one["stem"] == row.rendition)

        if row.ok:
            self.settle(row, await self.comes(is_free, f"the release of {row.class_id}", row.class_id))

    async def _cached(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self.stack.lectern("cache", "ls", "--json"))
        return [one for one in found if one["state"] == "ready"]

    async def _pin(self, record: int) -> None:
        """Book a class of tomorrow: it stays on the timetable, its rendition stays pinned."""
        class_id = f"c-tomorrow-{record}"
        await self.book(self.booking(class_id, record, lead_s=NEVER_S))
        answer, fault = await self.answer(class_id)
        if answer is None or answer["code"]:
            raise RuntimeError(f"{class_id} could not be booked: {fault or answer}")

    # -- what somebody finds who keeps the demo --------------------------------------------------------------------

    async def stay(self) -> None:
        """Leave a long class on air, and room for more: the classes that filled the cache are cancelled."""
        for class_id in [one for one in self.platform.answers if one.startswith("c-tomorrow-")]:
            await self.platform.publish("cancel", {"cmd": "cancel", "class_id": class_id})
        await self.looped(1200, STAYS_S)
        booking = self.booking("c-now", 1200, lead_s=25, length_s=STAYS_S)
        await self.book(booking)
        await self.comes(lambda: bool(self.platform.received("c-now")), "c-now on air", "c-now", booking["end_time"])

    def example(self) -> dict[str, Any]:
        """The fields of a booking that can be aired here; CLASS_ID stands for its class."""
        fields = self.booking("CLASS_ID", 1200, "720P")
        kept = ("institution_id", "video_url", "push_url", "record_id", "video_resolution")
        return {**{name: fields[name] for name in kept}, "video_url_list": {"720P": fields["video_url"]}}


async def record(stack: Stack, say: Callable[[str], None]) -> None:
    """Make the recordings that the day needs, a few at a time."""
    lessons = {f"{record}/{record}": (LESSON_S, 640, 360) for record in (1001, 1008, 1009)}
    lessons |= {f"{record}/{record}": (LESSON_S, 854, 480) for record in (1003, 1004, 1005, 1006)}
    lessons |= {
        "1007/1007": (20, 640, 360),
        "1010/1010": (26, 640, 360),
        "1002/1002": (LESSON_S, 640, 480),
        "1002/1002_480P": (LESSON_S, 640, 480),
    }
    say(f"{len(lessons)} recordings and {CACHE_NUM} short ones")
    gate = asyncio.Semaphore(2)

    async def make(name: str, length_s: int, width: int, height: int) -> None:
        async with gate:
            target = stack.root / "origin" / f"{name}.flv"
            await recordings.make(stack.programs.ffmpeg, target, seconds=length_s, width=width, height=height)

    await asyncio.gather(*(make(name, *shape) for name, shape in lessons.items()))
    await make("1100/1100", 2, 320, 240)
    short = (stack.root / "origin" / "1100" / "1100.flv").read_bytes()
    for record in range(1101, 1100 + CACHE_NUM):
        target = stack.root / "origin" / str(record) / f"{record}.flv"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(short)


async def play(day: Day) -> None:
    """All paths: those that do not disturb each other side by side, then the cut, then the full cache."""
    paths = (
        day.old_booking,
        day.in_list,
        day.over_http,
        day.transcoded,
        day.fallback,
        day.both_fail,
        day.silent,
        day.twice,
        day.malformed,
        day.cancelled,
    )
    async with asyncio.TaskGroup() as group:
        for path in paths:
            group.create_task(_walked(day, path))
            await asyncio.sleep(0.3)
    async with asyncio.TaskGroup() as group:
        for path in (day.resident_killed, day.worker_killed, day.slate):
            group.create_task(_walked(day, path))
    for path in (day.receiver_killed, day.full_cache, day.reported, day.events_told):
        await _walked(day, path)
    for row in day.rows:
        if row.ok is None:
            day.settle(row, "not played to its end: the demo's own error has a row")


async def _walked(day: Day, path: Callable[[], Coroutine[object, object, None]]) -> None:
    """Walk one path; an error in it is a row of its own, and harms no other path."""
    with Caught() as failed:
        await path()
    if failed.error is not None:
        row = day.row("-", f"{path.__name__} of the demo itself", "no error", "")
        row.result = "error"
        day.settle(row, f"{type(failed.error).__name__}: {failed.error}")
