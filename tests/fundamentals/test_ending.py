"""How a process begins to collect garbage, writes its log, and ends."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from flows.failures import FatalError
from flows.host import StreamerHost
from flows.resident import process
from flows.resident.process import Resident
from lectern import logs
from lectern.cli.app import COMMANDS, LOAD_MORE, app
from lectern.settings import StreamerSettings


class Said:
    """A Redis that keeps what it is told at the end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def part(self, _key: str, name: str) -> None:
        self.told.append(f"{name} is leaving")

    async def let_go(self, lock: str, _owner: str) -> None:
        self.told.append(f"{lock} is free")

    async def close(self) -> None:
        self.told.append("closed")


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    streamer.bus = cast("Any", Said())
    return streamer


def test_a_process_whose_disk_is_full_leaves_as_any_other_and_says_why_it_ends(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(_host: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    monkeypatch.setattr(process, "publish_outbox", full)
    ending = Resident(streamer.settings)

    async def main() -> None:
        try:
            raise FatalError("inbox: 3 messages could not be written; is the disk full?")
        finally:
            await ending._leave(streamer)

    monkeypatch.setattr(ending, "_main", main)
    with caplog.at_level(logging.ERROR, "lectern"):
        ending.run()
    name = streamer.settings.name
    assert cast("Said", streamer.bus).told == [f"{name} is leaving", f"lectern:queue:{name} is free", "closed"]
    assert "inbox: 3 messages could not be written" in caplog.text
    assert "nobody expected" not in caplog.text


def test_a_process_that_is_asked_to_stop_before_it_has_begun_stops(tmp_path: Path) -> None:
    """SIGTERM can come between the start of its thread and that of its loop; it was ended by force then."""
    resident = Resident(StreamerSettings.load(_env_file=None, streamer_name="s1", video_root=tmp_path))
    resident.stop()

    async def asked() -> None:
        async with asyncio.timeout(5):
            await resident._stop.wait()

    asyncio.run(asked())


@pytest.fixture
def off() -> Iterator[None]:
    """As `lectern.cli.main` begins."""
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("words", [["rollout", "verify"], ["rekey", "--rule", "no rule", "--dry-run"]])
def test_it_is_on_once_a_command_is_loaded_or_a_step_of_a_rollout_begins(off: None, words: list[str]) -> None:
    found = CliRunner().invoke(app, words, input="nothing that is wanted")
    assert found.exit_code != 0, "it was to come as far as to its own words"
    assert gc.isenabled()


def test_who_turns_it_on_by_itself_is_a_command() -> None:
    assert set(LOAD_MORE) <= COMMANDS.keys()


def test_a_line_of_a_library_that_cannot_be_formatted_does_not_end_who_wrote_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arguments do not fit its text: it is written as it is, without secrets, and so are the next ones."""
    handler = logging.StreamHandler()
    handler.addFilter(logs.without_secrets)
    library = logging.getLogger("a library")
    monkeypatch.setattr(library, "propagate", False)  # not to those of pytest
    library.addHandler(handler)
    try:
        library.warning("%d connections to %s", "many", "redis://:hidden@redis.example/0")
        library.warning("the next line")
    finally:
        library.removeHandler(handler)
    said = capsys.readouterr().err
    assert said == "%d connections to %s ('many', 'redis://redis.example/0')\nthe next line\n"
