"""Files on the streamer's disk, and what the origin says of them."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection

from flows.host import StreamerHost
from lectern.allowlist import Allowlist
from lectern.db import cache, cache_check
from lectern.db.engine import transaction
from lectern.db.writer import write
from lectern.errors import FORBIDDEN_ORIGIN, Misuse, Refuse, TryAgain
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import files
from lectern.states import FileState
from lectern.storage import cache_dir, oss
from lectern.storage import origin as origins
from lectern.storage.origin import RemoteFile
from tests import rows
from tests.effects.conftest import Origin

REMOTE = RemoteFile("http://h/a.flv", 3, '"e"', 42)


def put(path: Path, content: bytes = b"abc") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_lie_where_the_contract_says_with_the_checksum_of_oss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRC-64/XZ of 123456789 is 995dc9bbdf1939fa, whether it is read at once or in pieces."""
    assert cache_dir.rendition_path(tmp_path, "6666") == tmp_path / "6666/6666.flv"
    assert cache_dir.part_path(tmp_path, "6666_720P") == tmp_path / "6666/6666_720P.flv.part"
    for odd in ("", "..", "../6666", "a/b", "6666.flv", "6666\n", "06_720P", "-1", "a b", "课"):
        with pytest.raises(Misuse):
            cache_dir.rendition_path(tmp_path, odd)
    for chunk_bytes in (cache_dir._CHUNK_BYTES, 4):
        monkeypatch.setattr(cache_dir, "_CHUNK_BYTES", chunk_bytes)
        assert cache_dir.crc64(put(tmp_path / "a", b"123456789")) == 0x995DC9BBDF1939FA
    assert cache_dir.crc64(put(tmp_path / "empty", b"")) == 0


def test_a_download_is_finished_and_removing_leaves_the_others_and_no_folder(tmp_path: Path) -> None:
    part, final = cache_dir.part_path(tmp_path, "6666"), cache_dir.rendition_path(tmp_path, "6666")
    with pytest.raises(FileNotFoundError):
        cache_dir.finish(part, final)
    put(part)
    cache_dir.write_origin(part, REMOTE)
    cache_dir.finish(part, final)
    assert sorted(final.parent.iterdir()) == [final]
    assert final.read_bytes() == b"abc"
    other = put(tmp_path / "6666/6666_720P.flv.part")
    cache_dir.write_origin(other, REMOTE)
    cache_dir.remove(final)
    assert other.exists()
    cache_dir.remove(other)
    cache_dir.remove(other)
    assert list(tmp_path.iterdir()) == []


def test_quarantine_overwrites_nothing_and_takes_what_is_in_the_store_alone(tmp_path: Path) -> None:
    path = tmp_path / "6666/it's odd.txt"
    first = cache_dir.quarantine(tmp_path, put(path, b"1"))
    second = cache_dir.quarantine(tmp_path, put(path, b"2"))
    assert first == tmp_path / "quarantine/6666/it's odd.txt"
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    for outside in (tmp_path.parent / "x", tmp_path / ".." / "x", tmp_path):
        with pytest.raises(Misuse):
            cache_dir.quarantine(tmp_path, outside)


def scanned(root: Path) -> dict[str, str]:
    """The kind of each file that a scan finds."""
    return {str(item.path.relative_to(root)): item.kind for item in cache_dir.scan(root)}


def test_a_scan_tells_all_apart_and_a_folder_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is a record's, or the administrator's."""
    kinds = {"6666/6666.flv": "rendition", "6666/6666_720P.flv.part": "part"}
    kinds |= dict.fromkeys(("6666/notes.txt", "7/6666_480P.flv", "readme"), "unknown")
    for place in (*kinds, "quarantine/6666/6666.flv", "8/8.flv", "odd/9.flv"):
        put(tmp_path / place)
    cache_dir.write_origin(tmp_path / "6666/6666_720P.flv.part", REMOTE)
    (tmp_path / "6666/6666_240P.flv").symlink_to("/etc/passwd")
    scandir = os.scandir

    def denied(path: str) -> object:
        if Path(path).name in {"8", "odd"}:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert scanned(tmp_path) == {**kinds, **dict.fromkeys(("6666/6666_240P.flv", "8", "odd"), "unknown")}
    sizes = {one.stem: one.size_bytes for one in cache_dir.scan(tmp_path) if one.stem}
    assert sizes == {"6666": 3, "6666_720P": 3}
    assert cache_dir.scan(tmp_path / "none") == []


def test_file_that_goes_while_store_is_scanned_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that ends is renamed: the others are listed."""
    for name in ("1/1.flv", "2/2.flv.part", "2/2_720P.flv"):
        put(tmp_path / name)
    found = cache_dir._found

    def going(entry: os.DirEntry[str], record: str | None) -> Iterator[cache_dir.FoundFile]:
        (tmp_path / "2" / "2.flv.part").unlink(missing_ok=True)  # its folder was listed
        return found(entry, record)

    monkeypatch.setattr(cache_dir, "_found", going)
    assert list(scanned(tmp_path)) == ["1/1.flv", "2/2_720P.flv"]


