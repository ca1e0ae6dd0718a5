"""What commands read: the databases of this host, opened for reading only, and what Redis knows of streamers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from lectern.cli.options import on_bus
from lectern.db.engine import NoDatabase, looking, open_to_look
from lectern.errors import Misuse
from lectern.model.views import StreamerStatus
from lectern.settings import Common, StreamerSettings, TeacherSettings
from lectern.states import Role

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


def each() -> dict[Role, Place[Any] | Misuse]:
    """The database of each role, the teacher's first; or why nobody can look at it: NoDatabase if there is none."""
    found: dict[Role, Place[Any] | Misuse] = {}
    looks: Mapping[Role, Callable[[], Place[Any]]] = {"teacher": teacher, "streamer": streamer}
    for role, look in looks.items():
        try:
            found[role] = look()
        except Misuse as error:
            found[role] = error
    return found


def here() -> tuple[list[Place[Any]], list[str]]:
    """The roles with a database on this host, the teacher first, and what is wrong with the settings of the others.

    Raises Misuse if there is no database.
    """
    looked = each().values()
    wrong = [one for one in looked if isinstance(one, Misuse)]
    if len(wrong) == len(looked):
        raise Misuse("No database is here. {missing}", missing=" ".join(one.message for one in wrong))
    places = [one for one in looked if isinstance(one, Place)]
    return places, [one.message for one in wrong if not isinstance(one, NoDatabase)]


def words(settings: Common) -> Mapping[str, StreamerStatus]:
    """The last heartbeat of each streamer, by its name. Raises LecternError if Redis does not answer."""
    return on_bus(settings, lambda bus: bus.words(settings.streamers_key, settings.silent_after_s), LOOK_S)
