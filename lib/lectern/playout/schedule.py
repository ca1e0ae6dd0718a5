"""The classes that a worker knows: those of the timetable, and what became of those that have begun."""

import asyncio
import heapq
import json
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from lectern.playout import timetable
from lectern.playout.as_run import AiredClass, covered, entry
from lectern.playout.control_socket import version_of
from lectern.playout.kernel import SLOW_S, Now, StateFile, say
from lectern.playout.publisher import LEAD_S, ClassPublisher, WorkerContext
from lectern.playout.rtmp import target
from lectern.playout.sentences import Isolated, Sentence, sentence
from lectern.playout.timetable import MAX_CLASSES, BadRequest, ScheduledClass, TimetableDifference

CANCELLED = sentence("it was cancelled")
"""The reason for the end of a class that is not in the timetable any more."""

_RANK = ("on_air", "trying", "connecting", "no_lease", "waiting", "ended")

_REST_S = 1.0


class ClassPlayer:
    """Airs the class of an entry, and writes down in it what was sent."""

    def __init__(self, entry: AiredClass, context: WorkerContext) -> None:
        self.entry = entry
        self._context = context
        self._rests_until = self._due_at = 0.0
        self._pushes: dict[str, ClassPublisher] = {}
        self._is_made = False  # a class far ahead has no pushes yet: there may be thousands
        for row in entry.as_run:
            row["open"] = False

    @property
    def class_id(self) -> str:
        """The id of the class."""
        return self.entry.lesson.class_id

    @property
    def pushes(self) -> dict[str, ClassPublisher]:
        """The pushes, by URL."""
        self._make()
        return self._pushes

    @property
    def state(self) -> str:
        """The best state of its pushes, or "ended" if the class is over."""
        if self.entry.ended is not None:
            return "ended"
        return min((push.shown_state for push in self._pushes.values()), key=_RANK.index, default="waiting")

    def has_sent(self, now: Now) -> bool:
        """Whether all that is due is sent, so that a tick at *now* would do nothing."""
        return now.mono < self._due_at and self._context.is_held

    def is_early(self, now: Now) -> bool:
        """Whether its time has not come; a class on air goes on by time.monotonic, though the wall clock be set."""
        begins_in_s = self.entry.lesson.start - LEAD_S - now.wall
        return begins_in_s > 0 and not any(push.is_begun for push in self._pushes.values())

    def tick(self, now: Now) -> None:
        """Do what is due at *now*; never waits."""
        if self.entry.ended is not None or now.mono < self._rests_until:
            return
        self._make()
        over: str | None = None
        for push in self._pushes.values():
            if push.state == "ended":
                continue
            why = None
            with Isolated() as isolated:
                why = push.tick(now)
            if isolated.fault:
                push.broke_off(isolated.fault, now)
            elif why is not None:
                over = over or why
                push.end()
        self._due_at = min((push.rests_until for push in self._pushes.values() if push.state != "ended"), default=0.0)
        if over is not None and all(publisher.state == "ended" for publisher in self._pushes.values()):
            self.end(over, now)

    def rest(self, now: Now) -> None:
        """Skip the ticks of the next second."""
        self._rests_until = now.mono + _REST_S

    def change(self, lesson: ScheduledClass, now: Now) -> None:
        """Take over the changed class; the sessions that it leaves valid go on."""
        old, self.entry.lesson = self.entry.lesson, lesson
        self._rests_until = self._due_at = 0.0
        self._is_made = False
        self.entry.ended = None
        keep = set(lesson.push_urls) if old.start == lesson.start else set()
        for url, push in list(self._pushes.items()):
            if url not in keep or push.state == "ended":
                self._pushes.pop(url).end()
        for push in self._pushes.values():
            push.change(now)

    def withdraw(self) -> None:
        """End the pushes until its time has come: nobody else ends their connections if it is cancelled before."""
        for push in self._pushes.values():
            push.end()
        self._pushes, self._is_made = {}, False

    def end(self, why: str, now: Now) -> None:
        """End the class: stop its pushes, and report what was sent."""
        for push in self._pushes.values():
            if push.state != "ended":
                push.end()
        self.entry.ended = why
        self.write_down()
        was = self.entry.lesson
        lesson = {"start": was.start, "end": was.end, "file": was.file, "push_urls": list(was.push_urls)}
        event = {"event": "ended", "class_id": self.class_id, "at": now.wall, "why": why}
        self._context.tell({**event, "as_run": list(self.entry.as_run), **lesson, **self.sums(now)})

    def write_down(self) -> None:
        """Update the entry with what was sent so far."""
        self.entry.as_run.sort(key=lambda row: float(row["from"]))
        firsts = [self.entry.first_byte_at, *(push.as_run.first_byte_at for push in self._pushes.values())]
        self.entry.first_byte_at = min(filter(None, firsts), default=None)

    def sums(self, now: Now) -> dict[str, Any]:
        """Seconds of the class in which the recording, the slate or nothing was sent, and its number of sessions."""
        lesson = self.entry.lesson
        until = min(now.wall, lesson.end)
        all_s = covered(self.entry.as_run, lesson.start, until)
        recording = [row for row in self.entry.as_run if row["source"] == "recording"]
        recording_s = covered(recording, lesson.start, until)
        return {
            "sent_s": round(recording_s, 3),
            "slate_s": round(all_s - recording_s, 3),
            "gap_s": round(max(0.0, until - lesson.start - all_s), 3),
            "sessions": len({(row["url"], row["session"]) for row in self.entry.as_run}),
        }

    def slate_s(self, now: Now) -> float:
        """Seconds of the class in which the slate was sent."""
        if not any(row["source"] == "slate" for row in self.entry.as_run):
            return 0.0
        return float(self.sums(now)["slate_s"])

    def status(self, now: Now) -> dict[str, Any]:
        """The status of the class; docs/playout.md names its fields."""
        self.write_down()
        lesson, pushes = self.entry.lesson, list(self._pushes.values())
        sending = next((push for push in pushes if push.shown_state == "on_air"), None)
        lost = [push for push in pushes if push.state != "ended" and push.feed.lost is not None]
        why = self.entry.ended or next((push.why for push in pushes if push.why), None)
        return {
            "class_id": self.class_id,
            "state": self.state,
            "start": lesson.start,
            "end": lesson.end,
            "file": lesson.file,
            "push_urls_hash": version_of(lesson.push_urls),
            "slate": any(push.feed.slate is not None for push in lost),
            "lost": bool(lost),
            "wants_file": any(push.feed.wants_file for push in pushes if push.state != "ended"),
            "position_s": round(sending.feed.muxer.last_ms / 1000, 3) if sending is not None else None,
            "behind_s": round(sending.behind_s, 3) if sending is not None else 0.0,
            "first_byte_at": self.entry.first_byte_at,
            "why": why,
            "sentence": why.pair() if isinstance(why, Sentence) else None,
            "bytes": sum(push.as_run.bytes for push in pushes),
            **self.sums(now),
            "pushes": [self._push_status(url) for url in lesson.push_urls],
            "as_run": self.entry.as_run,
        }

    def _push_status(self, url: str) -> dict[str, Any]:
        push = self._pushes.get(url)
        if push is None:  # it is not made yet
            state = "waiting" if self.entry.ended is None else "ended"
            return {"url": target(url).shown, "state": state, "why": None, "failures": 0}
        return {"url": target(url).shown, "state": push.shown_state, "why": push.why, "failures": push.backoff.failures}

    def _make(self) -> None:
        lesson = self.entry.lesson
        if self._is_made or self.entry.ended is not None:
            return
        self._is_made = True
        for number, url in enumerate(lesson.push_urls):
            if url not in self._pushes:
                self._pushes[url] = ClassPublisher(self.entry, number, self._context)
            self._pushes[url].number = number


