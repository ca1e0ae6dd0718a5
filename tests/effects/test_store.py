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
from lectern.db import cache
from lectern.db.engine import transaction
from lectern.db.writer import write
from lectern.errors import FORBIDDEN_ORIGIN, Misuse, Refuse, TryAgain
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import journal
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
    assert cache_dir.rendition_path(tmp_path, "6666_720P") == tmp_path / "6666/6666_720P.flv"
    assert cache_dir.part_path(tmp_path, "6666_720P") == tmp_path / "6666/6666_720P.flv.part"
    for chunk_bytes in (cache_dir._CHUNK_BYTES, 4):
        monkeypatch.setattr(cache_dir, "_CHUNK_BYTES", chunk_bytes)
        assert cache_dir.crc64(put(tmp_path / "a", b"123456789")) == 0x995DC9BBDF1939FA
    assert cache_dir.crc64(put(tmp_path / "empty", b"")) == 0


@pytest.mark.parametrize("stem", ["", "..", "../6666", "a/b", "6666.flv", "6666\n", "06_720P", "-1", "a b", "课"])
def test_what_is_no_stem_is_no_path(tmp_path: Path, stem: str) -> None:
    with pytest.raises(Misuse):
        cache_dir.rendition_path(tmp_path, stem)


def test_a_download_is_finished_once(tmp_path: Path) -> None:
    part, final = cache_dir.part_path(tmp_path, "6666"), cache_dir.rendition_path(tmp_path, "6666")
    put(part)
    cache_dir.write_origin(part, REMOTE)
    cache_dir.finish(part, final)
    cache_dir.finish(part, final)
    assert sorted(final.parent.iterdir()) == [final]
    assert final.read_bytes() == b"abc"


def test_removing_leaves_the_others_and_no_empty_folder(tmp_path: Path) -> None:
    one, other = put(tmp_path / "6666/6666.flv"), put(tmp_path / "6666/6666_720P.flv.part")
    cache_dir.write_origin(other, REMOTE)
    cache_dir.remove(one)
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


def test_a_scan_tells_all_apart(tmp_path: Path) -> None:
    kinds: dict[str, tuple[str, str | None]] = {
        "6666/6666.flv": ("rendition", "6666"),
        "6666/6666_720P.flv.part": ("part", "6666_720P"),
        **dict.fromkeys(("6666/notes.txt", "7/6666_480P.flv", "readme"), ("unknown", None)),
    }
    for place in (*kinds, "quarantine/6666/6666.flv"):
        put(tmp_path / place)
    cache_dir.write_origin(tmp_path / "6666/6666_720P.flv.part", REMOTE)
    (tmp_path / "6666/6666_240P.flv").symlink_to("/etc/passwd")
    found = {str(item.path.relative_to(tmp_path)): (item.kind, item.stem) for item in cache_dir.scan(tmp_path)}
    assert found == {**kinds, "6666/6666_240P.flv": ("unknown", None)}
    assert cache_dir.scan(tmp_path)[0].size_bytes == 3


@pytest.mark.parametrize("name", ["6666", "of the administrator"])
def test_folder_that_cannot_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put(tmp_path / name / "6666.flv")
    put(tmp_path / "7/7.flv")
    scandir = os.scandir

    def denied(path: str) -> object:
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = {str(item.path.relative_to(tmp_path)): item.kind for item in cache_dir.scan(tmp_path)}
    assert found == {name: "unknown", "7/7.flv": "rendition"}


def test_file_that_goes_while_store_is_scanned_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that ends is renamed: the others are listed."""
    for name in ("1/1.flv", "2/2.flv.part", "2/2_720P.flv"):
        put(tmp_path / name)
    found = cache_dir._found

    def going(entry: os.DirEntry[str], record: str | None) -> Iterator[cache_dir.FoundFile]:
        (tmp_path / "2" / "2.flv.part").unlink(missing_ok=True)  # its folder was listed
        return found(entry, record)

    monkeypatch.setattr(cache_dir, "_found", going)
    assert [one.site for one in cache_dir.scan(tmp_path)] == [f"{tmp_path}/1/1.flv", f"{tmp_path}/2/2_720P.flv"]


def test_a_store_or_a_download_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert cache_dir.scan(tmp_path / "none") == []
    with pytest.raises(FileNotFoundError):
        cache_dir.finish(cache_dir.part_path(tmp_path, "6666"), cache_dir.rendition_path(tmp_path, "6666"))


def test_a_records_folder_that_is_a_symbolic_link_is_refused_and_listed_as_unknown(tmp_path: Path) -> None:
    """What is written through it lies outside of the store; a start of the streamer puts it aside, and names it."""
    root, elsewhere = tmp_path / "v", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "6666").symlink_to(elsewhere)
    part = cache_dir.part_path(root, "6666_720P")
    with pytest.raises(Refuse, match="/v/6666: is a symbolic link"):
        cache_dir.resume(part, RemoteFile("http://h/6666.flv", 9, None, None))
    assert list(elsewhere.iterdir()) == []
    assert [(one.path.name, one.kind) for one in cache_dir.scan(root)] == [("6666", "unknown")]


def test_the_sidecar_remembers_the_first_try_unless_it_cannot_be_read(tmp_path: Path) -> None:
    part = cache_dir.part_path(tmp_path, "6666")
    assert cache_dir.read_origin(part) is None
    cache_dir.write_origin(part, REMOTE)
    assert cache_dir.read_origin(part) == REMOTE
    for text in ("", "{", "[]", "{}", '{"url": 1}'):
        put(cache_dir.origin_path(part), text.encode())
        assert cache_dir.read_origin(part) is None


def test_a_download_is_gone_on_with_if_the_origin_has_the_same_file(tmp_path: Path) -> None:
    part = put(cache_dir.part_path(tmp_path, "6666"))
    cache_dir.write_origin(part, REMOTE)
    part.write_bytes(b"abcdef")  # not synced, but the machine was not started anew
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abcdef"
    cache_dir.resume(part, replace(REMOTE, etag='"other"'))
    assert not part.exists()


def test_after_power_cut_only_what_was_synced_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written after the last sync may be zeros by now."""
    part = put(cache_dir.part_path(tmp_path, "6666"))
    cache_dir.write_origin(part, REMOTE)
    part.write_bytes(b"abcdef")
    monkeypatch.setattr(cache_dir, "boot_id", lambda: "another boot")
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abc"
    part.write_bytes(b"abcd")
    cache_dir.resume(part, REMOTE)
    assert part.read_bytes() == b"abcd"


