"""What commands read: the databases of this host, opened for reading only, and what Redis knows of streamers."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from lectern.cli.options import on_bus
from lectern.db.engine import looking, open_to_look
from lectern.decide import account
from lectern.errors import Misuse
from lectern.model.views import EventView, Sending, StreamerStatus
from lectern.playout import control_socket as playout
from lectern.settings import Common, StreamerSettings, TeacherSettings

S = TypeVar("S", TeacherSettings, StreamerSettings)
LOOK_S = 3.0
"""Seconds that a command which only looks waits for Redis or the playout."""


@dataclass(frozen=True)
class Place(Generic[S]):
    """A role that this host has, and its database."""

    settings: S
    engine: Engine

    def looking(self) -> AbstractContextManager[Connection]:
        """A connection that changes nothing."""
        return looking(self.engine, self.settings.role)


def at(settings: S) -> Place[S]:
    """The database of *settings*; raises Misuse if it is not on this host."""
    return Place(settings, open_to_look(settings.database_url, settings.role))


def teacher() -> Place[TeacherSettings]:
    """The teacher's database; raises Misuse if it is not on this host."""
    return at(TeacherSettings.to_look())


def streamer() -> Place[StreamerSettings]:
    """The streamer's database; raises Misuse if it is not on this host."""
    return at(StreamerSettings.load())


def here() -> list[Place[Any]]:
    """The roles with a database on this host, the teacher first; raises Misuse if there is none."""
    found: list[Place[Any]] = []
    missing: list[str] = []
    looks: Sequence[Callable[[], Place[Any]]] = (teacher, streamer)
    for look in looks:
        try:
            found.append(look())
        except Misuse as error:
            missing.append(error.message)
    if not found:
        raise Misuse("No database is here. {missing}", missing=" ".join(missing))
    return found


def words(settings: Common) -> Mapping[str, StreamerStatus]:
    """The last heartbeat of each streamer, by its name. Raises LecternError if Redis does not answer."""
    return on_bus(settings, lambda bus: bus.words(settings.streamers_key, lost_after_s(settings)), LOOK_S)


def lost_after_s(settings: Common) -> float:
    """Seconds of silence after which a streamer's last heartbeat is too old to be believed."""
    return 3 * settings.heartbeat_interval_s + 2


def playout_says(here: Sequence[Place[Any]], class_id: str, events: Sequence[EventView]) -> Sending | None:
    """How the playout of this host sends a class; None if the host has no playout.

    The *events* of the class say why something was not sent.
    """
    own = [one.settings for one in here if isinstance(one.settings, StreamerSettings)]
    if not own:
        return None
    socket = own[0].playout_socket_path
    try:
        answer = asyncio.run(asyncio.wait_for(playout.asked(socket, "status", class_id=class_id), LOOK_S))
    except (playout.PlayoutUnreachable, playout.RequestRefused, TimeoutError) as error:
        return account.without_playout(str(error) or "no answer in time")
    classes = answer["classes"]
    return account.of_playout(classes[0], time.time(), events) if classes else account.NOT_IN_PLAYOUT
