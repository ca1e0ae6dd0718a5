"""A streamer's cache: what is downloaded once, and pinned by its classes."""

import pytest

from tests.stage import Stage
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


def test_a_recording_that_can_not_be_had_is_refused_after_some_tries(stage: Stage) -> None:
    """All classes that cite it are answered together; nothing of it stays on the disk or in the sums."""
    record = stage.town.record()
    stage.town.origin.faults.add(Fault(f"{record}/*", method="GET", truncate_bytes=100_000))
    both = [stage.book(stage.booking(record)) for _ in range(2)]
    answers = [stage.answer(one, timeout_s=90) for one in both]
    assert [one["code"] for one in answers] == [318, 318]
    assert len({one["message"] for one in answers}) == 1
    assert stage.town.asked(f"{record}/{record}.flv") == 4
    assert str(record) not in stage.cached("streamer1")
    assert not (stage.folder / "streamer1" / str(record) / f"{record}.flv").exists()
    noted = stage.rows("streamer1", "select what, detail from event_list where stem = ?", str(record))
    assert any(row["what"] == "download failed" and "318" in row["detail"] for row in noted)
