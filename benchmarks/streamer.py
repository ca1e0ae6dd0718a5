"""A streamer's database and settings without its process: what the rows of the cache and the scan measure on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from flows.host import StreamerHost
from lectern.db import airings, cache, schema
from lectern.db.engine import open_database, transaction
from lectern.model.tables.streamer import files, journal
from lectern.settings import StreamerSettings
from lectern.states import FileState

SIZE_BYTES = 1000
_AT_ONCE = 20_000


@contextmanager
def host(folder: Path, max_video_num: int) -> Iterator[StreamerHost]:
    """A streamer with an empty cache in *folder*; it has no bus and starts no runs."""
    settings = StreamerSettings.load(
        _env_file=None,
        streamer_name="streamer1",
        streamer_database_url=f"sqlite:///{folder}/task_list.db",
        video_root=folder / "video",
        max_video_num=max_video_num,
        allowed_origins="127.0.0.1",
        allowed_push_hosts="127.0.0.1",
    )
    settings.video_root.mkdir()
    engine = open_database(settings.database_url)
    schema.upgrade(engine, "streamer")
    try:
        yield StreamerHost(settings, engine, journal, cast("Any", None), cast("Any", None))
    finally:
        engine.dispose()


def fill(streamer: StreamerHost, stems: list[str]) -> None:
    """Rows of renditions that are there and that no class cites, used one after the other."""
    root = streamer.settings.video_root
    common = {"num_cite": 0, "state": FileState.READY, "size_bytes": SIZE_BYTES, "duration_s": 30.0}
    for first in range(0, len(stems), _AT_ONCE):
        rows = [
            {**common, "id": stem, "site": f"{root}/{stem}.flv", "update_time": float(first + i)}
            for i, stem in enumerate(stems[first : first + _AT_ONCE])
        ]
        with transaction(streamer.engine) as connection:
            connection.execute(files.insert(), rows)
    with transaction(streamer.engine) as connection:
        cache.recount(connection, root, airings.citations(connection))
