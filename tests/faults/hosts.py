"""Hosts without processes: settings and a database, for what is done in one transaction."""

import atexit
import shutil
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

from sqlalchemy import Engine

from flows.host import Host
from lectern.effects.rows import schema
from lectern.effects.rows.schema import Role
from lectern.effects.rows.tables import streamer as at_streamer
from lectern.effects.rows.tables import teacher as at_teacher
from lectern.effects.rows.tables.engine import open_database
from lectern.settings import GIBIBYTE, StreamerSettings, TeacherSettings

ALIVE = ["streamer1", "streamer2"]
NOBODY = cast("Any", None)
"""No bus and no runs: a transaction reaches neither."""


def teacher(engine: Engine) -> Host[TeacherSettings]:
    """A teacher that asks the OSS, and has no server of its own."""
    settings = TeacherSettings.load(
        _env_file=None,
        transcode_sign_key="made-up",
        oss_transcode_url="http://oss.example/transcode",
        ecs_hosts="",
        max_attempts_a_day=1000,
    )
    return Host(settings, engine, at_teacher.journal, NOBODY, NOBODY)


def streamer(
    engine: Engine, root: Path, max_bytes: int, max_num: int, *, name: str = ALIVE[0]
) -> Host[StreamerSettings]:
    """A streamer with a small cache."""
    settings = StreamerSettings.load(
        _env_file=None,
        streamer_name=name,
        video_root=root,
        max_video_size=(max_bytes + 0.5) / GIBIBYTE,
        max_video_num=max_num,
    )
    return Host(settings, engine, at_streamer.journal, NOBODY, NOBODY)


@cache
def _template(role: Role) -> Path:
    folder = Path(mkdtemp(prefix="lectern-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"{role}.db"
    engine = open_database(f"sqlite:///{path}")
    schema.upgrade(engine, role)
    engine.dispose()
    return path


def database(role: Role, path: Path) -> Path:
    """A new database of *role* at *path*."""
    shutil.copy(_template(role), path)
    return path


def now() -> float:
    """The clock that the flows read themselves."""
    return time.time()
