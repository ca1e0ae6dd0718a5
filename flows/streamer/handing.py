"""Hands the playout its classes and follows it; the resident process may restart meanwhile."""

import asyncio
import time
from contextlib import suppress

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows import trouble
from flows.handling import Decide, changed
from flows.host import Streamer, all_of, log
from flows.playout import NotTaken
from flows.streamer import by_ffmpeg, push_hosts
from flows.streamer.following import Following
from flows.streamer.lessons import Lesson, due, has_password, lesson, live
from flows.tell import tell
from lectern import errors, words
from lectern.backoff import backoff_s
from lectern.effects.media import slate
from lectern.effects.rows import airings, leases
from lectern.errors import LecternError, TryAgain
from lectern.facts import Airing, Cached
from lectern.places import Places
from lectern.playout.client import Client
from lectern.streamer_changes import StreamerChanges

LOOK_EVERY_S = 3.0
"""Seconds between two reads of the classes if no event says that one got ready."""

ALARM_AFTER_S, ALARM_AGAIN_S = 5.0, 600.0
"""Seconds without a playout after which an alarm is raised, and raised again."""

AGAIN_S = 60.0
"""Seconds until a class is tried again that an unexpected error kept from being handed over."""

_FIRST_S, _MOST_S = 0.05, 1.0
"""Seconds between the first tries to reach the playout, and between those long after."""


