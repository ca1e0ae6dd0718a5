"""One class of the timetable: a push to each of its URLs, and the events of the class."""

from typing import Any

from lectern.playout.as_run import AiredClass, covered
from lectern.playout.context import Now, WorkerContext
from lectern.playout.kernel import Isolated
from lectern.playout.publisher import LEAD_S, ClassPublisher
from lectern.playout.rtmp.url import target
from lectern.playout.sentences import sentence
from lectern.playout.timetable import ScheduledClass

CANCELLED = sentence("it was cancelled")
"""The reason for the end of a class that is not in the timetable any more."""

_RANK = ("on_air", "trying", "connecting", "no_lease", "waiting", "ended")

_REST_S = 1.0


class ClassPlayer:
    """Airs the class of an entry, and writes down in it what was sent."""

    def __init__(self, entry: AiredClass, context: WorkerContext) -> None:
        self.entry = entry
        self._context = context
        self._rests_until = 0.0
        self._pushes: dict[str, ClassPublisher] = {}
        self._is_made = False  # a class far ahead has no pushes yet: there may be thousands
        for row in entry.as_run:
            row["open"] = False
        self._earlier: list[dict[str, Any]] = list(entry.as_run)

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
    def row_count(self) -> int:
        """Number of rows that the as-run has now."""
        return len(self._earlier) + sum(len(push.as_run.rows) for push in self._pushes.values())

    @property
    def state(self) -> str:
        """The best state of its pushes, or "ended" if the class is over."""
        if self.entry.ended is not None:
            return "ended"
        return min((push.state for push in self._pushes.values()), key=_RANK.index, default="waiting")

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
        if over is not None and all(publisher.state == "ended" for publisher in self._pushes.values()):
            self.end(over, now)

    def rest(self, now: Now) -> None:
        """Skip the ticks of the next second."""
        self._rests_until = now.mono + _REST_S

    def change(self, lesson: ScheduledClass, now: Now) -> None:
        """Take over the changed class; the sessions that it leaves valid go on."""
        old, self.entry.lesson = self.entry.lesson, lesson
        self._rests_until, self._is_made = 0.0, False
        self.entry.ended = None
        keep = set(lesson.push_urls) if old.start == lesson.start else set()
        for url in [
            known_url for known_url, push in self._pushes.items() if known_url not in keep or push.state == "ended"
        ]:
            push = self._pushes.pop(url)
            push.end()
            self._earlier += push.as_run.rows
        for push in self._pushes.values():
            push.change(lesson, now)

    def end(self, why: str, now: Now) -> None:
        """End the class: stop its pushes, and report what was sent."""
        for push in self._pushes.values():
            if push.state != "ended":
                push.end()
        self.entry.ended = why
        self.write_down()
        summary = {name: self.sums(now)[name] for name in ("sent_s", "gap_s", "slate_s", "sessions")}
        was = self.entry.lesson
        lesson = {"start": was.start, "end": was.end, "file": was.file, "push_urls": list(was.push_urls)}
        self._tell("ended", at=now.wall, why=why, as_run=self.entry.as_run, **lesson, **summary)

    def reopen(self, push: ClassPublisher) -> None:
        """Remove the rows that *push* has resumed from those of earlier sessions, because its session goes on."""
        for row in push.as_run.rows:
            begin = (row["url"], row["from"])
            self._earlier = [earlier for earlier in self._earlier if (earlier["url"], earlier["from"]) != begin]

    def write_down(self) -> None:
        """Update the entry with what was sent so far."""
        rows = [*self._earlier, *(row for push in self._pushes.values() for row in push.as_run.rows)]
        self.entry.as_run = sorted(rows, key=lambda row: float(row["from"]))
        firsts = (push.as_run.first_byte_at for push in self._pushes.values())
        began = [first_at for first_at in firsts if first_at is not None]
        self.entry.first_byte_at = min(
            [*began, *([self.entry.first_byte_at] if self.entry.first_byte_at else [])], default=None
        )

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
        best = min(pushes, key=lambda push: _RANK.index(push.state), default=None)
        is_sending = best is not None and self.state == "on_air"
        return {
            "class_id": self.class_id,
            "state": self.state,
            "start": lesson.start,
            "end": lesson.end,
            "file": lesson.file,
            "slate": any(push.feed.lost is not None for push in pushes if push.state != "ended"),
            "wants_file": any(push.feed.wants_file for push in pushes if push.state != "ended"),
            "position_s": round(best.feed.muxer.last_ms / 1000, 3) if best is not None and is_sending else None,
            "behind_s": round(best.behind_s, 3) if best is not None and is_sending else 0.0,
            "first_byte_at": self.entry.first_byte_at,
            "why": self.entry.ended or next((push.why for push in pushes if push.why), None),
            "bytes": sum(push.as_run.bytes for push in pushes),
            **self.sums(now),
            "pushes": [
                {"url": target(push.url).shown, "state": push.state, "why": push.why, "failures": push.backoff.failures}
                for push in pushes
            ]
            or [
                {"url": target(url).shown, "state": self.state, "why": None, "failures": 0} for url in lesson.push_urls
            ],
            "as_run": self.entry.as_run,
        }

    def _make(self) -> None:
        """Make the pushes that are missing, once the time of the class has come."""
        lesson = self.entry.lesson
        if self._is_made or self.entry.ended is not None:
            return
        self._is_made = True
        for number, url in enumerate(lesson.push_urls):
            if url not in self._pushes:
                push = ClassPublisher(lesson, number, self._context, self._tell)
                push.as_run.sessions = max((row["session"] for row in self._earlier if row["url"] == number), default=0)
                self._pushes[url] = push
            self._pushes[url].number = number

    def _tell(self, event: str, **more: Any) -> None:  # noqa: ANN401 (whatever the event has)
        self._context.tell({"event": event, "class_id": self.class_id, **more})
