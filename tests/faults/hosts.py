"""Hosts without processes: settings and a database, for what is done in one transaction."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine, event

from flows.host import StreamerHost, TeacherHost
from flows.playout_link import ScheduledClass
from lectern.model.facts import Airing
from lectern.settings import GIBIBYTE, StreamerSettings, TeacherSettings
from lectern.states import Role
from lectern.storage import cache_dir
from lectern.wire.messages import Booking
from tests import laid, strategies

ALIVE = ["streamer1", "streamer2"]
NOBODY = cast("Any", None)
"""No bus and no runs: a transaction reaches neither."""


@contextmanager
def opened(role: Role, path: Path) -> Iterator[Engine]:
    """A new database of *role*, whose commits wait for no disk: no power is cut here."""
    engine = laid.opened(role, path)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield engine
    engine.dispose()


def teacher(engine: Engine) -> TeacherHost:
    """A teacher that asks the OSS, and has no server of its own."""
    settings = TeacherSettings.load(
        _env_file=None,
        transcode_sign_key="made-up",
        oss_transcode_url="http://oss.example/transcode",
        ecs_hosts="",
        upload_url="http://oss.example/up",
        public_url="http://oss.example/up",
        max_attempts_a_day=1000,
    )
    return TeacherHost(settings, engine, NOBODY, NOBODY)


def streamer(engine: Engine, root: Path, max_bytes: int, max_num: int, *, name: str = ALIVE[0]) -> StreamerHost:
    settings = StreamerSettings.load(
        _env_file=None,
        streamer_name=name,
        video_root=root,
        max_video_size=(max_bytes + 0.5) / GIBIBYTE,
        max_video_num=max_num,
    )
    return StreamerHost(settings, engine, NOBODY, NOBODY)


def booking(class_id: str = "c-1", in_s: float = 3600.0, **fields: Any) -> Booking:
    """One of a class that begins *in_s* from now, changed by *fields*."""
    return strategies.booking(class_id, start_time=now() + in_s, end_time=now() + in_s + 600, **fields)


def rendition(host: StreamerHost, stem: str) -> str:
    """Where the playout finds a rendition."""
    return str(cache_dir.rendition_path(host.settings.video_root, stem).absolute())


def lesson(host: StreamerHost, one: Airing) -> ScheduledClass:
    """A class as the playout has it."""
    return {
        "start": one.start_time,
        "end": one.end_time,
        "file": rendition(host, one.stem),
        "push_urls": [one.push_url],
    }


def now() -> float:
    """The clock that the flows read themselves."""
    return time.time()
