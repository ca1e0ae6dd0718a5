"""Which old file is which rendition; what cannot be told goes to the quarantine, and is named."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from lectern.errors import Misuse
from lectern.rendition_ids import hashed
from lectern.rollout.result import shown
from lectern.storage import cache_dir
from tests.rollout.old_streamer import ORIGIN, OldStreamer, flv

ODD = ('it\'s "odd" -rf.flv', "new\nline.flv", "\udcff\udcfe.flv", "课 🎓.flv", "*?[a].flv", "-", "a\\b.flv", "%41.flv")


@pytest.fixture
def host(tmp_path: Path) -> OldStreamer:
    made = OldStreamer(tmp_path)
    made.has_tables()
    return made


def stems(host: OldStreamer) -> dict[str, str]:
    """By the place of each file below its root: its rendition, or why it has none."""
    plan = host.planned()
    assert plan.refusals == []
    return {one.found.place: one.stem for one in plan.moves} | {one.found.place: one.why for one in plan.strange}


NOBODY = "no class and no record has it"
CASES: dict[str, tuple[Sequence[tuple[str, str]], dict[str, str]]] = {
    "the URL's name": ([("c-1", "/7/intro.flv")], {"intro.flv": "7"}),
    "the class's name": ([("c-1", "/7/intro.flv")], {"c-1.flv": "7"}),
    "the record's name": ([("c-1", "/7_720P.flv")], {"7_720P.flv": "7_720P"}),
    "as the URL has it, a folder deep": (
        [("c-1", "/record/4940_22/video_4940_22.flv")],
        {"4940_22/video_4940_22.flv": "4940"},
    ),
    "a name with a resolution, of a class without": ([("c-1", "/7/7_720P.flv?")], {"7_720P.flv": "7_720P"}),
    "an encoded name": ([("c-1", "/7/%E8%AF%BE%20%F0%9F%8E%93.flv")], {"课 🎓.flv": "7"}),
    "a name that only looks encoded": ([("c-1", "/7/%2541.flv")], {"%41.flv": "7", "A.flv": NOBODY}),
    "another kind of file": ([("c-1", "/7/lesson.mp4")], {"lesson.mp4": "7", "lesson.mp4.bak": NOBODY}),
    "one name, two records": ([("c-1", "/7/intro.flv"), ("c-2", "/8/intro.flv")], {"intro.flv": "may be 7 or 8"}),
    "one name, two records, two folders": (
        [("c-1", "/7/intro.flv"), ("c-2", "/8/intro.flv")],
        {"7/intro.flv": "7", "8/intro.flv": "8"},
    ),
    "a folder a class": (
        [("c-1", "/7/intro.flv"), ("c-2", "/8/intro.flv")],
        {"c-1/intro.flv": "7", "c-2/c-2.flv": "8"},
    ),
    "a folder of another record": ([("c-1", "/7/intro.flv")], {"8/intro.flv": "8"}),
    "a folder of whatever": ([("c-1", "/7/intro.flv")], {"lessons/intro.flv": "7"}),
    "two folders of whatever": ([("c-1", "/7/intro.flv")], {"a/intro.flv": NOBODY, "b/intro.flv": NOBODY}),
    "a class that is called as a record": ([("9", "/7.flv"), ("c-2", "/9.flv")], {"9.flv": "may be 7 or 9"}),
    "a class that is called as no record": ([("9", "/7.flv")], {"9.flv": "7"}),
    "nobody's": ([], {"7.flv": "7", "8_240P.flv": "8_240P", "017.flv": "17", "x.flv": NOBODY, "9.mp4": NOBODY}),
    "a name that is no record": ([("c-1", "/intro.flv")], {"lessons/intro.flv": "intro", "other.flv": NOBODY}),
    "cut off": ([("c-1", "/7.flv")], {"7.flv.tmp": "a download that was not finished"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_the_rendition_that_its_name_says(host: OldStreamer, case: str) -> None:
    """By the URL's last name, the class's name, or the record's; if these differ, it is none."""
    classes, wanted = CASES[case]
    for class_id, path in classes:
        host.has_class(class_id, f"{ORIGIN}{path}")
    for place in wanted:
        host.has_file(f"video/{place}")
    assert stems(host) == wanted
    host.adopt()
    ready = {stem for stem, row in host.cached().items() if row[0] == "ready"}
    assert ready == {stem for stem in wanted.values() if " " not in stem}


@pytest.mark.parametrize("name", ODD)
def test_any_name_that_a_file_can_have(host: OldStreamer, name: str) -> None:
    """A class may know it by its URL; else it is moved, named readably, and moved back."""
    is_text = "\udcff" not in name
    if is_text:
        host.has_class("c-1", f"{ORIGIN}/7/{quote(name)}")
        host.has_file(f"video/{name}")
    strange = host.has_file(f"video/folder of {name}/{name}")
    tree = host.tree()
    said = "\n".join(host.adopt())
    assert host.states() == ({"c-1": "ready"} if is_text else {})
    assert said.replace("\n", "").isprintable()
    assert shown(strange) in said
    assert host.quarantined(f"folder of {name}/{name}").exists()
    assert host.adopt() == []
    host.undo()
    assert host.tree() == tree


