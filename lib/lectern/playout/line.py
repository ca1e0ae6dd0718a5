"""A push's line to its receiver: first an attempt to connect, then the one session over the connection."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lectern.playout import link
from lectern.playout.lines import Isolated
from lectern.playout.rtmp.publish import Step
from lectern.playout.rtmp.url import target
from lectern.playout.session import Broken, Session
from lectern.playout.station import Now, Station
from lectern.playout.timetable import Lesson

_Wanted = tuple[Lesson, int, Callable[[], dict[str, Any]]]


class Line:
    """Calls *went* with a session that is new or has advanced, and *broke* with the reason when it has ended."""

    def __init__(
        self, url: str, station: Station, went: Callable[[Session, Now], None], broke: Callable[[str, Now], None]
    ) -> None:
        self.session: Session | None = None
        self._url, self._target = url, target(url)
        self._station, self._went, self._broke = station, went, broke
        self._key, self._login = "", ""
        self._connecting: asyncio.Task[None] | None = None
        self._wanted: _Wanted

    @property
    def number(self) -> int:
        """The number of the session, 0 if there is none."""
        return int(self._key.partition("\n")[0]) if self.session is not None else 0

    @property
    def is_connecting(self) -> bool:
        """Whether an attempt to connect is under way; raises the unexpected error of the last attempt, if any."""
        if self._connecting is not None and self._connecting.done():
            task, self._connecting = self._connecting, None
            task.result()
        return self._connecting is not None

    def connect(self, lesson: Lesson, buffer_bytes: int, notes: Callable[[], dict[str, Any]]) -> None:
        """Begin to connect; the kernel is to queue about *buffer_bytes* for the connection.

        *notes* returns what the session's journal must keep besides the session's own state.
        """
        self._login, self._wanted = "", (lesson, buffer_bytes, notes)
        self._begin()

    def adopt(self, key: str, session: Session) -> None:
        """Go on with the session of a worker that died."""
        self._key, self.session = key, session
        self._listen(session)

    def end(self, *, politely: bool) -> None:
        """Give up the attempt to connect, or the session; *politely* says goodbye to the server first."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        session, self.session = self.session, None
        if session is not None:
            asyncio.get_running_loop().remove_reader(session.connection)
            session.close(politely=politely)
            self._station.drop(self._key)

    def _begin(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connect(*self._wanted))

    async def _connect(self, lesson: Lesson, buffer_bytes: int, notes: Callable[[], dict[str, Any]]) -> None:
        try:
            trusted = self._station.trusted if self._target.secure else None
            connection = await link.connect(self._target, buffer_bytes, trusted, lesson.networks)
        except (OSError, ValueError) as error:
            self._connecting = None
            self._broke(link.words(error), Now.read())
            return
        self._connecting = None
        self._key = f"{time.monotonic_ns()}\n{lesson.class_id}\n{self._url}"
        self.session = session = Session(self._target, connection, notes, self._login)
        self._station.keep(self._key, session)
        self._listen(session)
        with suppress(Broken):  # the next tick finds the session broken, too
            self._went(session, Now.read())

    def _listen(self, session: Session) -> None:
        asyncio.get_running_loop().add_reader(session.connection, self._readable, session)

    def _readable(self, session: Session) -> None:
        if session is not self.session:
            return
        now, before = Now.read(), session.step
        self._station.handle(self.number)
        try:
            with Isolated(Broken) as isolated:  # one server's answers must not spin the loop of all classes
                if session.receive():  # TLS has more of it, of which the loop cannot know
                    asyncio.get_running_loop().call_soon(self._readable, session)
                if session.step is not before:
                    self._went(session, now)
                elif session.step is not Step.LIVE:
                    session.flush()
            if isolated.fault:
                self._broke(isolated.fault, now)
        except Broken as error:
            if error.login is None:
                self._broke(str(error), now)
            else:  # the next connection carries it; all of them are one try
                self.end(politely=True)
                self._login = error.login
                self._begin()
        finally:
            self._station.handle(0)
