"""One class to one URL: connects before its start, publishes at it, sends by the clock, reconnects after a cut."""

import socket
from collections.abc import Callable
from typing import Any

from lectern.playout.as_run import GOOD_S, AsRun
from lectern.playout.backoff import Backoff
from lectern.playout.batches import BATCH_BYTES, Batches
from lectern.playout.feed import BEHIND_MS, FROM_THE_START_MS, Feed
from lectern.playout.journal import Journal
from lectern.playout.line import Line
from lectern.playout.rtmp.publish import Step
from lectern.playout.rtmp.url import target
from lectern.playout.session import Broken, Session
from lectern.playout.station import Now, Station
from lectern.playout.timetable import Lesson
from lectern.playout.track import NAMES

LEAD_S = 3.0
"""Seconds before the start; a class connects at a random moment in the first two thirds of them."""
BATCHES = 16
"""Greatest number of batches of a class in one tick."""
SPACING_S = 0.03
"""Seconds between two sends of a class: of its ticks of 20 ms, every other is skipped; it saves a third of the CPU."""
_WATCH_S = 1.0


class Push:
    """Sends one class to one URL. `tick` does what is due and never waits."""

    def __init__(self, lesson: Lesson, number: int, station: Station, tell: Callable[..., None]) -> None:
        self.lesson = lesson
        self.url = lesson.push_urls[number]
        self.target = target(self.url)
        self.state = "waiting"
        self.why: str | None = None
        self.backoff = Backoff(station.chance)
        self.as_run = AsRun()
        self.behind_s = 0.0
        self.number, self._station, self._tell = number, station, tell
        self.feed = Feed(lesson.files, station.pool, self._feed_tells)
        self._line = Line(self.url, station, self._went, self.broke_off)
        self._opened = False
        self._zero: float | None = None
        self._batches = Batches(self.feed.track)
        self._watched_at = self._skipped_at = self._rests_until = 0.0
        self._lead_s = LEAD_S * (1 - station.chance.random() * 2 / 3)

    @property
    def is_good(self) -> bool:
        """Whether the receiver takes media."""
        return self.state == "on_air"

    @property
    def is_begun(self) -> bool:
        """Whether a session publishes the class, or asks to."""
        return self._zero is not None

    def position_ms(self, now: Now) -> float:
        """Position of the class by the clock: the wall clock until a session publishes, then time.monotonic."""
        if self._zero is not None:
            return (now.mono - self._zero) * 1000
        return (now.wall - self.lesson.start) * 1000

    def tick(self, now: Now) -> str | None:
        """Do what is due; returns the reason once the push is over, else None."""
        if now.mono < self._rests_until and self._station.is_held:
            return None
        position_ms = self.position_ms(now)
        if position_ms >= (self.lesson.end - self.lesson.start) * 1000:
            return "its end has come"
        if position_ms < -self._lead_s * 1000:
            return None
        if not self._station.is_held:
            self._fence(now)
            return None
        if not self._opened:
            self._opened = True
            self.feed.open(max(0.0, position_ms))
        self._station.handle(self._line.number)
        self.feed.look(now.mono, position_ms)
        if self.feed.over and (self._line.session is None or self._line.session.is_clear):
            return "its recording is over"
        try:
            self._step(now, position_ms)
        except Broken as error:
            self.broke_off(str(error), now)
        return None

    def broke_off(self, why: str, now: Now) -> None:
        """Record that the session ended, or could not be made; another is tried after the backoff."""
        was_on_air = self.is_good
        pause_s = self.backoff.failed(now.mono)
        self._station.totals.reconnects += 1
        self.why, self.state = why, "trying"
        self._end_session(politely=False)
        self.say(
            "broke_off", now, session=self.as_run.sessions, why=why, was_on_air=was_on_air, retry_in_s=round(pause_s, 3)
        )

    def change(self, lesson: Lesson, now: Now) -> None:
        """Take over another end or other files."""
        self.lesson = lesson
        if self.feed.files != lesson.files:
            self.feed.replace(lesson.files, self.position_ms(now))

    def end(self, *, politely: bool = True) -> None:
        """Stop the push for good."""
        self._end_session(politely=politely)
        self.feed.close()
        self.state = "ended"

    def say(self, event: str, now: Now, **more: Any) -> None:  # noqa: ANN401 (whatever the event has)
        """Report an event of this push."""
        self._tell(event, at=now.wall, url=self.number, **more)

    def adopt(self, key: str, connection: socket.socket, journal: Journal, now: Now) -> None:
        """Go on with the session of a dead worker; raises Broken if that is impossible."""
        session, mark, saved = Session.adopt(self.target, connection, journal, self._notes)
        zero, base_ms, as_run = saved["zero"], saved["base_ms"], AsRun()
        as_run.resume(saved)
        as_run.reach(NAMES[mark.source], mark.last_ms / 1000, session.offset, now.wall - (now.mono - mark.sent_at))
        session.flush()
        self.feed.resume(mark, saved["feed"], (now.mono - zero) * 1000)
        # Whatever raised an error until here, this push is as before, and makes a session of its own.
        self._zero, self._batches.base_ms, self.as_run = zero, base_ms, as_run
        self._opened, self.state = True, "on_air"
        self._line.adopt(key, session)

    # -- what is due ---------------------------------------------------------------------------------------------------

    def _step(self, now: Now, position_ms: float) -> None:
        session = self._line.session
        if session is None:
            may_connect = self.feed.has_media or position_ms < 0
            if not self._line.is_connecting and self.backoff.is_due(now.mono) and may_connect:
                self.state = "connecting" if self.state == "waiting" else self.state
                length_s = self.lesson.duration_s or self.lesson.end - self.lesson.start
                self._line.connect(self.lesson, self.feed.bytes_a_second(length_s), self._notes)
            return
        if now.mono - self._watched_at > _WATCH_S:
            self._watched_at = now.mono
            session.watch(now.mono)
        if session.step is Step.READY:
            self._publish(session, now)
        elif session.step is Step.LIVE:
            self._pump(session, now, position_ms)
        else:
            session.flush()

    def _publish(self, session: Session, now: Now) -> None:
        """Publish at the class's start, or at once if that is over: after a cut, no tick makes the gap longer."""
        if now.wall < self.lesson.start:
            return
        if self.feed.track.reel is not None:
            self._zero = now.mono - (now.wall - self.lesson.start)
            session.publish()
        elif self.feed.has_nothing:
            self._end_session(politely=True)  # before the server ends it, and is blamed
            self.state = "trying"

    def _went(self, session: Session, now: Now) -> None:
        """Do what follows when a session is new or has advanced. Raises Broken."""
        if session.step is Step.LIVE:
            position_ms = self.position_ms(now)
            self._batches.base_ms = int(position_ms) if position_ms >= FROM_THE_START_MS else 0
            self.feed.begin(position_ms)
            session.went_live()
            self._pump(session, now, position_ms)
            return
        if session.step is Step.SHAKING:
            self._zero = None
            if not session.login:  # with it, the session goes on for which the server asked for it
                self.as_run.begin()
        session.flush()
        if session.step is Step.READY:
            self.say("connected", now, session=self.as_run.sessions)
            self._publish(session, now)

    def _pump(self, session: Session, now: Now, position_ms: float) -> None:
        """Send what is due, a batch after another as long as the kernel takes them."""
        session.flush()
        self._look_behind(now, position_ms)
        for _ in range(BATCHES):
            if not session.is_clear:
                return
            source = self.feed.track.source
            size = self._batches.send(session, position_ms)
            if size:
                self._sent(session, now, size, source)
            if size < BATCH_BYTES:
                self._rests_until = now.mono + SPACING_S if size and session.is_clear else 0.0
                return

    def _look_behind(self, now: Now, position_ms: float) -> None:
        """Skip what is too late, and go on at the clock's position."""
        late_ms = self.feed.track.behind_ms(position_ms)
        self.behind_s = late_ms / 1000
        if late_ms > BEHIND_MS and now.mono - self._skipped_at > _WATCH_S:
            self._skipped_at = now.mono
            self.as_run.close()
            self.say("behind", now, behind_s=round(self.behind_s, 3))
            self.feed.skip(position_ms)

    def _sent(self, session: Session, now: Now, size: int, source: int) -> None:
        self._station.totals.bytes += size
        name, position_s = NAMES[source], round(self.position_ms(now) / 1000, 3)
        row = {"url": self.number, "session": self.as_run.sessions, "source": name, "from": now.wall, "to": now.wall}
        row |= {"position_s": position_s, "bytes": size}
        last_s = self.feed.track.last_ms / 1000
        if self.as_run.note(row, last_s, session.offset):
            session.note()
        if not self.is_good and self.as_run.media_s(now.mono) >= GOOD_S:
            self.state = "on_air"
            self.backoff.reset()
            session.note()
            first = self.as_run.first_byte_at
            self.say("on_air", now, session=self.as_run.sessions, first_byte_at=first, position_s=round(last_s, 3))

    # -- its end -------------------------------------------------------------------------------------------------------

    def _fence(self, now: Now) -> None:
        """Reset the connection when the lease has expired: not even bytes in the kernel may be sent after that."""
        if self.state not in {"waiting", "no_lease"}:
            self.say("fenced", now, session=self.as_run.sessions)
        self._end_session(politely=False)
        self.state = "no_lease"
        self.backoff.reset()

    def _end_session(self, *, politely: bool) -> None:
        self.as_run.close()
        self._line.end(politely=politely)
        self._zero = None

    def _feed_tells(self, event: str, why: str) -> None:
        now = Now.read()
        if event == "slate":
            self.why = why
            slate = str(self.feed.files.slate) if self.feed.files.slate else None
            self.say("slate", now, why=why, slate=slate, wants_file=self.feed.wants_file)
        else:
            self.say("back", now, why=why, position_s=round(self.position_ms(now) / 1000, 3))
        if self._line.session is not None:
            self._line.session.note()

    def _notes(self) -> dict[str, Any]:
        """What the next worker needs besides the session's own."""
        return {
            "zero": self._zero,
            "base_ms": self._batches.base_ms,
            "feed": self.feed.track.save(),
            **self.as_run.save(),
        }