WHOLE = flv(60)
ENDS: dict[str, tuple[bytes, float | str | None]] = {
    "nothing": (b"", "is 7, but cut off"),
    **{f"{n} bytes less": (WHOLE[:-n], "is 7, but cut off") for n in (1, 4, len(WHOLE) - 100)},
    "a byte more": (WHOLE + b"\0", "is 7, but cut off"),
    "zeros": (b"FLV\x01" + bytes(90), "is 7, but cut off"),
    "whole": (WHOLE, 60.0),
    "of a long stream": (flv(5, first_s=2_000_000.5), 5.0),
    "with headers at 0": (flv(5, first_s=60, has_headers=True), 5.0),
    "empty": (flv(3)[:13], None),
    "of another kind": (b"ftyp, or whatever", None),
}


@pytest.mark.parametrize("kind", ENDS)
def test_a_recording_is_as_long_as_its_ends_say_and_not_aired_if_it_was_cut_off(host: OldStreamer, kind: str) -> None:
    """So that a start with a thousand of them does not read them all; what they do not say is measured then."""
    content, wanted = ENDS[kind]
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.has_file("video/7/7.flv", content)
    assert stems(host) == ({"7/7.flv": wanted} if isinstance(wanted, str) else {})
    host.adopt()
    state, duration_s = ("waiting", None) if isinstance(wanted, str) else ("ready", wanted)
    assert host.states() == {"c-1": state}
    assert host.rows("SELECT duration_s FROM video_list") == [(duration_s,)]


def test_of_several_files_the_newest_whole_one_stays(host: OldStreamer) -> None:
    """Wherever they lie, and were it in the place of the rendition; the others are named.

    Of equals the one in its place stays.
    """
    host.has_class("c-1", f"{ORIGIN}/7.flv")
    host.has_file("video/7/7.flv", flv(2), age_s=200)
    host.has_file("video/7.flv", flv(3), age_s=200)
    host.has_file("video/c-1.flv", flv(4)[:-1], age_s=100)
    assert stems(host) == {"7.flv": "another file of 7 is kept", "c-1.flv": "is 7, but cut off"}
    host.has_file("video/7/7.flv", flv(2), age_s=300)
    assert stems(host) == {"7.flv": "7", "7/7.flv": "another file of 7 is kept", "c-1.flv": "is 7, but cut off"}
    host.adopt()
    assert (host.video_root / "7" / "7.flv").read_bytes() == flv(3)
    assert host.quarantined("7/7.flv").read_bytes() == flv(2)
    assert host.adopt() == []


def test_the_quarantine_overwrites_nothing(host: OldStreamer) -> None:
    """Each file keeps its whole path there, below the time of the rollout."""
    other = host.top / "other"
    host.old_roots = [other]
    names = ("quarantine/a", "quarantine/a.1", "quarantine/b", "a", "b/c", "d")
    for number, place in enumerate((*(f"video/{name}" for name in names), "other/a", "other/b/c", "other/d/e")):
        host.has_file(place, str(number).encode())
    before = host.contents()
    host.adopt()
    assert host.contents() == before
    places = [f"video/{name}" for name in ("a", "b/c", "d")] + ["other/a", "other/b/c", "other/d/e"]
    found = {path for path in host.aside.rglob("*") if path.is_file()}
    assert found == {Path(f"{host.aside}{host.top}/{place}") for place in places}


def test_what_is_not_ours_is_left_alone(host: OldStreamer) -> None:
    """Hidden files, what the file system and the quarantine keep, the database, and where links lead to."""
    host.old_roots = [host.top / "old"]
    outside = host.has_file("outside/7.flv")
    for place in (".hidden", ".trash/8.flv", "lost+found/9.flv", "quarantine/10.flv", "11/.hidden.flv", "odd/.x"):
        host.has_file(f"video/{place}")
        host.has_file(f"old/{place}")
    (host.video_root / "12.flv").symlink_to(outside)
    (host.video_root / "13").symlink_to(outside.parent)
    (host.top / "old" / "14.flv").symlink_to(outside)
    before = host.tree()
    plan = host.planned()
    assert [(one.found.name, one.why) for one in plan.strange] == [("12.flv", "no plain file"), ("13", "no plain file")]
    assert {one.found.path.removeprefix(f"{host.top}/") for one in plan.moves} == {"old/quarantine/10.flv"}
    host.adopt()
    moved = {"video/12.flv", "video/13", "old/quarantine", "old/quarantine/10.flv"}
    after = host.tree()
    assert {place: after[place] for place in before.keys() - moved} == {p: before[p] for p in before.keys() - moved}
    assert host.quarantined("12.flv").readlink() == outside


