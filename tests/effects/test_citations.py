"""How often a rendition is cited: each class that needs it counts once, and an end that comes twice takes one back."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from lectern.effects.rows import cache
from lectern.effects.rows.tables.engine import transaction
from lectern.model.tables.streamer import files
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
            cache.cite(connection, stem, classes, NOW)
        found = []
        for _ in range(classes + 1):
            cache.uncite(connection, "1")
            found.append(cited(connection, "1"))
        assert found == [*reversed(range(classes)), 0]
        assert cited(connection, "2") == classes, "it is another rendition's"
    engine.dispose()
