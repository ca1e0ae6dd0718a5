"""Alarms are passed on to Prefect beside the work; a Prefect that is slow holds up none of them."""

import asyncio
import json
import time
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from flows.resident import alarms


class Slow:
    """A Prefect server that takes its time."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.taken: list[int] = []

    async def request(self, _method: str, _path: str, *, json: list[object]) -> None:
        await asyncio.sleep(self.pause_s)
        self.taken.append(len(json))


def raised(number: int) -> Any:
    body = json.dumps({"code": 504, "message": "a message could not be read", "at": 1.8e9})
    return SimpleNamespace(alarmed=deque([body] * number), settings=SimpleNamespace(name="s1", lectern_lang="en"))


def test_a_prefect_that_takes_no_events_in_time_gets_them_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile incidents are followed up."""
    monkeypatch.setattr(alarms, "PASS_ON_S", 0.1)
    host, began = raised(3), time.monotonic()
    asyncio.run(alarms._emit(host, cast("Any", Slow(60))))
    assert time.monotonic() - began < 30
    assert len(host.alarmed) == 3
    quick = Slow(0)
    asyncio.run(alarms._emit(host, cast("Any", quick)))
    assert (quick.taken, len(host.alarmed)) == ([3], 0)


def test_thousands_of_alarms_are_passed_on_in_portions_that_prefect_can_take() -> None:
    host, quick = raised(alarms.PORTION + 1), Slow(0)
    for left in (1, 0):
        asyncio.run(alarms._emit(host, cast("Any", quick)))
        assert len(host.alarmed) == left
    assert quick.taken == [alarms.PORTION, 1]


def test_an_alarm_that_prefect_refuses_or_nobody_can_read_holds_up_no_other() -> None:
    class Refusing(Slow):
        async def request(self, _method: str, path: str, *, json: list[Any]) -> None:
            if any("odd" in one["payload"]["message"] for one in json):
                request = httpx.Request("POST", f"http://prefect/api{path}")
                raise httpx.HTTPStatusError("odd", request=request, response=httpx.Response(422, request=request))
            self.taken.append(len(json))

    host, server = raised(3), Refusing(0)
    host.alarmed += ['{"code": 504, "message": "odd", "at": 1.8e9}', "no JSON", '{"message": "without a time"}']
    asyncio.run(alarms._emit(host, cast("Any", server)))
    assert (server.taken, len(host.alarmed)) == ([1, 1, 1], 0)


@pytest.mark.parametrize("status", [401, 403, 429])
def test_alarms_wait_for_a_prefect_that_takes_nothing_of_ours(status: int) -> None:
    """A password that was changed there first, say: what is refused is not these alarms, and they lose nothing."""

    class Shut(Slow):
        async def request(self, _method: str, path: str, *, json: list[Any]) -> None:
            self.taken.append(len(json))
            request = httpx.Request("POST", f"http://prefect/api{path}")
            raise httpx.HTTPStatusError("shut", request=request, response=httpx.Response(status, request=request))

    host, shut, open_ = raised(3), Shut(0), Slow(0)
    asyncio.run(alarms._emit(host, cast("Any", shut)))
    assert (shut.taken, len(host.alarmed)) == ([3], 3)
    asyncio.run(alarms._emit(host, cast("Any", open_)))
    assert (open_.taken, len(host.alarmed)) == ([3], 0)


def test_an_alarm_that_comes_while_others_are_passed_on_is_passed_on_next() -> None:
    """Also where the newest pushes the oldest out: what was not sent is not taken for sent."""
    host = raised(0)
    host.alarmed = deque((json.dumps({"code": 504, "message": f"{n}", "at": 1.8e9}) for n in range(3)), maxlen=3)

    class Meanwhile(Slow):
        async def request(self, _method: str, _path: str, *, json: list[object]) -> None:
            host.alarmed.append('{"code": 504, "message": "newer", "at": 1.8e9}')

    asyncio.run(alarms._emit(host, cast("Any", Meanwhile(0))))
    assert ["newer" in body for body in host.alarmed] == [True]
