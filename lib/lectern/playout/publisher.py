"""One class to one URL: connects before its start, publishes at it, sends by the clock, reconnects after a cut."""

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lectern.playout import net
from lectern.playout.as_run import AiredClass, AsRunRows
from lectern.playout.kernel import Now
from lectern.playout.muxer import BATCH_BYTES, NAMES
from lectern.playout.rtmp import target
from lectern.playout.rtmp.publish import Step
from lectern.playout.sentences import Isolated, sentence
from lectern.playout.session import Broken, Journal, Session
from lectern.playout.source import BEHIND_MS, FROM_THE_START_MS, Source


@dataclass
class WorkerContext:
    """What a worker gives to its classes: threads for files, the lease, and what to call for events and connections."""

    pool: Executor
    """Threads for recordings."""
    other_pool: Executor
    """Threads for what waits for no disk that hangs on recordings: slates, timetables and names of servers."""
    tell: Callable[[dict[str, Any]], None]
    keep: Callable[[str, Session], None]
    drop: Callable[[str], None]
    held: Callable[[], bool]
    """Whether the lease allows sending at this instant."""
    handle: Callable[[int], None] = lambda _session: None
    """Called with the number of the session that is handled next."""
    ca_file: str | None = None
    is_held: bool = False
    """Whether it did when this tick began."""
    sent_bytes: int = 0
    """Bytes of media that were sent since the worker began."""
    reconnects: int = 0
    chance: random.Random = field(default_factory=random.Random)

    @cached_property
    def trusted(self) -> ssl.SSLContext:
        """Which certificates are trusted: those of the CA file if there is one, else those that the machine trusts.

        Raises OSError, in words, if the file cannot be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            why = sentence("it holds none") if isinstance(error, ssl.SSLError) else error.strerror
            raise OSError(
                sentence("{ca_file}: the certificates to trust cannot be read: {why}", ca_file=self.ca_file, why=why)
            ) from error


FIRST_S, LAST_S = 0.1, 5.0


class Backoff:
    """The first retry after a good session is immediate; each failure doubles the pause, with jitter, to LAST_S."""

    def __init__(self, chance: random.Random) -> None:
        self.failures = 0
        self._chance = chance
        self._retry_at = 0.0

    def is_due(self, now: float) -> bool:
        """Whether the pause is over at *now*."""
        return now >= self._retry_at

    def failed(self, now: float) -> float:
        """Record a failed try, or the end of a session; returns the pause in seconds."""
        pause_s = min(FIRST_S * 2 ** min(self.failures - 1, 30), LAST_S) if self.failures else 0.0
        pause_s *= 1 + self._chance.random() / 2
        self.failures += 1
        self._retry_at = now + pause_s
        return pause_s

    def reset(self) -> None:
        """Forget the failures: the next retry is immediate."""
        self.failures, self._retry_at = 0, 0.0


LEAD_S = 3.0
"""Seconds before the start; a class connects at a random moment in the first two thirds of them."""
BATCHES = 16
"""Greatest number of batches of a class in one tick."""
SPACING_S = 0.03
"""Seconds between two sends of a class: of its ticks of 20 ms, every other is skipped; it saves a third of the CPU."""
_WATCH_S = 1.0


class ClassPublisher:
    """Sends one class to one URL. `tick` does what is due and never waits."""

    def __init__(self, entry: AiredClass, number: int, context: WorkerContext) -> None:
        self.entry = entry
        self.url = entry.lesson.push_urls[number]
        self.target = target(self.url)
        self.state = "waiting"
        self.why: str | None = None
        self.backoff = Backoff(context.chance)
        self.as_run = AsRunRows(entry.as_run, number)
        self.behind_s = 0.0
        self.number, self._context = number, context
        self.feed = Source(entry.lesson, context.pool, context.other_pool, self._feed_tells)
        self._session: Session | None = None
        self._session_number = 0  # 0 if there is none
        self._key = ""
        self._connecting: asyncio.Task[None] | None = None
        self._opened = False
        self._zero: float | None = None
        self._base_ms = 0  # the position in the class at which the session's own time begins
        self._watched_at = self._skipped_at = 0.0
        self.rests_until = 0.0
        """By time.monotonic: until then nothing is due, while the lease is held."""
        self._lead_s = LEAD_S * (1 - context.chance.random() * 2 / 3)

    @property
    def is_begun(self) -> bool:
        """Whether a session publishes the class, or asks to."""
        return self._zero is not None

    @property
    def shown_state(self) -> str:
        """Its state as it is told: while it has nothing to send it is not on air, though its session goes on."""
        return "trying" if self.state == "on_air" and self.feed.has_nothing else self.state

    def position_ms(self, now: Now) -> float:
        """Position of the class by the clock: the wall clock until a session publishes, then time.monotonic."""
        if self._zero is not None:
            return (now.mono - self._zero) * 1000
        return (now.wall - self.entry.lesson.start) * 1000

    def tick(self, now: Now) -> str | None:
        """Do what is due; returns the reason once the push is over, else None."""
        if now.mono < self.rests_until and self._context.is_held:
            return None
        position_ms = self.position_ms(now)
        if position_ms >= (self.entry.lesson.end - self.entry.lesson.start) * 1000:
            return sentence("its end has come")
        if position_ms < -self._lead_s * 1000:
            return None
        if not self._context.is_held:
            self._fence(now)
            return None
        self.state = "trying" if self.state == "no_lease" else self.state
        if not self._opened:
            self._opened = True
            self.feed.open(position_ms)
        self._context.handle(self._session_number)
        self.feed.look(now.mono, position_ms)
        if self.feed.over and (self._session is None or self._session.is_clear):
            return sentence("its recording is over")
        try:
            self._step(now, position_ms)
        except Broken as error:
            self.broke_off(str(error), now)
        return None

    def broke_off(self, why: str, now: Now) -> None:
        """Record that the session ended, or could not be made; another is tried after the backoff."""
        was_on_air = self.state == "on_air"
        pause_s = self.backoff.failed(now.mono)
        self._context.reconnects += 1
        self.why, self.state = why, "trying"
        self._end_session(politely=False)
        self.say(
            "broke_off", now, session=self.as_run.sessions, why=why, was_on_air=was_on_air, retry_in_s=round(pause_s, 3)
        )

    def change(self, now: Now) -> None:
        """Take over the class, which has changed."""
        self.feed.replace(self.entry.lesson, self.position_ms(now))

    def end(self) -> None:
        """Stop the push for good."""
        self._end_session(politely=True)
        self.feed.close()
        self.state = "ended"

    def say(self, event: str, now: Now, **more: Any) -> None:  # noqa: ANN401 (whatever the event has)
        """Report an event of this push."""
        where = {"class_id": self.entry.lesson.class_id, "at": now.wall, "url": self.number}
        self._context.tell({"event": event, **where, **more})

    def adopt(self, key: str, connection: socket.socket, journal: Journal, now: Now) -> float:
        """Go on with the session of a dead worker; raises Broken if that is impossible.

        Returns when that worker has sent last, by time.monotonic.
        """
        session, mark, saved = Session.adopt(self.target, connection, journal, self._notes, self._context.held)
        zero, base_ms, as_run = saved["zero"], saved["base_ms"], AsRunRows(self.entry.as_run, self.number)
        sent_at = now.wall - (now.mono - mark.sent_at)
        as_run.resume(saved, NAMES[mark.source], mark.last_ms / 1000, session.offset, sent_at)
        session.flush()
        self.feed.resume(mark, saved["feed"], (now.mono - zero) * 1000)
        # Whatever raised an error until here, this push is as before, and makes a session of its own.
        self._zero, self._base_ms, self.as_run = zero, base_ms, as_run
        as_run.go_on()
        self._opened, self.state = True, "on_air"
        self._attach(key, session)
        return mark.sent_at

    # -- its session ---------------------------------------------------------------------------------------------------

    def _connect(self, login: str = "") -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected(login))

    async def _connected(self, login: str) -> None:
        """Connect, with the *login* for which the server asked, if any, and begin a session."""
        lesson = self.entry.lesson
        with Isolated() as isolated:
            buffer_bytes = self.feed.bytes_a_second(lesson.duration_s or lesson.end - lesson.start)
            trusted = self._context.trusted if self.target.secure else None
            connection = await net.connect(self.target, buffer_bytes, trusted, lesson.networks)
            session = Session(replace(self.target, query=login), connection, self._notes, self._context.held)
            self._attach(f"{time.monotonic_ns()}\n{lesson.class_id}\n{self.url}", session)
            self._context.keep(self._key, session)
            if not login:  # with it, the session goes on for which the server asked for it
                self.as_run.begin()
            session.flush()
        self._connecting = None
        if isolated.error is not None:
            is_known = isinstance(isolated.error, (OSError, ValueError, Broken))
            self.broke_off(net.words(isolated.error) if is_known else isolated.fault, Now.read())

    def _attach(self, key: str, session: Session) -> None:
        """Go on with a session: a new one, or that of a worker that died."""
        self._key, self._session, self._session_number = key, session, int(key.partition("\n")[0])
        asyncio.get_running_loop().add_reader(session.connection, self._readable, session)

    def _readable(self, session: Session) -> None:
        if session is not self._session:
            return
        now, before = Now.read(), session.step
        self._context.handle(self._session_number)
        try:
            with Isolated(Broken) as isolated:  # one server's answers must not spin the loop of all classes
                if session.receive():  # TLS has more of it, of which the loop cannot know
                    asyncio.get_running_loop().call_soon(self._readable, session)
                if session.step is not before:
                    self._went(session, now)
                elif session.step is not Step.LIVE:
                    session.flush()
            if isolated.fault:
                self.broke_off(isolated.fault, now)
        except Broken as error:
            if error.login is None:
                self.broke_off(str(error), now)
            else:  # the next connection carries it; all of them are one try
                self._end_session(politely=True)
                self._connect(error.login)
        finally:
            self._context.handle(0)

    # -- what is due ---------------------------------------------------------------------------------------------------

    def _step(self, now: Now, position_ms: float) -> None:
        session = self._session
        if session is None:
            may_connect = self.feed.has_media or position_ms < 0
            if self._connecting is None and self.backoff.is_due(now.mono) and may_connect:
                self.state = "connecting" if self.state == "waiting" else self.state
                self._connect()
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
        if now.wall < self.entry.lesson.start:
            return
        if self.feed.muxer.demuxer is not None:
            self._zero = now.mono - (now.wall - self.entry.lesson.start)
            session.publish()
        elif self.feed.has_nothing:
            self._end_session(politely=True)  # before the server ends it, and is blamed
            self.state = "trying"

    def _went(self, session: Session, now: Now) -> None:
        """Do what follows when a session has advanced. Raises Broken."""
        if session.step is Step.LIVE:
            position_ms = self.position_ms(now)
            self._base_ms = int(position_ms) if position_ms >= FROM_THE_START_MS else 0
            self.feed.begin(position_ms)
            session.went_live()
            self._pump(session, now, position_ms)
            return
        session.flush()
        if session.step is Step.READY:
            self.say("connected", now, session=self.as_run.sessions)
            self._publish(session, now)

    def _pump(self, session: Session, now: Now, position_ms: float) -> None:
        """Send what is due, a batch after another as long as the kernel takes them; skip what is too late."""
        session.flush()
        late_ms = self.feed.muxer.behind_ms(position_ms)
        self.behind_s = late_ms / 1000
        if late_ms > BEHIND_MS and now.mono - self._skipped_at > _WATCH_S:  # go on at the clock's position
            self._skipped_at = now.mono
            self.as_run.close()
            self.say("behind", now, behind_s=round(self.behind_s, 3))
            self.feed.skip(position_ms)
        for _ in range(BATCHES):
            if not session.is_clear:
                return
            source = self.feed.muxer.source
            size = self._send(session, position_ms)
            if size:
                self._sent(session, now, size, source)
            if size < BATCH_BYTES:
                self.rests_until = now.mono + SPACING_S if size and session.is_clear else 0.0
                return

    def _send(self, session: Session, position_ms: float) -> int:
        """Send one batch, with what is owed to the server; returns the size of its media in bytes. Raises Broken."""
        muxer, media = self.feed.muxer, list[bytes]()
        size, has_header = 0, False
        while size < BATCH_BYTES or muxer.queue:
            item = muxer.peek(position_ms)
            if item is None:
                break
            media.append(session.publisher.media(item.kind, max(0, item.at_ms - self._base_ms), item.body))
            size += len(media[-1])
            has_header = muxer.advance(item) or has_header
        if has_header:
            session.note()
        if media or session.publisher.owed:
            session.batch(media, muxer.place())
        return size

    def _sent(self, session: Session, now: Now, size: int, source: int) -> None:
        self._context.sent_bytes += size
        row = {"url": self.number, "session": self.as_run.sessions, "source": NAMES[source]}
        row |= {"from": now.wall, "to": now.wall, "position_s": round(self.position_ms(now) / 1000, 3), "bytes": size}
        last_s = self.feed.muxer.last_ms / 1000
        if self.as_run.note(row, last_s, session.offset):
            session.note()
        if self.state != "on_air" and self.as_run.is_good(now.mono):
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
        """End the session, or the attempt to connect; *politely* says goodbye to the server first."""
        self.as_run.close()
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        session, self._session, self._session_number = self._session, None, 0
        if session is not None:
            asyncio.get_running_loop().remove_reader(session.connection)
            session.close(politely=politely)
            self._context.drop(self._key)
        self._zero = None

    def _feed_tells(self, event: str, why: str) -> None:
        now = Now.read()
        if event == "slate":
            self.why = why
            self.say("slate", now, why=why, slate=self.feed.slate, wants_file=self.feed.wants_file)
        else:
            self.say("back", now, why=why, position_s=round(self.position_ms(now) / 1000, 3))
        if self._session is not None:
            self._session.note()

    def _notes(self) -> dict[str, Any]:
        return {"zero": self._zero, "base_ms": self._base_ms, "feed": self.feed.muxer.save(), **self.as_run.save()}
