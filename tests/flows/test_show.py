"""What a host shows of itself in the UI holds up nothing that it does."""

import asyncio
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.context import FlowRunContext

from flows import artifacts
from flows.artifacts import Board, ProgressBar
from lectern import formatting
from tests.waiting import async_wait_until


class Server:
    """A Prefect server that takes its time, as a busy one does; what it was told of tables."""

    def __init__(self, pause_s: float = 0) -> None:
        self.pause_s = pause_s
        self.made: list[str] = []  # the descriptions
        self.patched: list[tuple[object, str]] = []  # which, and its description
        self.left: list[Any] = []  # what an earlier process has made

    async def read_artifacts(self, **_: object) -> list[Any]:
        return self.left

    async def create_artifact(self, wanted: Any) -> Any:
        await asyncio.sleep(self.pause_s)
        self.made.append(wanted.description)
        return type("Artifact", (), {"id": uuid4()})

    async def request(self, *_: object, path_params: dict[str, object], json: dict[str, str], **__: object) -> None:
        self.patched.append((path_params["id"], json["description"]))


async def test_a_table_that_is_not_taken_in_time_is_shown_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The checks of the classes wait for it no longer than that."""
    monkeypatch.setattr(artifacts, "SHOW_S", 0.1)
    shown = Board(cast("Any", server := Server(pause_s=3600.0)))
    await shown.table("timetable-s1", [{"class": "c-1"}], "the day")
    assert server.made == [], "nobody waited for the server"
    assert all(one in caplog.text for one in ("cannot show artifact timetable-s1", "no answer in time"))
    server.pause_s = 0
    await shown.table("timetable-s1", [{"class": "c-1"}], "the day")
    assert len(server.made) == 1


async def test_a_table_says_as_of_when_it_is_also_when_it_is_brought_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the process that comes after a restart, too: the UI would open on a list of both."""
    server, clock = Server(), iter(("19:00:00", "19:00:15", "19:01:00"))
    monkeypatch.setattr(formatting, "moment", lambda _now: next(clock))
    shown = Board(cast("Any", server))
    await shown.table("timetable-s1", [{"class": "c-1"}], "the day")
    await shown.table("timetable-s1", [{"class": "c-2"}], "the day")
    assert (server.made, [said for _, said in server.patched]) == (
        ["the day; as of 19:00:00"],
        ["the day; as of 19:00:15"],
    )
    server.left = [type("Artifact", (), {"id": uuid4()})]
    await Board(cast("Any", server)).table("timetable-s1", [{"class": "c-1"}], "the day")
    assert (server.patched[1:], len(server.made)) == ([(server.left[0].id, "the day; as of 19:01:00")], 1)


# -- the bar of a download, a transcoding, a class on air ---------------------------------------------------------


class Bar:
    """A bar that is written every 0.05 s; what is written of it is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FlowRunContext, "get", object)
        monkeypatch.setattr(artifacts, "LOOK_S", 0.01)
        monkeypatch.setattr(artifacts, "PROGRESS_S", 0.05)
        self.written: list[float] = []
        self.said: list[str | None] = []
        self.key = ""
        self.bar = ProgressBar("download-6666_720P", "download 6666_720P")

        async def create(percent: float, key: str, description: str | None = None) -> UUID:
            self.key = key
            return await update(uuid4(), percent, description)

        async def update(artifact: UUID, percent: float, description: str | None = None) -> UUID:
            self.written.append(percent)
            self.said.append(description)
            return artifact

        monkeypatch.setattr(artifacts, "acreate_progress_artifact", create)
        monkeypatch.setattr(artifacts, "aupdate_progress_artifact", update)

    async def comes_to(self, *written: float) -> None:
        await async_wait_until(lambda: self.written == [*written], description="it is written")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Bar:
    return Bar(monkeypatch)


async def test_a_bar_is_written_at_both_ends_and_when_it_has_come_further_by_a_whole_per_cent(shown: Bar) -> None:
    """Under a key as Prefect takes it, whatever the work is called."""
    async with shown.bar as bar:
        bar.set(1.9)
        await shown.comes_to(1)
        bar.set(1.99)
        await asyncio.sleep(0.2)
        bar.set(2)
        await shown.comes_to(1, 2)
        bar.end("6666_720P: downloaded")
    assert (shown.written, shown.said[-1]) == ([1, 2, 100], "6666_720P: downloaded")
    assert shown.key == "download-6666-720p"


@pytest.mark.parametrize("percent", [99.9, 100])
async def test_what_came_of_the_work_is_written_unless_it_was_over_at_once_or_did_not_come_to_its_end(
    shown: Bar, percent: float
) -> None:
    async with shown.bar as bar:
        await asyncio.sleep(0)  # its writer begins
        bar.end("6666_720P: downloaded")
    assert shown.written == []
    async with shown.bar as bar:
        bar.set(percent)
        await async_wait_until(lambda: shown.written, description="it is written")
        bar.end("6666_720P: downloaded once more") if percent == 100 else None
    assert len(shown.written) == 1 + (percent == 100)


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), ValueError("no artifact"), KeyError("id"), RuntimeError("closed")]
)
async def test_a_bar_goes_on_after_prefect_was_away_or_answered_what_is_no_prefects(
    shown: Bar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Exception
) -> None:
    """A page of a proxy, say; it is logged once, however long that is."""
    create, asked = vars(artifacts)["acreate_progress_artifact"], list[object]()

    async def away(*_: object, **__: object) -> UUID:
        asked.append(answer)
        if len(asked) == 3:
            monkeypatch.setattr(artifacts, "acreate_progress_artifact", create)
        raise answer

    monkeypatch.setattr(artifacts, "acreate_progress_artifact", away)
    async with shown.bar as bar:
        bar.set(3.5)
        await shown.comes_to(3)
    assert caplog.text.count("cannot show artifact") == 1


async def test_work_that_is_done_does_not_wait_for_a_prefect_that_hangs(
    shown: Bar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last write of a bar stood between a recording that was there and its class, until the client gave up."""
    monkeypatch.setattr(artifacts, "LAST_S", 0.05)
    asked = asyncio.Event()

    async def hangs(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(artifacts, "aupdate_progress_artifact", hangs)
    async with asyncio.timeout(20):
        async with shown.bar as bar:
            bar.set(1)
            await shown.comes_to(1)
            bar.set(100)
        await asked.wait()


@pytest.mark.parametrize("answer", [ValueError("no artifact"), None], ids=["odd", "none"])
async def test_no_run_fails_because_its_table_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: Exception | None
) -> None:
    """All that the table shows is done by then."""
    monkeypatch.setattr(artifacts, "SHOW_S", 0.05)
    monkeypatch.setattr(FlowRunContext, "get", object)

    async def create(**_: object) -> None:
        if answer is not None:
            raise answer
        await asyncio.sleep(60)

    monkeypatch.setattr(artifacts, "acreate_table_artifact", create)
    async with asyncio.timeout(20):
        await artifacts.table("move-batch", [{"class": "c-1"}], "What became of the classes")
    assert "cannot show artifact move-batch" in caplog.text