def test_a_records_folder_that_is_a_symbolic_link_is_refused_and_listed_as_unknown(tmp_path: Path) -> None:
    """What is written through it lies outside of the store; a start of the streamer puts it aside, and names it."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (root := tmp_path / "v").mkdir()
    (root / "6666").symlink_to(elsewhere)
    with pytest.raises(Refuse, match="/v/6666: is a symbolic link"):
        cache_dir.resume(cache_dir.part_path(root, "6666_720P"), REMOTE)
    assert list(elsewhere.iterdir()) == []
    assert scanned(root) == {"6666": "unknown"}


def test_a_download_is_gone_on_with_if_the_origin_has_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut only with what was synced: what was written after it may be zeros by now.

    What was promised at the first try is read again, unless it cannot be read.
    """
    part = put(cache_dir.part_path(tmp_path, "6666"))
    assert cache_dir.read_origin(part) is None
    cache_dir.write_origin(part, REMOTE)
    assert cache_dir.read_origin(part) == REMOTE
    part.write_bytes(b"abcdef")  # not synced, but the machine was not started anew
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abcdef"
    part.write_bytes(b"abcdefgh")
    monkeypatch.setattr(cache_dir, "boot_id", lambda: "another boot")
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abcdef"
    part.write_bytes(b"abcdefg")
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abcdefg"
    for other in (replace(REMOTE, etag='"other"'), replace(REMOTE, etag='"other"', crc64=43)):
        cache_dir.resume(put(part), other)
        assert not part.exists()
    for text in ("", "{", "[]", "{}", '{"url": 1}'):
        put(part.with_name(f"{part.name}.origin"), text.encode())
        assert cache_dir.read_origin(part) is None


