"""A transcoder that has stood still for long: the deadlines of very many renditions pass at once."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from flows import handling
from flows.teacher import transcoding
from flows.teacher.ecs import transcode as ecs
from lectern.db import transcodings
from lectern.db.engine import open_database, transaction
from lectern.decide.transcoding import Late, Overdue
from lectern.model.facts import Attempt
from lectern.states import Backend, RenditionState, Resolution
from tests.faults import hosts
from tests.rows import commit

RENDITIONS = 400


async def test_of_very_many_outputs_only_some_are_looked_for_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that is slow to answer would take all sockets of the process, and each rendition is settled still."""
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    host, now = hosts.teacher(engine), time.time()
    host.membership_cache = time.monotonic() + 3600, ("streamer1",)
    keys = [(number, Resolution.P720) for number in range(1, RENDITIONS + 1)]
    with transaction(engine) as connection:
        attempts = [Attempt(*one, 1, 1, now, Backend.OSS, now - 1, "http://origin.example/1.flv") for one in keys]
        transcodings.begin(connection, attempts, now - 60)
        for key in keys:
            transcodings.requested(connection, key, now - 60)
    looking, most, answers = 0, 0, asyncio.Event()

    async def slow(*_: object) -> None:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        if looking == transcoding.LOOKS:
            asyncio.get_running_loop().call_later(0.1, answers.set)  # whoever else does not wait begins before it
        await answers.wait()
        looking -= 1

    async def nobody(_host: Any, keys: Any) -> transcoding.Lists:
        return {key: [] for key in keys}

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(ecs, "output_there", slow)
    monkeypatch.setattr(transcoding, "old_waiters", nobody)
    monkeypatch.setattr(transcoding, "follow", nothing)
    await transcoding.time_out(host)
    assert most == transcoding.LOOKS < RENDITIONS
    assert {one.state for one in commit(engine, transcodings.states, keys).values()} == {RenditionState.TIMED_OUT}
    engine.dispose()


def test_what_a_result_settled_while_its_output_was_looked_for_is_not_settled_again(tmp_path: Path) -> None:
    """Its result came late and was a success: no waiting class is refused; the others are timed out."""
    engine = open_database(f"sqlite:///{hosts.database('teacher', tmp_path / 'teacher.db')}")
    host, now = hosts.teacher(engine), time.time()
    settled, silent = keys = [(number, Resolution.P720) for number in (1, 2)]
    with transaction(engine) as connection:
        attempts = [Attempt(*one, 1, 1, now, Backend.OSS, now - 1, "http://origin.example/1.flv") for one in keys]
        transcodings.begin(connection, attempts, now - 60)
        for key in keys:
            transcodings.requested(connection, key, now - 60)
        late = [Late(one.key, one.backend, Overdue.TIME_OUT, None) for one in transcodings.overdue(connection, now)]
        assert {one.key for one in late} == {*keys}
        states = RenditionState.TRANSCODING, RenditionState.SUCCESS
        transcodings.move(connection, settled, *states, now, deadline=None, url="http://origin.example/1_720P.flv")
        changes = handling.change(connection, host, transcoding.expired(late, hosts.ALIVE, {key: [] for key in keys}))
        assert changes.ended == [silent]
        found = transcodings.states(connection, keys)
        assert (found[settled].state, found[silent].state) == (RenditionState.SUCCESS, RenditionState.TIMED_OUT)
    engine.dispose()