class Handing:
    """Keeps the playout of one streamer up to date, and follows it."""

    def __init__(self, host: Streamer) -> None:
        self._host = host
        self._following = Following(host)
        self._handed: dict[str, Lesson] = {}  # what the playout was told since it was connected
        self._refused: dict[str, Lesson] = {}
        self._odd: dict[str, float] = {}  # until when classes are passed over, monotonic
        self._alarmed_at = -ALARM_AGAIN_S
        self._slate: str | None = None

    async def run(self) -> None:
        """Connect, follow, and connect again when the worker has ended, until cancelled."""
        making = asyncio.create_task(self._make_slate())
        try:
            await self._keep_connected()
        finally:
            making.cancel()

    async def _make_slate(self) -> None:
        """Read the slate before a class needs it; without a slate, nothing is sent while a recording is missing."""
        settings = self._host.settings
        path = settings.slate or settings.playout_dir / "slate.flv"
        if settings.slate is None:
            try:
                await slate.make(path)
            except LecternError as error:
                log.warning("slate: there is none, name one with SLATE: %s", error.message)
                return
        self._slate = str(path.absolute())
        self._host.playout.wanted.set()

    async def _keep_connected(self) -> None:
        if self._host.settings.playout == "ffmpeg":
            await self._without()
        tries = 0
        while True:
            self._host.rounds.come("playout")
            try:
                client = await self._host.playout.connect(self._host.settings.playout_socket_path)
                tries = 0
                await self._followed(client)
            except TryAgain as error:
                self._host.playout.is_away(error.message)
            await self._say_away()
            await asyncio.sleep(backoff_s(tries, _FIRST_S, _MOST_S))
            tries += 1

    async def _without(self) -> None:
        """Do without the playout: ffmpeg children of this process air all classes."""
        self._host.playout.is_there()
        while True:
            self._host.rounds.come("playout")
            await self._hand_over()
            await self._wait()
            await self._following.look_around(time.time())

    async def _followed(self, client: Client) -> None:
        """Bring the playout up to date, and follow it to the end of the connection; raises TryAgain then."""
        ours = {
            asyncio.create_task(work, name=name)
            for name, work in (
                ("events", self._events(client)),
                ("hand over", self._keep_handing_over()),
                ("look around", self._keep_looking_around()),
            )
        }
        try:
            await self._bring_up_to_date()
            done, _ = await asyncio.wait(ours, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in ours:
                one.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await client.close()
        raise TryAgain("the worker of the playout ended")

    async def _bring_up_to_date(self) -> None:
        """Cancel classes that are not ours any more, take in missed events, hand over all classes.

        The cancels come first: a new lease would let a class go on that was moved to another streamer meanwhile, so
        the holder gets none before (`flows.streamer.lease`).
        """
        host, playout = self._host, self._host.playout
        async with playout.sync:
            hello = await playout.ask("hello", events=True)
            found = await playout.ask("status")
            ours = await host.look(live)
            self._following.only(ours)
            self._handed = {one: wanted for one, wanted in self._handed.items() if one in playout.children}
            self._refused.clear()
            for one in found["classes"]:
                if one["class_id"] not in ours and one["state"] != "ended":
                    log.info("%s: is not to be aired here any more, the playout is told", one["class_id"])
                    await playout.ask("cancel", class_id=one["class_id"])
            playout.cleared = await host.look(leases.session, host.settings.name) or "", hello["holder_pid"]
            for one in found["classes"]:
                if one["class_id"] in ours:
                    await self._following.catch_up(one)
            await self._hand_over()
        playout.is_there()
        log.info("playout: release %s, %d classes", found["release"], len(self._handed))

    async def _events(self, client: Client) -> None:
        async for event in client.events():
            await self._following.take(event)

    async def _keep_handing_over(self) -> None:
        while True:
            await self._wait()
            self._host.rounds.come("playout")
            async with self._host.playout.sync:
                await self._hand_over()

    async def _keep_looking_around(self) -> None:
        """Raise due alarms in a loop of its own: many classes may need one, and handing over must not wait for them."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._host.rounds.come("alarms of classes")
            await self._following.look_around(time.time())

    async def _wait(self) -> None:
        self._host.playout.wanted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._host.playout.wanted.wait()

    # -- one class -----------------------------------------------------------------------------------------------------

    async def _hand_over(self) -> None:
        """Tell the playout the classes that are new or have changed; raises TryAgain if the playout is away."""
        host = self._host
        found, allowed = await host.look(due, time.time()), await push_hosts.allowed(host)
        self._handed = {class_id: one for class_id, one in self._handed.items() if class_id in found}
        self._refused = {class_id: one for class_id, one in self._refused.items() if class_id in found}
        self._odd = {class_id: until for class_id, until in self._odd.items() if class_id in found}
        now = [one for one in found.values() if self._odd.get(one[0].class_id, 0.0) <= time.monotonic()]
        now.sort(key=lambda one: one[0].start_time)
        for error in await all_of([self._hand(one, row, allowed) for one, row in now]):
            if isinstance(error, BaseException):
                raise error

    async def _hand(self, one: Airing, row: Cached | None, allowed: Places) -> None:
        """Hand one class over; raises what is wrong with the playout or the database, not with the class."""
        try:
            await self._hand_new(one, lesson(one, row, self._host, self._slate, allowed))
        except (TryAgain, DBAPIError):
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, it is this class's: the others are handed over)
            self._odd[one.class_id] = time.monotonic() + AGAIN_S
            await trouble.say(self._host, f"class {one.class_id}", error, AGAIN_S)

    async def _hand_new(self, one: Airing, wanted: Lesson) -> None:
        class_id = one.class_id
        if wanted in (self._handed.get(class_id), self._refused.get(class_id)):
            return
        if self._host.settings.playout == "ffmpeg" or has_password(one.push_url):
            by_ffmpeg.begin(self._host, one, wanted, self._following)
            self._handed[class_id] = wanted
        else:
            await self._tell(class_id, wanted)

    async def _tell(self, class_id: str, wanted: Lesson) -> None:
        try:
            await self._host.playout.ask("air", **wanted)
        except NotTaken as error:
            self._refused[class_id] = wanted
            log.error("%s: the playout does not take it: %s", class_id, error.message)
            await self._following.refused(class_id, error.message)
        else:
            self._handed[class_id] = wanted

    # -- it is not there -----------------------------------------------------------------------------------------------

    async def _say_away(self) -> None:
        playout, now = self._host.playout, time.monotonic()
        if playout.away_s() < ALARM_AFTER_S:
            return
        self._host.ongoing[errors.PLAYOUT_AWAY.number] = now
        if now - self._alarmed_at < ALARM_AGAIN_S:
            return
        log.error("playout: is not there, so nothing is aired: %s", playout.why)
        await changed(self._host, _alarm_away(str(playout.why)))
        self._alarmed_at = now
        await tell(self._host)


def _alarm_away(why: str) -> Decide[StreamerChanges]:
    def go(connection: Connection, changes: StreamerChanges) -> None:
        on_air = airings.due(connection, changes.now, changes.now)
        said = f"{changes.settings.name}: {why}; {words.counted(len(on_air), 'class', 'classes')} should be on air"
        changes.raise_alarm(errors.PLAYOUT_AWAY, said)

    return go
