"""Makes renditions of one recording: tries host after host, and publishes one result for each rendition."""

import asyncio
import dataclasses
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from flows.host import Teacher, log
from flows.teacher.ecs import attempt as ecs_work
from flows.teacher.ecs.attempt import LINE, Missed
from flows.teacher.ecs.kept import UNWANTED, all_wanted, wanted
from flows.teacher.ecs.line import LOOK_S, NoLongerOurs, Place
from flows.tell import tell
from lectern.decide import ecs as decide
from lectern.effects import process
from lectern.effects.ecs.job import Made
from lectern.effects.ecs.ssh import Host, Lost
from lectern.effects.rows import ecs_hosts, events, outbox, renditions
from lectern.effects.rows.transcodings import Due
from lectern.errors import CANCELLED, HOST_ASIDE, TRANSCODE_FAILED, LecternError, Refuse
from lectern.facts import EcsHost, Event
from lectern.messages import TranscodingResult
from lectern.outgoing import Kind, Outgoing
from lectern.states import Backend, RenditionState, Resolution


@dataclass(frozen=True)
class Result:
    """The outcome of an attempt: the URLs of what was *made* at *place*, or the *error* if nothing was."""

    place: Place | None = None
    made: Mapping[Resolution, str] = field(default_factory=dict)
    error: LecternError | None = None


@dataclass(frozen=True)
class Failure:
    """What was not made at *place*, and why; *again* is worth another try, *over* is not."""

    place: Place | None
    missed: Missed
    again: Sequence[Due]
    over: Sequence[Due]


class Making:
    """Makes what is not settled of *due*, in one job if possible; publishes each result when it is known."""

    def __init__(self, host: Teacher, due: Sequence[Due], owner: str) -> None:
        self._host, self._due, self._owner = host, list(due), owner
        self._run_id = owner  # stays the same when another run makes them, and becomes their owner
        self._failures: list[str] = []
        self._left: set[tuple[Host, str]] = set()  # jobs that may go on on hosts that could not be reached
        self._wanted = False

    async def run(self) -> list[str]:
        """Make the renditions and publish the results; returns why some could not be made."""
        return await self._unless_cancelled(self._made_or_followed())

    async def follow(self) -> list[str]:
        """Wait until another run has made the renditions; returns why some could not be made."""
        return await self._unless_cancelled(self._follow())

    async def _made_or_followed(self) -> None:
        try:
            await self._climb()
        except NoLongerOurs as why:
            log.info("%s: %s", self._due[0].stem, why)
            await self._clear_up()
            await self._follow()

    async def _unless_cancelled(self, work: Coroutine[Any, Any, None]) -> list[str]:
        try:
            await work
        except asyncio.CancelledError:
            if self._host.runs.was_cancelled(self._run_id):  # else the process ends, and the next one goes on
                why = Result(error=Refuse("cancelled in the UI", CANCELLED))
                await process.surely(put(self._host, self._due, self._owner, why))
            raise
        await self._clear_up()
        return self._failures

    async def _clear_up(self) -> None:
        while self._left:
            await ecs_work.leave_anew(self._host, *self._left.pop(), tries=ecs_work.RECONNECTS)

    # -- a ladder of hosts -----------------------------------------------------------------------------------------

    async def _climb(self) -> None:
        """Try host after host, while another try is worth it."""
        avoid: list[str] = []
        self._wanted = await self._host.commit(wanted, self._due)
        for tries in range(1, decide.TRIES + 1):
            try:
                place = await LINE.place(self._host, self._due, self._owner, self._name_of, avoid)
            except LecternError as error:
                await self._failed(None, {one.resolution: error for one in self._due}, decide.TRIES)
                return
            try:
                missed = await self._tried(place)
            finally:
                LINE.left()
            if not missed:
                return
            await self._failed(place, missed, tries)
            if not self._due:
                return
            avoid.append(str(place.host))
            await ecs_work.pause(tries)
        raise AssertionError("the last try is not tried again")

    def _name_of(self, due: Sequence[Due]) -> str:
        return ecs_work.job(self._host.settings, due).name

    async def _tried(self, place: Place) -> Missed:
        """One attempt on one host; returns what was not made there, and why."""
        joined = [one for one in place.due if one.key not in {each.key for each in self._due}]
        if joined:
            log.info("%s: made with %s", ", ".join(one.stem for one in joined), self._due[0].stem)
            # Only jobs that were begun for classes are dropped when their last class is cancelled.
            self._wanted = self._wanted and await self._host.commit(all_wanted, joined)
        self._due = list(place.due)
        job = dataclasses.replace(ecs_work.job(self._host.settings, place.due), begun_at=place.begun_at)
        attempt = ecs_work.Attempt(self._host, place, self._owner, job, wanted=self._wanted)

        async def publish(made: Sequence[Made]) -> None:
            urls = {one.resolution: one.url for one in made}
            ours = [one for one in self._due if one.resolution in urls]
            await put(self._host, ours, self._owner, Result(place, urls))

        try:
            missed = await attempt.run(publish)
        except LecternError as error:
            if attempt.left or isinstance(error, Lost):
                self._left.add((place.host, job.name))
            return {one.resolution: error for one in self._due}
        (self._left.add if attempt.left else self._left.discard)((place.host, job.name))
        return missed

    async def _failed(self, place: Place | None, missed: Missed, tries: int) -> None:
        """Keep the renditions that are worth another try, and publish that the others failed."""
        where = str(place.host) if place else "none"
        for error in set(missed.values()):
            log.warning("%s: ECS host %s: %s", self._due[0].stem, where, error.message)
        again = [one for one in self._due if one.resolution in missed and decide.again(missed[one.resolution], tries)]
        over = [one for one in self._due if one.resolution in missed and one not in again]
        await self._host.commit(_note_failure, self._host, self._owner, Failure(place, missed, again, over))
        await tell(self._host)
        self._failures += dict.fromkeys(missed[one.resolution].message for one in over)
        self._due = again

    # -- made by another run ---------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Wait for another run that makes the renditions with its own, and end as they do."""
        before = self._owner
        while (leader := await self._host.commit(ecs_hosts.owner_of, self._due)) not in (None, before):
            self._owner = str(leader)  # who cancels this run, cancels them there
            await asyncio.sleep(LOOK_S)
        if self._owner != before:
            found = await self._host.commit(renditions.standing, [one.key for one in self._due])
            bad = [one for one in found if one["status"] in (RenditionState.FAILED, RenditionState.TIMED_OUT)]
            self._failures += [f"{one['rendition']}: {one['reason']}" for one in bad if one["reason"] != UNWANTED]


