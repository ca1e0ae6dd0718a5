"""What the playout takes but cannot write down is said once, until it can write again."""

import asyncio
import logging
from typing import Any, cast

import pytest

from flows.playout_link import Playout
from lectern.playout.client import Client


class Told:
    """A playout that answers as it is told to."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = iter(answers)

    async def ask(self, _: str, **__: Any) -> dict[str, Any]:
        return next(self._answers)


def test_a_playout_that_would_forget_a_class_is_said_once_until_it_writes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else its next restart would be the first to show that its disk takes nothing."""
    kept, lost = {"durable": True}, {"durable": False, "why": "the timetable is not written yet"}
    playout = Playout(client=cast("Client", Told(lost, kept, lost, kept, lost)))

    async def tell() -> None:
        for do in ("timetable", "status", "timetable", "timetable", "timetable"):
            await playout.ask(do)

    with caplog.at_level(logging.WARNING, logger="lectern"):
        asyncio.run(tell())
    assert caplog.messages == ["playout: the timetable is not written yet; if it ends now, it forgets that"] * 2
