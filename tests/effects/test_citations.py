"""How often a rendition is cited: each class that needs it counts once, and an end that comes twice takes one back."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from lectern.db import cache
from lectern.db.engine import transaction
from lectern.db.writer import write
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import files, journal
from lectern.settings import StreamerSettings
from lectern.states import FileState
from tests import laid, rows

NOW = 1_764_010_000.0


def cited(connection: Connection, stem: str) -> int:
    return int(connection.execute(select(files.c.num_cite).where(files.c.id == stem)).scalar_one())


@pytest.mark.parametrize("classes", [0, 1, 2])
def test_a_citation_is_taken_back_never_below_0(tmp_path: Path, classes: int) -> None:
    """Below 0, the next class that needs the file would not pin it, and it could be evicted under that class."""
    engine = laid.opened("streamer", tmp_path / "task_list.db")
    with transaction(engine) as connection:
        cache.usage(connection, tmp_path)
        for stem in ("1", "2"):
            rows.reserve(connection, tmp_path, stem, 10, f"http://origin.example/{stem}.flv", NOW)
            rows.cite(connection, stem, classes, NOW)
        found = []
        for _ in range(classes + 1):
            rows.cite(connection, "1", -1, NOW)
            found.append(cited(connection, "1"))
        assert found == [*reversed(range(classes)), 0]
        assert cited(connection, "2") == classes, "it is another rendition's"
    engine.dispose()


def test_what_becomes_of_a_rendition_in_one_run_is_written_as_one_change(tmp_path: Path) -> None:
    """Its file is lost, it is reserved anew, cited by two classes and given back by one; another is only lost."""
    engine = laid.opened("streamer", tmp_path / "task_list.db")
    with transaction(engine) as connection:
        for stem in ("1", "2"):
            rows.reserve(connection, tmp_path, stem, 10, f"http://origin.example/{stem}.flv", NOW)
            rows.cite(connection, stem, 1, NOW)
        known = cache.by_stem(connection, ["1", "2"])
        settings = StreamerSettings.load(_env_file=None, streamer_name="s1").model_copy(update={"video_root": tmp_path})
        changes = StreamerChanges(settings, NOW + 1)
        for stem in ("1", "2"):
            changes.lose(known[stem])
        changes.reserve("1", 20, "http://origin.example/1.flv", None)
        for stem, number in (("1", 2), ("1", -1), ("2", -1)):
            changes.cited[stem] += number
        write(connection, journal, changes)
        (left,) = cache.by_stem(connection, ["1", "2"]).values()
    assert (left.stem, left.num_cite, left.size_bytes, left.state) == ("1", 1, 20, FileState.DOWNLOADING)
    engine.dispose()
