"""A streamer without its process: what the rows of the cache and the scan measure on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.host import StreamerHost
from lectern.db import airings, cache
from lectern.db.engine import transaction
from lectern.model.tables.streamer import files
from lectern.states import FileState
from tests import laid
from tests.faults import hosts

SIZE_BYTES = 1000
_AT_ONCE = 20_000


@contextmanager
def host(folder: Path, max_video_num: int) -> Iterator[StreamerHost]:
    """A streamer with an empty cache in *folder*; it has no bus and starts no runs."""
    root = folder / "video"
    root.mkdir()
    engine = laid.opened("streamer", folder / "task_list.db")
    try:
        yield hosts.streamer(engine, root, 1 << 40, max_video_num)
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
