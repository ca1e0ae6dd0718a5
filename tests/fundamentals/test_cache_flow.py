"""A streamer's cache: what is downloaded once, pinned by its classes, and evicted when room is needed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answering import Answer, serving
from tests.stage import Stage, Town, staged, wait_until
from town.faults import Fault

pytestmark = pytest.mark.live


def test_a_cached_rendition_is_not_downloaded_again(stage: Stage) -> None:
    """A second class cites it, and is answered at once."""
    record = stage.town.record("480P")
    path = f"{record}/{record}_480P.flv"
    for citations in (1, 2):
        class_id = stage.book(stage.booking(record, "480P", listed=("480P",)))
        assert stage.answer(class_id)["result"] == "success"
        assert stage.num_cite("streamer1", f"{record}_480P") == citations
        assert stage.town.asked(path) == 1


# -- downloads that go wrong: four at once, for each is tried again and again, with pauses ----------------------------


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory, town: Town) -> Iterator[str]:
    """An origin that sends another CRC-64 than the recording has, or one that is no number any more."""
    body = (town.folder / "master.flv").read_bytes()

    class Lying(Answer):
        def answer(self) -> None:
            crc = "9" * 4_301 if "odd" in self.path else "1234567890"
            self.say(200, {"x-oss-hash-crc64ecma": crc}, body)

    with serving(Lying) as server:
        yield f"{server.url}/recording.flv"


@pytest.fixture(scope="module")
def troubled(stage: Stage, liar: str) -> dict[str, list[str]]:
    """The class_ids of bookings whose recordings cannot be had, by what is wrong; they run side by side."""
    booked: dict[str, list[str]] = {}
    for trouble, fault in {
        "truncated": Fault("", method="GET", truncate_bytes=100_000),
        "busy": Fault("", method="GET", status=503),
        "recovers": Fault("", method="GET", status=503, times=1),
    }.items():
        record = stage.town.record()
        fault.path = f"{record}/*"
        stage.town.origin.faults.add(fault)
        booked[trouble] = [stage.book(stage.booking(record)) for _ in range(2)]
    record = stage.town.record()
    booked["wrong CRC"] = [stage.book({**stage.booking(record), "video_url": liar})]
    return booked


@pytest.mark.parametrize(("trouble", "code"), [("truncated", 318), ("busy", 318), ("wrong CRC", 319)])
def test_a_recording_that_can_not_be_had_is_refused_after_some_tries(
    stage: Stage, troubled: dict[str, list[str]], trouble: str, code: int
) -> None:
    """All classes that cite it are answered together; nothing of it stays on the disk or in the sums."""
    class_ids = troubled[trouble]
    answers = [stage.answer(one, timeout_s=90) for one in class_ids]
    assert [one["code"] for one in answers] == [code] * len(class_ids)
    assert len({one["message"] for one in answers}) == 1
    record = stage.order(class_ids[0])["url_stem"]
    if trouble != "wrong CRC":
        assert stage.town.asked(f"{record}/{record}.flv") == 4
    assert str(record) not in stage.cached("streamer1")
    assert not (stage.folder / "streamer1" / str(record) / f"{record}.flv").exists()
    noted = stage.rows("streamer1", "select what, detail from event_list where stem = ?", str(record))
    assert any(row["what"] == "download failed" and str(code) in row["detail"] for row in noted)


def test_passing_trouble_is_outlived_and_a_bad_file_deleted(stage: Stage, troubled: dict[str, list[str]]) -> None:
    """One 503 costs some seconds, and no class; a bad file would be gone on with by the next try."""
    assert [stage.answer(one, timeout_s=90)["result"] for one in troubled["recovers"]] == ["success"] * 2
    (class_id,) = troubled["wrong CRC"]
    stage.answer(class_id, timeout_s=90)
    folder = stage.folder / "streamer1" / stage.order(class_id)["url_stem"]
    assert [one.name for one in folder.glob("*") if not one.name.endswith(".origin")] == []


# -- a streamer alone, told what to prepare: its cache is small -------------------------------------------------------


@pytest.fixture(scope="module")
def small(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A streamer that keeps three renditions."""
    with staged(town, tmp_path_factory.mktemp("small"), MAX_VIDEO_NUM="3") as found:
        found.up("streamer1")
        yield found


def prepare(stage: Stage, record_id: int, **fields: str) -> str:
    """Tell the streamer to prepare a class, as the teacher does; returns its class_id."""
    booking = stage.booking(record_id)
    stage.tell("streamer1", {**booking, **fields, "cmd": "prepare"})
    return str(booking["class_id"])


def reported(stage: Stage, class_id: str) -> int:
    """The code that the streamer reports."""

    def codes() -> list[int]:
        said = stage.stream(f"{stage.prefix}:report")
        return [one["code"] for one in said if (one["cmd"], one["class_id"]) == ("prepared", class_id)]

    return wait_until(codes, description=f"{class_id} is reported")[0]


def release(stage: Stage, class_id: str) -> None:
    """Tell the streamer that the class is cancelled."""
    stage.tell("streamer1", {"cmd": "release", "class_id": class_id})


def test_a_full_cache_evicts_what_no_class_needs(small: Stage) -> None:
    """The least recently used first; what is pinned by classes stays, and where all is, the class is refused."""
    records = [small.town.record() for _ in range(5)]
    stems = [str(record) for record in records]
    classes = []
    for record in records[:3]:
        classes.append(prepare(small, record))
        assert reported(small, classes[-1]) == 0
    assert small.cached("streamer1") == set(stems[:3])

    refused = prepare(small, records[3])
    assert reported(small, refused) == 316
    assert "; the next place for it is free at " in small.airing("streamer1", refused)["message"]
    assert small.cached("streamer1") == set(stems[:3])
    assert small.airing("streamer1", refused)["state"] == "refused"

    for one in (classes[1], classes[0]):  # the second was used before the first
        release(small, one)
    wait_until(lambda: small.num_cite("streamer1", stems[0]) == 0, description="two are unpinned")
    again = prepare(small, records[1])
    assert reported(small, again) == 0
    release(small, again)  # now the first is the least recently used
    wait_until(lambda: small.num_cite("streamer1", stems[1]) == 0, description="it is unpinned again")
    assert reported(small, prepare(small, records[4])) == 0
    assert small.cached("streamer1") == {stems[1], stems[2], stems[4]}
    assert not (small.folder / "streamer1" / stems[0]).exists()
    (sums,) = small.rows("streamer1", "select num, reserved_num, size, reserved_bytes from dir_info")
    size = Path(small.folder / "streamer1" / stems[1] / f"{stems[1]}.flv").stat().st_size
    assert sums == {"num": 3, "reserved_num": 0, "size": 3 * size, "reserved_bytes": 0}
