"""The ways of hosts to their servers, with a gate in each."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

from tests.stage import Gate, Town
from town.ports import HOST

Way = tuple[str, str]
"""From whom to what."""


class Ways:
    """From each of *hosts* to Redis, to Prefect and to the servers at *ports*; open while its block lasts."""

    def __init__(self, town: Town, hosts: Sequence[str], **ports: int) -> None:
        self._town = town
        servers = {"redis": town.redis_port, "prefect": town.prefect_port, **ports}
        self.gates: dict[Way, Gate] = {(who, what): Gate(port) for who in hosts for what, port in servers.items()}

    def __enter__(self) -> Self:
        self.do(Gate.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.do(Gate.go_on)
        self.do(Gate.stop)

    def do(self, what: Callable[[Gate], Coroutine[Any, Any, None]], *which: Way) -> None:
        for one in which or self.gates:
            self._town.background.run(what(self.gates[one]))

    def away(self, *which: Way) -> AbstractContextManager[None]:
        """Meanwhile nothing comes through these."""
        return self._town.away(*(self.gates[one] for one in which))

    def own(self, who: str) -> dict[str, str]:
        """The settings of *who* that lead through its gates."""
        return {
            "REDIS_URL": f"redis://{HOST}:{self.gates[who, 'redis'].port}/0",
            "PREFECT_API_URL": f"http://{HOST}:{self.gates[who, 'prefect'].port}/api",
        }
