"""The folders of a store: which are refused, and what becomes of those that are emptied or in the way."""

import os
from pathlib import Path

import pytest

from lectern.effects.files import scan
from lectern.errors import Misuse
from tests.rollout.old_streamer import OldStreamer, flv

ORIGIN = "http://origin.example"


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    made = OldStreamer(tmp_path)
    made.has_tables()
    return made


def test_another_file_system_is_refused_in_words(host: OldStreamer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files go to their place by rename, or not at all."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == host.top.stat().st_dev:
        pytest.skip("this machine has one file system only")
    other = memory / f"lectern-{os.getpid()}"
    other.mkdir()
    try:
        host.old_roots = [other]
        (other / "7.flv").write_bytes(flv())
        with pytest.raises(Misuse, match=f"'{other}' is on another file system than .*take it out of old_video_roots"):
            host.adopt()
        assert (other / "7.flv").exists()
    finally:
        (other / "7.flv").unlink()
        other.rmdir()


def test_a_store_around_the_program_is_refused(host: OldStreamer) -> None:
    """The streamer would put its own code in order at its next start."""
    host.video_root.rmdir()
    (host.top / "video").symlink_to(host.top)
    with pytest.raises(
        Misuse, match=r"task_list.db' lies in a folder of .*set VIDEO_ROOT to a folder without programs"
    ):
        host.adopt()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_quarantine_that_is_no_folder_is_refused(host: OldStreamer, kind: str) -> None:
    quarantine = host.video_root / "quarantine"
    if kind == "file":
        quarantine.write_bytes(b"")
    else:
        quarantine.symlink_to("/tmp")
    with pytest.raises(Misuse, match="quarantine' is no folder; move it away"):
        host.adopt()


def test_a_store_that_is_no_folder_is_refused(host: OldStreamer) -> None:
    host.video_root.rmdir()
    host.video_root.write_bytes(b"")
    with pytest.raises(Misuse, match="video' is no folder; set VIDEO_ROOT to one"):
        host.adopt()


def test_files_in_the_way_of_folders_go_first(host: OldStreamer) -> None:
    """A file that is called as a record leaves its place to the record's folder, and comes back."""
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.has_file("video/7", b"in the way")
    host.has_file("video/c-1.flv")
    (host.video_root / "8").symlink_to("/tmp")
    host.has_file("video/8.flv")
    tree = host.tree()
    host.adopt()
    assert host.cached().keys() == {"7", "8"}
    host.undo()
    assert host.tree() == tree


def test_emptied_folders_stay_as_they_are(host: OldStreamer) -> None:
    """With their mode and owner: the old program writes there again after a rollback. The new one passes over them."""
    host.has_file("video/4940_22/video_4940_22.flv")
    host.has_file("video/7/x.txt")
    (host.video_root / "empty").mkdir()
    for name in ("4940_22", "7", "empty"):
        (host.video_root / name).chmod(0o2770)
    tree = host.tree()
    host.adopt()
    after = host.tree()
    for name in ("4940_22", "7", "empty"):
        assert after[f"video/{name}"] == tree[f"video/{name}"]
    assert [one.stem for one in scan.scan(host.video_root)] == ["4940"]
    host.undo()
    assert host.tree() == tree
