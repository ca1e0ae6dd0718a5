"""A cached file that was cut short, or whose end is zeros, is told from the recording that was downloaded."""

import os
from pathlib import Path

import pytest

from lectern.effects.files import store
from lectern.effects.media import airable, probe, whole
from lectern.errors import TryAgain
from lectern.facts import Cached
from lectern.states import FileState
from tests import flv
from tests.effects.conftest import make_recording


async def row_of(path: Path, *, crc64: bool = False) -> Cached:
    """The row of a file that is whole now."""
    found = await probe.probe(path)
    known = store.crc64(path) if crc64 else None
    return Cached(
        "1", FileState.READY, 1, str(path), None, found.size_bytes, found.duration_s, crc64=known, mtime=found.mtime
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "1.flv", seconds=12)


async def test_a_whole_recording_has_no_trouble(recording: Path) -> None:
    """As ffmpeg writes it, and the cheap look at its last tags is enough."""
    row = await row_of(recording, crc64=True)
    assert row.duration_s == pytest.approx(12, abs=0.2)
    last_s = whole.last_tag_s(recording)
    assert last_s is not None
    assert row.duration_s is not None
    assert last_s >= row.duration_s - whole.SHORT_S
    assert await whole.end_trouble(recording, row) is None
    assert await whole.trouble(recording, row) is None


@pytest.mark.parametrize("zeros", [False, True], ids=["cut short", "zeros in its second half"])
async def test_a_file_without_its_end_is_found(recording: Path, zeros: bool) -> None:
    row = await row_of(recording)
    size = recording.stat().st_size
    os.truncate(recording, size // 2)
    if zeros:
        os.truncate(recording, size)
    why = await whole.end_trouble(recording, row)
    assert why is not None
    assert "it ends after" in why


async def test_damage_in_the_middle_is_found_where_the_crc_is_known(recording: Path) -> None:
    row = await row_of(recording, crc64=True)
    with recording.open("r+b") as file:
        file.seek(recording.stat().st_size // 2)
        file.write(bytes(4096))
    assert "CRC-64" in str(await whole.trouble(recording, row))


async def test_damage_in_the_middle_is_found_by_the_tags_whatever_size_and_time_say(recording: Path) -> None:
    row, before = await row_of(recording), recording.stat()
    assert await whole.middle_trouble(recording) is None, "without an index nobody knows how it was"
    looked, _ = await airable.looked(recording)
    airable.write_index(looked, recording)
    assert await whole.middle_trouble(recording) is None
    with recording.open("r+b") as file:
        file.seek(before.st_size // 2)
        file.write(bytes(40_000))
    os.utime(recording, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert recording.stat().st_size == before.st_size
    assert await whole.end_trouble(recording, row) is None
    assert "its tags cannot be read from byte" in str(await whole.middle_trouble(recording))


async def test_a_file_that_ends_oddly_and_always_has_is_whole(recording: Path) -> None:
    """A recorder that was stopped left half a tag behind: the decoder has the last word."""
    with recording.open("ab") as file:
        file.write(b"\x09\x00\x10\x00half a tag")
    row = await row_of(recording)
    assert whole.last_tag_s(recording) is None
    assert await whole.end_trouble(recording, row) is None


async def test_a_recording_is_not_called_damaged_because_the_disk_is_slow(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be put aside and downloaded again, which takes the disk even more time."""
    with recording.open("ab") as file:
        file.write(b"\x09\x00\x10\x00half a tag")
    row = await row_of(recording)
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.0)
    with pytest.raises(TryAgain, match="is the disk busy"):
        await whole.quick_trouble(recording, row)


def test_the_last_tags_are_read_whatever_the_file_is(tmp_path: Path) -> None:
    assert whole.last_tag_s(flv.write(tmp_path / "1.flv", 40)) == 40
    for number, data in enumerate((b"", b"FLV", flv.HEADER, b"x" * 100, flv.HEADER + bytes(500))):
        odd = tmp_path / f"odd-{number}"
        odd.write_bytes(data)
        assert whole.last_tag_s(odd) is None