ALLOWED = {
    "127.0.0.1": ["http://127.0.0.1:81/a"],
    "127.0.0.1:81": ["http://127.0.0.1:81/a"],
    "127.0.0.0/8, 10.0.0.0/8": ["http://127.0.0.1:81/a"],
    "LOCALHOST": ["https://LocalHost/it's a.flv"],
    "[::1]:81": ["http://[::1]:81/a"],
    "": ["http://8.8.8.8/a"],
    "public,10.0.0.0/8": ["http://8.8.8.8/a", "http://10.1.2.3/a"],
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


@pytest.mark.parametrize(("setting", "url"), [(one, url) for one, urls in ALLOWED.items() for url in urls])
def test_what_is_listed_is_allowed(setting: str, url: str) -> None:
    origins.checked(url, Allowlist.listed(setting))


@pytest.mark.parametrize(("setting", "url"), [(one, url) for one, urls in FORBIDDEN.items() for url in urls])
def test_all_else_is_forbidden(setting: str, url: str) -> None:
    with pytest.raises(Refuse) as raised:
        origins.checked(url, Allowlist.listed(setting))
    assert raised.value.code is FORBIDDEN_ORIGIN
    assert "secret" not in raised.value.message


def test_a_list_that_can_not_be_read_is_misuse() -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        Allowlist.listed("http://h/")


async def look(origin: Origin, path: str, timeout_s: float = 5) -> RemoteFile:
    allowed = Allowlist.listed(origin.url.removeprefix("http://"))
    return await origins.look(f"{origin.url}{path}", allowed=allowed, timeout_s=timeout_s)


async def test_a_url_that_is_signed_for_get_only_is_looked_at_too(origin: Origin) -> None:
    origin.files["/a"] = b"abc"
    origin.no_head.add("/a")
    assert (await look(origin, "/a")).size_bytes == 3


async def test_a_busy_origin_is_asked_three_times_and_believed_when_it_recovers(origin: Origin) -> None:
    origin.statuses["/a"] = [503]
    with pytest.raises(TryAgain, match="503"):
        await look(origin, "/a", timeout_s=20)
    assert origin.took("HEAD", "/a") == 3
    origin.files["/a"] = b"abc"
    origin.statuses["/a"] = [503, 0]
    assert (await look(origin, "/a")).size_bytes == 3


async def test_a_redirect_is_followed_four_times_at_most(origin: Origin) -> None:
    origin.files["/a"] = b"abc"
    origin.redirects |= {"/b": "/a", "/loop": "/loop"}
    assert (await look(origin, "/b")).url == f"{origin.url}/a"
    with pytest.raises(Refuse, match="redirects"):
        await look(origin, "/loop")
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


def reserved(connection: Connection, root: Path, classes: int) -> None:
    """Two renditions, each cited by so many *classes*."""
    cache.make_sums(connection, root)
    for stem in ("1", "2"):
        rows.reserve(connection, root, stem, 10, f"http://origin.example/{stem}.flv", NOW)
        rows.cite(connection, stem, classes, NOW)


@pytest.mark.parametrize("classes", [0, 1, 2])
def test_a_citation_is_taken_back_never_below_0(streamer: StreamerHost, classes: int) -> None:
    """Below 0, the next class that needs the file would not pin it, and it could be evicted under that class."""
    with transaction(streamer.engine) as connection:
        reserved(connection, streamer.settings.video_root, classes)
        found = []
        for _ in range(classes + 1):
            rows.cite(connection, "1", -1, NOW)
            found.append(cache.by_stem(connection, ["1"])["1"].num_cite)
        assert found == [*reversed(range(classes)), 0]
        assert cache.by_stem(connection, ["2"])["2"].num_cite == classes, "it is another rendition's"


def test_what_becomes_of_a_rendition_in_one_run_is_written_as_one_change(streamer: StreamerHost) -> None:
    """Its file is lost, it is reserved anew, cited by two classes and given back by one; another is only lost."""
    with transaction(streamer.engine) as connection:
        reserved(connection, streamer.settings.video_root, 1)
        changes = StreamerChanges(streamer.settings, NOW + 1)
        for one in cache.by_stem(connection, ["1", "2"]).values():
            changes.lose(one)
        changes.reserve("1", 20, "http://origin.example/1.flv", None)
        for stem, number in (("1", 2), ("1", -1), ("2", -1)):
            changes.cited[stem] += number
        write(connection, journal, changes)
        (left,) = cache.by_stem(connection, ["1", "2"]).values()
    assert (left.stem, left.num_cite, left.size_bytes, left.state) == ("1", 1, 20, FileState.DOWNLOADING)
