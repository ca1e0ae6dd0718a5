"""The slate is there before a class needs it."""

from pathlib import Path

import pytest

from lectern.effects.media import slate
from lectern.errors import LecternError
from lectern.playout import index


@pytest.mark.asyncio
async def test_a_slate_is_made_once_and_can_be_aired(tmp_path: Path) -> None:
    path = tmp_path / "slate.flv"
    await slate.make(path)
    found = index.look(path)
    index.check(found)
    assert found.has_picture
    assert found.has_sound
    assert abs(found.duration_ms - 1000 * slate.LENGTH_S) < 500
    made = path.stat().st_mtime_ns
    await slate.make(path)
    assert path.stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.asyncio
async def test_an_empty_file_that_a_power_cut_left_is_no_slate(tmp_path: Path) -> None:
    """If it stayed, no class would ever have one on this host."""
    path = tmp_path / "slate.flv"
    path.touch()
    await slate.make(path)
    assert index.look(path).has_picture


@pytest.mark.asyncio
async def test_a_slate_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(LecternError, match="the slate cannot be made"):
        await slate.make(tmp_path / "nowhere" / "slate.flv")
