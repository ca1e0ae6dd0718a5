"""A host without processes: what its runs show and write, and what its database holds."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextvars import copy_context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State
from sqlalchemy import MetaData, select

from flows import artifacts, handling
from flows import host as at_host
from lectern.db.engine import reading
from lectern.db.writer import lines, write
from tests.faults.turns import Quiet


def says(said: Iterable[str], *lines: str) -> bool:
    """Whether each of *lines* is said, with anything for its gaps."""
    said = list(said)
    return all(any(all(part in its for part in one.split(" … ")) for its in said) for one in lines)


@dataclass
class Alone:
    """A host without processes; *shown* are its plans, *written* is what its runs wrote."""

    host: Any
    tables: MetaData
    shown: dict[str, list[str]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    monkeypatch: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep what is shown and written from now on; Redis and Prefect say nothing."""
        self.host.bus = self.host.runs = cast("Any", Quiet())

        async def table(key: str, rows: list[dict[str, Any]], _: str) -> None:
            self.shown[key] = [str(row.get("would be written", "")) for row in rows]

        def noted(connection: Any, changes: Any) -> None:
            write(connection, changes)
            self.written += lines(changes)

        monkeypatch.setattr(artifacts, "table", table)
        monkeypatch.setattr(handling, "write", noted)
        self.monkeypatch = monkeypatch

    def run(self, flow: Callable[[], Coroutine[Any, Any, State[None]]]) -> str:
        """Run a flow to its end; returns its last word."""
        context = copy_context()
        context.run(at_host.current.set, self.host)

        async def go() -> State[None]:
            return await asyncio.create_task(flow(), context=context)

        return asyncio.run(go()).message or ""

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that the database holds."""
        with reading(self.host.engine) as connection:
            tables = self.tables.sorted_tables
            return {one.name: [tuple(row) for row in connection.execute(select(one))] for one in tables}

    def agree(self, key: str, flow: Callable[..., Coroutine[Any, Any, State[None]]]) -> tuple[list[str], list[str]]:
        """What a dry run shows, which writes nothing, and what the run after it writes."""
        now, before = time.time(), self.rows()
        clock = SimpleNamespace(time=lambda: now, monotonic=time.monotonic)
        self.monkeypatch.setattr(at_host, "time", clock)
        assert self.run(lambda: flow(dry_run=True)).startswith("dry run: ")
        assert self.rows() == before
        assert not self.written
        self.run(flow)
        assert self.rows() != before
        return self.shown[f"{key}-plan"], self.written
