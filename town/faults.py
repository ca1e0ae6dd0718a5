"""What can be made to go wrong with the answers of the demo's origin."""

import asyncio
import dataclasses
from fnmatch import fnmatchcase

_HELD_S = 0.02


@dataclasses.dataclass
class Fault:
    """What goes wrong with the requests whose path matches the glob *path*."""

    path: str
    method: str | None = None  # None: any
    times: int | None = None  # number of requests that it hits; None: all until it is cleared
    status: int | None = None  # answered at once, with this
    delay_s: float = 0.0  # before the answer
    truncate_bytes: int | None = None  # the full length is announced, and the connection closed after these bytes
    length_lie: int = 0  # added to the Content-Length that is announced
    held: bool = False  # stops after the first bytes of the answer, or before the answer to a PUT, until it is let go

    async def let_go(self) -> None:
        """Return when nothing is held any more."""
        while self.held:  # noqa: ASYNC110 (set by whoever has the fault, in another thread)
            await asyncio.sleep(_HELD_S)


class Faults:
    """The faults that are switched on; of several that match a request, the oldest is used."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Switch *fault* on."""
        self._faults.append(fault)
        return fault

    def clear(self, *some: Fault) -> None:
        """Switch *some* faults off, or all, and let go what they hold."""
        for fault in some or tuple(self._faults):
            fault.held = False
            self._faults.remove(fault)

    def take(self, method: str, path: str) -> Fault:
        """The fault for a request, used up by one; a fault without any fault in it if none matches."""
        for fault in self._faults:
            matches = fnmatchcase(path.lstrip("/"), fault.path.lstrip("/")) and fault.method in (None, method)
            if not matches or fault.times == 0:
                continue
            if fault.times is not None:
                fault.times -= 1
            return fault
        return Fault(path)