def _note_failure(connection: Connection, host: Teacher, owner: str, failure: Failure) -> None:
    """Note a failure in one transaction, so that no other run takes the renditions that are given up for good."""
    now, place, missed = time.time(), failure.place, failure.missed
    ecs_hosts.given_up(connection, failure.again, owner)
    if place is not None:
        noted = [
            Event("ECS host failed", stem=one.stem, detail=_of_host(str(place.host), missed[one.resolution]))
            for one in (*failure.again, *failure.over)
        ]
        events.note(connection, host.journal, host.settings.name, noted, now)
        _blame(connection, host, str(place.host), missed.values(), now)
    for one in failure.over:
        _put_results(connection, host, [one], owner, Result(error=missed[one.resolution]))


def _of_host(name: str, error: LecternError) -> str:
    """The error with the name of its host before it, which some have already."""
    return f"{name}: {error.message.removeprefix(f'{name}: ')}"


def _blame(connection: Connection, host: Teacher, name: str, errors: Iterable[LecternError], now: float) -> None:
    """Count a failure of the host if one of *errors* is its own; a host that is put aside gets no job for a while."""
    its_own = [error for error in errors if decide.blame(error) is decide.Blame.HOST]
    if not its_own:
        return
    message = its_own[0].message.removeprefix(f"{name}: ")
    (before,) = ecs_hosts.facts(connection, [name])
    after = decide.after_failure(before, now, host.settings.ecs_aside_s)
    ecs_hosts.remember(connection, after, message, now)
    if after.aside_until > before.aside_until:
        for_s = host.settings.ecs_aside_s
        said = f"{name}: failed {after.failures} times in a row, it gets no job for {for_s:.0f} s: {message}"
        outbox.put(connection, host.journal, [host.alarm(HOST_ASIDE, said, now)], now)


# -- the results -------------------------------------------------------------------------------------------------------


async def put(host: Teacher, due: Sequence[Due], owner: str, result: Result) -> None:
    """Publish the *result* of making *due*."""
    await host.commit(_put_results, host, due, owner, result)
    await tell(host)


def _put_results(connection: Connection, host: Teacher, due: Sequence[Due], owner: str, result: Result) -> None:
    """Put a message for each rendition that is still *owner*'s into the outbox, once."""
    error = result.error
    ours = ecs_hosts.published(connection, due, owner)
    for one in due:
        if one not in ours:
            log.info("%s: settled or taken over meanwhile; our result does not count", one.stem)
    if not ours:
        return
    now = time.time()
    results = [
        TranscodingResult(
            record_id=one.record_id,
            video_resolution=one.resolution,
            result="failed" if error else "sucess",
            transcode_video_url=result.made.get(one.resolution),
            type=Backend.ECS,
            attempt=one.attempt,
            code=(error.code or TRANSCODE_FAILED).number if error else None,
            message=error.message if error else None,
        )
        for one in ours
    ]
    sending = [Outgoing(host.settings.transcoding_channel, Kind.CHANNEL, one) for one in results]
    outbox.put(connection, host.journal, sending, now)
    why = f"{(error.code or TRANSCODE_FAILED).number}: {error.message}" if error else ""
    noted = [Event("ECS transcoding ended", stem=one.stem, detail=why or result.made[one.resolution]) for one in ours]
    events.note(connection, host.journal, host.settings.name, noted, now)
    if result.place is not None:
        ecs_hosts.remember(connection, EcsHost(str(result.place.host)), None, now)