SOON_S = 5.0
"""Seconds ahead of which a worker that goes on air needs the classes at once, to go on with their sessions."""
FORGET_S = 24 * 3600.0
"""Seconds after the end of a class until its status is forgotten."""
SAVE_EVERY_S = 2.0
"""Seconds after which the rows of a class on air are written again."""
_CHECK_S, _LOOK_S = 1.0, 0.001


SLICE_S = 0.002
"""Seconds for which such work holds the sending loop at once."""


async def in_slices(work: Iterable[object]) -> None:
    """Do *work*, which gets on by a step with each item that it gives."""
    until = time.perf_counter() + SLICE_S
    for _ in work:
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S


class Schedule:
    """Takes over timetables, and ticks the classes whose time has come: the others cost a tick nothing."""

    def __init__(self, context: WorkerContext) -> None:
        self.airings: dict[str, ClassPlayer] = {}
        """All classes, by class_id; also those that are over, for 24 h."""
        self.version: str | None = None
        """The version of the timetable that is in force; None if there is none yet."""
        self.refused: dict[str, str] = {}
        """Why classes of the timetable are not aired, by class_id."""
        self.left_out = 0
        """Number of classes at the end of the timetable that are too many."""
        self.over: dict[str, ClassPlayer] = {}
        """The classes that are over, in the order in which they ended."""
        self.active: dict[str, ClassPlayer] = {}
        """The classes whose time has come, and that are not over."""
        self._context = context
        self._coming: list[tuple[float, str]] = []  # a heap: when a class is due, in epoch seconds
        self._line_of: dict[str, bytes] = {}  # the lines of the timetable, by class_id

    # -- the timetable -------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> frozenset[bytes]:
        """The lines of the timetable that is in force, or of that part of it that was taken over."""
        return frozenset(self._line_of.values())

    def begin(
        self, difference: TimetableDifference, entries: dict[str, AiredClass], on_air: Collection[str], now: Now
    ) -> None:
        """Take over at once the classes of *entries*, and those *on_air*; all others are for `take_over`.

        They have begun, though the wall clock may have been set to before their start since.
        """
        begun_by = max([now.wall + SOON_S, *(aired.lesson.start for aired in entries.values())])
        for line in difference.new:
            wanted = _read(line)
            if isinstance(wanted, ScheduledClass):
                if wanted.start > begun_by:
                    break
                if wanted.class_id in entries or wanted.class_id in on_air:
                    self._take(line, wanted, entries.get(wanted.class_id))
                    self.active[wanted.class_id] = self.airings[wanted.class_id]

    def ended(self, entry: AiredClass) -> None:
        """Take in a class that was over before this worker began."""
        class_id = entry.lesson.class_id
        if class_id not in self.airings:
            self.airings[class_id] = self.over[class_id] = ClassPlayer(entry, self._context)

    def take_over(self, difference: TimetableDifference) -> Iterator[None]:
        """Take over a timetable, a class at each step; the class that begins soonest is taken first.

        It may be left at any step: the next timetable is compared with the lines that were taken until then.
        """
        before = {line: class_id for class_id, line in self._line_of.items()}
        for line in difference.new:
            if line not in before:
                with Isolated() as isolated:  # one odd class must not keep the others off the air
                    self._take_line(line, difference.gone)
                if isolated.fault:
                    say(f"{line[:60]!r}: {isolated.fault}")
            yield
        for line in difference.gone:
            class_id = before.get(line)
            if class_id is not None and self._line_of.get(class_id) == line:
                del self._line_of[class_id]
                self.refused.pop(class_id, None)
                self._drop(class_id)
            yield
        self.version, self.left_out = difference.version or None, difference.left_out
        if len(self._coming) > 2 * len(self.airings) + 100:
            coming = set(self.airings) - self.active.keys() - self.over.keys()
            self._coming = [(self.airings[class_id].entry.lesson.start - LEAD_S, class_id) for class_id in coming]
            heapq.heapify(self._coming)

    def _take_line(self, line: bytes, gone: frozenset[bytes]) -> None:
        wanted = _read(line)
        class_id = wanted.class_id if isinstance(wanted, ScheduledClass) else wanted[0]
        before = self._line_of.get(class_id)
        if before is not None and before not in gone:
            say(f"{class_id}: is in the timetable twice; its first line counts")
        elif isinstance(wanted, ScheduledClass):
            self._take(line, wanted, None)
        else:
            self._line_of[class_id] = line
            self.refused[class_id] = wanted[1]
            if class_id not in self.active:  # what is on air goes on, and its next line may be good
                self._drop(class_id)

    def _take(self, line: bytes, wanted: ScheduledClass, entry: AiredClass | None) -> None:
        class_id = wanted.class_id
        self._line_of[class_id] = line
        self.refused.pop(class_id, None)
        airing = self.airings.get(class_id)
        if airing is None or airing.entry.ended == CANCELLED:  # and is booked anew: perhaps nobody has heard its end
            sent = (list(airing.entry.as_run), None, airing.entry.first_byte_at) if airing is not None else ()
            airing = self.airings[class_id] = ClassPlayer(entry or AiredClass(wanted, *sent), self._context)
            self.over.pop(class_id, None)
        if airing.entry.lesson != wanted:
            airing.change(wanted, Now.read())
            self.over.pop(class_id, None)
        heapq.heappush(self._coming, (wanted.start - LEAD_S, class_id))

    def _drop(self, class_id: str) -> None:
        """Take a class off the air; what was aired of it stays known, because nobody may hear its end now."""
        if class_id in self.over:
            return
        airing = self.airings.pop(class_id, None)
        if self.active.pop(class_id, None) is not None and airing is not None:
            airing.end(CANCELLED, Now.read())
            if airing.entry.as_run:
                self.airings[class_id] = self.over[class_id] = airing

    # -- ticks ---------------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Do what is due for all classes."""
        while self._coming and self._coming[0][0] <= now.wall:
            _, class_id = heapq.heappop(self._coming)
            if class_id not in self.over and (airing := self.airings.get(class_id)) is not None:
                self.active[class_id] = airing
        for class_id, airing in list(self.active.items()):
            if airing.has_sent(now):
                continue
            if airing.is_early(now):  # the wall clock was set back, or its start was moved
                airing.withdraw()
                del self.active[class_id]
                heapq.heappush(self._coming, (airing.entry.lesson.start - LEAD_S, class_id))
                continue
            with Isolated() as isolated:
                airing.tick(now)
            if isolated.fault:
                say(f"{class_id}: {isolated.fault}")
                airing.rest(now)
            if airing.entry.ended is not None:
                del self.active[class_id]
                self.over[class_id] = airing

    def forget(self, now: float) -> None:
        """Forget, at *now* (epoch seconds), the classes that are long over, and the first ones of very many."""
        while self.over:
            class_id, airing = next(iter(self.over.items()))
            if airing.entry.lesson.end + FORGET_S > now and len(self.over) <= MAX_CLASSES:
                return
            del self.over[class_id]
            self.airings.pop(class_id, None)


