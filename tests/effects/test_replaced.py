"""A recording that is replaced at its URL: what is put in its place is one recording, never parts of two."""

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flows.handling import Delivery, changed
from flows.host import StreamerHost
from flows.streamer import downloads, prepare
from lectern.db import cache
from lectern.db.engine import transaction
from lectern.errors import TryAgain
from lectern.model.facts import InboxMessage, Usage
from lectern.states import FileState
from lectern.storage import cache_dir
from lectern.storage import origin as storage_origin
from tests import rows
from tests.effects.conftest import Origin, make_recording
from town.programs import gather

STEM = "6666"
PATH = f"/{STEM}.flv"
CUT = 40_000


def recording(master: bytes, mark: bytes, filler_bytes: int = 1000) -> bytes:
    """A recording that differs from others in its first bytes and in its last, but for them not in its length."""
    body = mark * filler_bytes
    tag = b"\x12" + len(body).to_bytes(3, "big") + bytes(7) + body
    return master.replace(b"Lavf", mark * 4, 1) + tag + len(tag).to_bytes(4, "big")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_recording(tmp_path_factory.mktemp("master") / "1.flv").read_bytes()


@pytest.fixture
def streamer(streamer: StreamerHost, tmp_path: Path, origin: Origin) -> StreamerHost:
    wget = gather(tmp_path / "bin").wget
    changes = {"allowed_origins": urlsplit(origin.url).netloc, "wget_path": wget, "download_rate": "0"}
    streamer.settings = streamer.settings.model_copy(update=changes)
    return streamer


def reserve(host: StreamerHost, origin: Origin, size_bytes: int) -> Path:
    """Reserve a download, as a booking does; returns where the rendition will be."""
    root = host.settings.video_root
    with transaction(host.engine) as connection:
        cache.make_sums(connection, root)
        rows.reserve(connection, root, STEM, size_bytes, origin.url + PATH, 0.0)
    return cache_dir.rendition_path(root, STEM)


def fetch(host: StreamerHost) -> bytes:
    """One try of the download, noted as there; returns what is in its place."""

    async def go() -> None:
        remote, found = await downloads._fetch(host, STEM)
        await changed(host, downloads.arrived(STEM, remote, found))

    asyncio.run(go())
    return cache_dir.rendition_path(host.settings.video_root, STEM).read_bytes()


@pytest.mark.parametrize("filler_bytes", [500, 5000], ids=["shorter", "longer"])
def test_replaced_by_another_length_before_its_download_the_new_one_is_fetched(
    streamer: StreamerHost, origin: Origin, master: bytes, filler_bytes: int
) -> None:
    """Its reservation becomes that of the new length, and the sums are right."""
    old, new = recording(master, b"o"), recording(master, b"n", filler_bytes)
    reserve(streamer, origin, len(old))
    origin.files[PATH] = new
    assert fetch(streamer) == new
    row = rows.look(streamer.engine, cache.by_stem, [STEM])[STEM]
    assert (row.state, row.size_bytes) == (FileState.READY, len(new))
    assert rows.look(streamer.engine, cache.used, streamer.settings.video_root) == Usage(len(new), 1)


@pytest.mark.parametrize("sums", [False, True], ids=["another ETag", "another sum and the same ETag"])
def test_replaced_between_two_tries_it_begins_from_zero(
    streamer: StreamerHost, origin: Origin, master: bytes, tmp_path: Path, sums: bool
) -> None:
    def serve(body: bytes) -> None:
        origin.files[PATH] = body
        (tmp_path / "body").write_bytes(body)
        promised = {"x-oss-hash-crc64ecma": str(cache_dir.crc64(tmp_path / "body")), "etag": "same"}
        origin.headers[PATH] = promised if sums else {}

    old, new = recording(master, b"o"), recording(master, b"n")
    reserve(streamer, origin, len(old))
    serve(old)
    origin.cut_at[PATH] = CUT
    with pytest.raises(TryAgain):
        fetch(streamer)
    serve(new)
    origin.cut_at.clear()
    assert fetch(streamer) == new


def test_replaced_while_the_rest_is_fetched_it_is_thrown_away_and_the_next_try_has_the_new_one(
    streamer: StreamerHost, origin: Origin, master: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The origin was looked at before: of the second half nobody had promised anything."""
    old, new = recording(master, b"o"), recording(master, b"n")
    final = reserve(streamer, origin, len(old))
    origin.files[PATH], origin.cut_at[PATH] = old, CUT
    with pytest.raises(TryAgain):
        fetch(streamer)
    origin.cut_at.clear()
    real = storage_origin.download

    async def late(*arguments: Any, **options: Any) -> None:
        origin.files[PATH] = new
        await real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage_origin, "download", late)
        with pytest.raises(TryAgain, match="was replaced at its origin"):
            fetch(streamer)
    assert not final.exists()
    assert fetch(streamer) == new


def test_replaced_while_cached_it_is_aired_as_it_was(streamer: StreamerHost, origin: Origin, master: bytes) -> None:
    """Nobody asks the origin again; RUNBOOK says how a person has the new one fetched."""
    old, new = recording(master, b"o"), recording(master, b"n")
    final = reserve(streamer, origin, len(old))
    origin.files[PATH] = old
    assert fetch(streamer) == old
    origin.files[PATH] = new
    asked = len(origin.asked)
    assert asyncio.run(_looked_at(streamer, origin)) == {}
    assert final.read_bytes() == old
    assert len(origin.asked) == asked


async def _looked_at(host: StreamerHost, origin: Origin) -> dict[str, prepare.ProbeResult]:
    """What another class of the same recording has looked at."""
    wanted = rows.prepare("c-2", int(STEM), time.time() + 600, video_url=origin.url + PATH)
    came, here = await host.read_tx(
        prepare.with_stems, [Delivery(InboxMessage(1, "prepare", wanted.to_json(), 0), wanted)]
    )
    assert here == {STEM}
    return await prepare.probe_origins(host, came, here)