def test_a_database_in_the_store_is_left_alone(host: OldStreamer) -> None:
    """With what SQLite keeps beside it; also when the streamer starts and puts the store in order."""
    host.code.rename(host.top / "moved")
    host.video_root.rmdir()
    (host.top / "moved").rename(host.video_root)
    host.code.symlink_to(host.video_root)
    host.has_file("video/7.flv")
    host.adopt()
    assert sorted(path.name for path in host.video_root.iterdir() if path.is_dir()) == ["7"]
    with host.committed():
        assert [one.kind for one in cache_dir.scan(host.video_root)] == ["rendition"]


def test_beside_the_old_program_only_recordings_are_touched(host: OldStreamer) -> None:
    """Its folder, and those above it, hold its code: it must go on after a rollback."""
    host.old_roots = [host.code, host.top]
    for place in ("code/commands.py", "code/static/logo.png", "readme", "venv/bin/python", "venv/x.tmp"):
        host.has_file(place, b"code")
    for place in ("code/7.flv", "code/record/8.flv", "9.flv", "10.flv.part"):
        host.has_file(place)
    before = host.tree()
    host.adopt()
    assert set(host.cached()) == {"7", "8", "9"}
    left = {place for place in before if "flv" not in place} - {"code/record"}
    after = host.tree()
    assert {place: after.get(place) for place in left} == {place: before[place] for place in left}
    assert not (host.top / "10.flv.part").exists()


def test_roots_may_be_links_lie_in_each_other_and_come_twice(host: OldStreamer) -> None:
    disk = host.top / "disk"
    host.video_root.rmdir()
    disk.mkdir()
    host.video_root.symlink_to(disk)
    host.old_roots = [disk, host.video_root, disk / "old", disk / "old" / "record", host.top / "missing"]
    for number, place in enumerate(("7.flv", "8/8.flv", "old/9.flv", "old/a/10.flv", "old/record/b/11.flv")):
        host.has_file(f"disk/{place}", flv(number + 1))
    tree = host.tree()
    host.adopt()
    assert {stem: row[0] for stem, row in host.cached().items()} == dict.fromkeys(["7", "8", "9", "10", "11"], "ready")
    assert host.adopt() == []
    host.undo()
    assert host.tree() == tree


def test_two_recordings_that_share_a_name_and_no_record_are_two_renditions(host: OldStreamer) -> None:
    """Nobody can tell whose the file is, so each is downloaded; one that lies where its URL puts it stays."""
    urls = [f"{ORIGIN}/a/intro.flv", f"{ORIGIN}/b/intro.flv"]
    for number, url in enumerate(urls):
        host.has_class(f"c-{number}", url)
    host.has_file("video/intro.flv")
    host.patterns = ()
    host.adopt()
    rows = host.rows("SELECT class_id, video_id, state FROM class_list ORDER BY class_id")
    assert rows == [("c-0", "intro", "waiting"), ("c-1", hashed(urls[1]), "waiting")]
    host.has_file("video/intro/intro.flv")
    assert stems(host) == {}
    host.adopt()
    assert host.states() == {"c-0": "ready", "c-1": "waiting"}


def test_another_file_system_is_refused_in_words(host: OldStreamer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files go to their place by rename, or not at all."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == host.top.stat().st_dev:
        pytest.skip("this machine has one file system only")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        host.old_roots = [Path(folder)]
        (Path(folder) / "7.flv").write_bytes(flv())
        with pytest.raises(Misuse, match=f"'{folder}' is on another file system than .*take it out of old_video_roots"):
            host.adopt()
        assert (Path(folder) / "7.flv").exists()


@pytest.mark.parametrize(
    ("place", "target", "words"),
    [
        ("video", ".", r"task_list.db' lies in a folder of .*set VIDEO_ROOT to a folder without programs"),
        ("video", None, "video' is no folder; set VIDEO_ROOT to one"),
        ("video/quarantine", None, "quarantine' is no folder; move it away"),
        ("video/quarantine", "/tmp", "quarantine' is no folder; move it away"),
    ],
)
def test_a_store_around_the_program_and_what_is_no_folder_are_refused(
    host: OldStreamer, place: str, target: str | None, words: str
) -> None:
    """The streamer would put its own code in order at its next start."""
    path = host.top / place
    if path.exists():
        path.rmdir()
    if target is None:
        path.write_bytes(b"")
    else:
        path.symlink_to(host.top / target)
    with pytest.raises(Misuse, match=words):
        host.adopt()


def test_emptied_folders_stay_with_their_mode(host: OldStreamer) -> None:
    """The old program writes there again after a rollback; the new one passes over them."""
    host.has_file("video/4940_22/video_4940_22.flv")
    host.has_file("video/9/x.txt")
    (host.video_root / "empty").mkdir()
    folders = [f"video/{name}" for name in ("4940_22", "9", "empty")]
    for name in folders:
        (host.top / name).chmod(0o2770)
    tree = host.tree()
    host.adopt()
    assert [host.tree()[name] for name in folders] == [tree[name] for name in folders]
    assert {one.stem for one in cache_dir.scan(host.video_root)} == host.cached().keys() == {"4940"}
