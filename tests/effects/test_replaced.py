"""A recording that is replaced at its URL: what is put in its place is one recording, never parts of two."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flows.handling import changed
from flows.host import StreamerHost
from flows.streamer import bandwidth, downloads
from lectern.db import cache
from lectern.errors import LecternError, Refuse, TryAgain
from lectern.model.facts import RemoteFile, Usage
from lectern.states import FileState
from lectern.storage import cache_dir
from lectern.storage import origin as storage_origin
from tests import rows
from tests.effects.conftest import Origin
from town.programs import gather

STEM = "6666"
PATH = f"/{STEM}.flv"
CUT = 40_000


def marked(recording: Path, mark: bytes, filler_bytes: int = 1000) -> bytes:
    """A recording that differs from others in its first bytes and in its last, but for them not in its length."""
    body = mark * filler_bytes
    tag = b"\x12" + len(body).to_bytes(3, "big") + bytes(7) + body
    return recording.read_bytes().replace(b"Lavf", mark * 4, 1) + tag + len(tag).to_bytes(4, "big")


class Downloads:
    """A download that was reserved, as a booking does, for the recording that its origin has now."""

    def __init__(self, host: StreamerHost, origin: Origin, old: bytes) -> None:
        self.host = host
        self.root = host.settings.video_root
        self.path = cache_dir.rendition_path(self.root, STEM)
        origin.files[PATH] = old
        rows.commit(host.engine, cache.make_sums, self.root)
        rows.commit(host.engine, rows.reserve, self.root, STEM, len(old), origin.url + PATH, 0.0)

    def fetch(self) -> bytes:
        """One try, noted as there; returns what is in its place."""

        async def go() -> None:
            remote, found = await downloads._fetch(self.host, STEM)
            await changed(self.host, downloads.arrived(STEM, remote, found))

        asyncio.run(go())
        return self.path.read_bytes()


@pytest.fixture
def download(streamer: StreamerHost, tmp_path: Path, origin: Origin, recording: Path) -> Downloads:
    changes = {"allowed_origins": urlsplit(origin.url).netloc, "download_rate": "0"}
    changes["wget_path"] = gather(tmp_path / "bin").wget
    streamer.settings = streamer.settings.model_copy(update=changes)
    return Downloads(streamer, origin, marked(recording, b"o"))


@pytest.mark.parametrize("filler_bytes", [500, 5000], ids=["shorter", "longer"])
def test_replaced_by_another_length_before_its_download_the_new_one_is_fetched(
    download: Downloads, origin: Origin, recording: Path, filler_bytes: int
) -> None:
    """Its reservation becomes that of the new length, and the sums are right."""
    origin.files[PATH] = new = marked(recording, b"n", filler_bytes)
    assert download.fetch() == new
    row = rows.look(download.host.engine, cache.by_stem, [STEM])[STEM]
    assert (row.state, row.size_bytes) == (FileState.READY, len(new))
    assert rows.look(download.host.engine, cache.used, download.root) == Usage(len(new), 1)


@pytest.mark.parametrize(("filler_bytes", "cut"), [(1000, True), (5000, False)], ids=["for the rest", "longer"])
def test_replaced_between_the_look_and_the_download_it_is_thrown_away_and_the_next_try_has_the_new_one(
    download: Downloads, origin: Origin, recording: Path, monkeypatch: pytest.MonkeyPatch, filler_bytes: int, cut: bool
) -> None:
    """Nobody had promised anything of the second half, and more than was promised does not come.

    That refuses no class: the look before is not true any more.
    """
    new, real = marked(recording, b"n", filler_bytes), storage_origin.download
    if cut:
        origin.cut_at[PATH] = CUT
        with pytest.raises(TryAgain):
            download.fetch()
        origin.cut_at.clear()

    async def late(*arguments: Any, **options: Any) -> None:
        origin.files[PATH] = new
        await real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage_origin, "download", late)
        with pytest.raises(TryAgain, match="was replaced at its origin"):
            download.fetch()
    assert not download.path.exists()
    assert download.fetch() == new


def test_what_came_in_several_tries_is_compared_at_the_url_of_its_booking(
    download: Downloads, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place to which that redirects may be valid for one download: by itself, it says nothing of the recording."""
    whole, look, places = origin.files[PATH], storage_origin.look, list[str]()

    async def redirected(url: str, **options: Any) -> RemoteFile:
        if url == origin.url + PATH:
            places.append(f"/{len(places)}{PATH}")
            origin.files[places[-1]], origin.statuses[places[-1]] = whole, [0, 0, 403]
            origin.redirects[PATH] = origin.url + places[-1]
        return await look(url, **options)

    monkeypatch.setattr(storage_origin, "look", redirected)
    origin.cut_at[f"/0{PATH}"] = CUT
    with pytest.raises(TryAgain):
        download.fetch()
    assert download.fetch() == whole
    assert len(places) == 3


@pytest.mark.parametrize(
    ("looked_s", "error"), [(0.0, TryAgain), (60.0, Refuse)], ids=["the look is long ago", "just looked at"]
)
def test_what_is_refused_long_after_the_look_at_its_origin_is_looked_at_again(
    download: Downloads, origin: Origin, monkeypatch: pytest.MonkeyPatch, looked_s: float, error: type[LecternError]
) -> None:
    """A signed URL may have expired while its download waited for a window, or for what is pushed."""
    monkeypatch.setattr(bandwidth, "LOOKED_S", looked_s, raising=False)
    origin.statuses[PATH] = [0, 403]
    with pytest.raises(error, match="403"):
        download.fetch()
    origin.statuses.clear()
    assert download.fetch() == origin.files[PATH]