def _read(line: bytes) -> ScheduledClass | tuple[str, str]:
    """The class of a line; or its class_id, and why it cannot be aired."""
    fields: Any = None
    try:
        fields = json.loads(line)
        return timetable.lesson(fields)
    except (BadRequest, AttributeError, ValueError, TypeError, RecursionError) as error:
        why = str(error) if isinstance(error, BadRequest) else "a class is a JSON object"
        try:
            return timetable.class_id_of(fields), why
        except (BadRequest, AttributeError):
            return f"a line that begins with {line[:60]!r}", why


class AiredFile:
    """Writes what was aired of the classes that have begun to a file which outlives any restart.

    It writes at most once a second; a class is turned into its line only when something of it is new.
    """

    def __init__(self, path: Path, schedule: Schedule) -> None:
        self.saved = StateFile("what was aired", path, self._text, is_synced=True)
        self._schedule = schedule
        self._lines: dict[str, tuple[int, bool, str]] = {}
        """The line of each class, after the number of its as-run rows, and whether the line says that it is over."""
        self._on_air_at = time.monotonic()  # when the rows of classes on air were last written

    def restore(self, lines: list[bytes]) -> Iterator[None]:
        """Take in the classes that were over before this worker began, a class at each step."""
        for line in lines:
            aired = entry(line)
            if aired is not None:
                self._lines[aired.lesson.class_id] = len(aired.as_run), aired.ended is not None, line.decode()
                self._schedule.ended(aired)
            yield

    async def save_for_ever(self) -> None:
        """Save when a session began or a class ended, and every 2 s on air; forget classes long over."""
        while True:
            await asyncio.sleep(_CHECK_S)
            self._schedule.forget(time.time())
            await self.save()

    async def save(self, *, everything: bool = False) -> None:
        """Have what is new written; or *everything* that is sent by now, and wait until it is, for SLOW_S at most."""
        schedule, now = self._schedule, time.monotonic()
        is_due = everything or now - self._on_air_at >= SAVE_EVERY_S
        self._on_air_at = now if is_due else self._on_air_at
        gone = self._lines.keys() - schedule.airings.keys()
        for class_id in gone:
            del self._lines[class_id]
        is_new = False

        def encoded() -> Iterator[None]:
            nonlocal is_new
            for class_id, player in (*schedule.active.items(), *schedule.over.items()):
                known = len(player.entry.as_run), player.entry.ended is not None
                if known != self._lines.get(class_id, (0, False))[:2] or (is_due and player.state == "on_air"):
                    player.write_down()
                    self._lines[class_id] = (*known, player.entry.line())
                    is_new = True
                yield

        await in_slices(encoded())
        if is_new or gone or (is_due and self.saved.problem is not None):
            self.saved.write()
        until = time.monotonic() + SLOW_S
        while everything and not self.saved.is_written and time.monotonic() < until:  # noqa: ASYNC110 (a thread's)
            await asyncio.sleep(_LOOK_S)

    def _text(self) -> str:
        lines = list(self._lines.values())
        ended = [line for _, is_over, line in lines if is_over]
        on_air = [line for _, is_over, line in lines if not is_over]
        return "\n".join([json.dumps({"on_air": len(on_air)}), *on_air, *ended, ""])