def test_notes_of_a_download_that_are_being_written_or_could_not_be_are_no_unknown_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person can reconcile at any time, also on a full disk; they go with the download."""
    part, found = cache_dir.part_path(tmp_path, "6666"), list[dict[str, str]]()

    def full(_: int) -> None:
        found.append(scanned(tmp_path))
        raise OSError(errno.ENOSPC, "No space left on device")

    for go in (cache_dir.remove, lambda one: cache_dir.finish(one, cache_dir.rendition_path(tmp_path, "6666"))):
        put(part)
        with monkeypatch.context() as patch:
            patch.setattr(cache_dir, "sync", lambda _: None)
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                cache_dir.write_origin(part, REMOTE)
        assert found.pop() == {"6666/6666.flv.part": "part"}
        go(part)
    assert [one.name for one in part.parent.iterdir()] == ["6666.flv"]


ALLOWED = {
    "127.0.0.1": "http://127.0.0.1:81/a",
    "127.0.0.1:81": "http://127.0.0.1:81/a",
    "127.0.0.0/8, 10.0.0.0/8": "http://127.0.0.1:81/a",
    "LOCALHOST": "https://LocalHost/it's a.flv",
    "[::1]:81": "http://[::1]:81/a",
    "": "http://8.8.8.8/a",
    "public": "http://8.8.8.8/a",
    "public,10.0.0.0/8": "http://10.1.2.3/a",
}
LOOPBACK = ("127.0.0.1", "localhost", "127.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]")
FORBIDDEN = {
    "": [f"http://{host}/a" for host in (*LOOPBACK, "169.254.169.254", "10.0.0.1", "224.0.0.1")],
    "127.0.0.1:81": ["http://127.0.0.1:82/a"],
    "10.0.0.0/8": ["http://8.8.8.8/a"],
    "127.0.0.1": [
        "ftp://127.0.0.1/a",
        "file:///etc/passwd",
        "--output-document=x",
        "http://user:secret@127.0.0.1/a",
        "http://127.0.0.1\\@evil/a",
        "http://127.0.0.1/a\r\nHost: x",
        "http:///a",
        "http://127.0.0.1:99999/a",
    ],
}


def test_what_is_listed_is_allowed_and_all_else_forbidden() -> None:
    for setting, url in ALLOWED.items():
        origins.checked(url, Allowlist.listed(setting))
    for setting, urls in FORBIDDEN.items():
        for url in urls:
            with pytest.raises(Refuse) as raised:
                pytest.fail(f"{setting} allows {origins.checked(url, Allowlist.listed(setting))}")
            assert raised.value.code is FORBIDDEN_ORIGIN
            assert "secret" not in raised.value.message


async def test_a_busy_origin_is_asked_three_times_and_four_redirects_are_followed_at_most(origin: Origin) -> None:
    """One that recovers is believed."""

    async def look(path: str) -> RemoteFile:
        return await origins.look(f"{origin.url}{path}", allowed=Allowlist.listed("127.0.0.1"), timeout_s=20)

    origin.statuses["/a"] = [503]
    with pytest.raises(TryAgain, match="503"):
        await look("/a")
    assert origin.took("HEAD", "/a") == 3
    origin.files["/a"] = b"abc"
    origin.statuses["/a"] = [503, 0]
    assert (await look("/a")).size_bytes == 3
    origin.redirects |= {"/b": "/a", "/loop": "/loop"}
    assert (await look("/b")).url == f"{origin.url}/a"
    with pytest.raises(Refuse, match="redirects"):
        await look("/loop")
    assert origin.took("HEAD", "/loop") == 4


async def test_an_upload_is_there_although_its_server_redirects_to_another_allowed_one(origin: Origin) -> None:
    """As streamers will find it: the public URL may be that of a gateway before the store."""
    url, place = f"{origin.url}/up.flv", urlsplit(origin.url)
    origin.files["/a"] = b"abc"
    origin.redirects["/up.flv"] = f"http://localhost:{place.port}/a"
    await oss.verify_upload(url, 3, None, Allowlist.listed("localhost"))
    with pytest.raises(TryAgain, match="no allowed origin"):
        await oss.verify_upload(url, 3, None, Allowlist.listed("public"))
    with pytest.raises(TryAgain, match="has 3 bytes, but 4 were uploaded"):
        await oss.verify_upload(f"{origin.url}/a", 4, None, Allowlist.listed("public"))


NOW = 1_764_010_000.0


@pytest.fixture
def cited(streamer: StreamerHost) -> Iterator[Connection]:
    """Two renditions, each cited by two classes."""
    with transaction(streamer.engine) as connection:
        cache.make_sums(connection, streamer.settings.video_root)
        for stem in ("1", "2"):
            url = f"http://origin.example/{stem}.flv"
            rows.reserve(connection, streamer.settings.video_root, stem, 10, url, NOW)
            rows.cite(connection, stem, 2, NOW)
        yield connection


def test_a_citation_is_taken_back_never_below_0(cited: Connection) -> None:
    """Below 0, the next class that needs the file would not pin it, and it could be evicted under that class."""
    found = []
    for _ in range(3):
        rows.cite(cited, "1", -1, NOW)
        found.append(cache.by_stem(cited, ["1"])["1"].num_cite)
    assert found == [1, 0, 0]
    assert cache.by_stem(cited, ["2"])["2"].num_cite == 2, "it is another rendition's"


def test_what_becomes_of_a_rendition_in_one_run_is_written_as_one_change(
    streamer: StreamerHost, cited: Connection
) -> None:
    """Its file is lost, it is reserved anew, cited by two classes and given back by one; another is only lost."""
    changes = StreamerChanges(streamer.settings, NOW + 1)
    for one in cache.by_stem(cited, ["1", "2"]).values():
        changes.lose(one)
    changes.reserve("1", 20, "http://origin.example/1.flv", None)
    for stem, number in (("1", 2), ("1", -1), ("2", -1)):
        changes.cited[stem] += number
    write(cited, changes)
    (left,) = cache.by_stem(cited, ["1", "2"]).values()
    assert (left.stem, left.num_cite, left.size_bytes, left.state) == ("1", 1, 20, FileState.DOWNLOADING)


def test_a_person_evicts_what_no_class_needs_and_nothing_else(streamer: StreamerHost) -> None:
    engine, root = streamer.engine, streamer.settings.video_root
    rows.commit(engine, cache.make_sums, root)
    kept = {"state": FileState.READY, "size_bytes": 3, "update_time": NOW}
    rows.put(engine, {files: [{"id": "1", "num_cite": 0} | kept, {"id": "2", "num_cite": 1} | kept]})
    for stem in ("1", "2"):
        put(cache_dir.rendition_path(root, stem))
    assert cache_check.evict(engine, streamer.settings, "1") == 3
    for stem, why in (("1", "is not in the cache"), ("2", "a booked class needs it")):
        with pytest.raises(Misuse, match=why):
            cache_check.evict(engine, streamer.settings, stem)
    assert rows.look(engine, cache.by_stem, ["1", "2"]).keys() == {"2"}
    assert [cache_dir.rendition_path(root, one).exists() for one in "12"] == [False, True]
