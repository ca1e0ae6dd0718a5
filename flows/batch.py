"""What one run did with its messages; a message that cannot be handled holds up none of the others."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy.exc import OperationalError

from flows.host import log
from flows.trouble import words
from lectern.errors import TryAgain

I = TypeVar("I")  # noqa: E741 (an item)
T = TypeVar("T")
BOUND = 20
"""Number of failed items after which the rest is left to a later run: more point to the database, not to the items."""


@dataclass
class Apart(Generic[I, T]):
    """What the portions of a batch came to, and the items that failed, each with the reason."""

    done: list[T] = field(default_factory=list)
    failed: list[tuple[I, str]] = field(default_factory=list)

    def state(self, message: str, came: int) -> State[None]:
        """How the run of *came* messages ends: Failed if one did; a retry does only these again."""
        if not self.failed:
            return Completed(message=message)
        return Failed(message=f"{len(self.failed)} of {came} failed: {self.failed[0][1]}; the others: {message}")


async def apart(
    items: Sequence[I], work: Callable[[Sequence[I]], Awaitable[T]], name: Callable[[I], str] = "inbox {}".format
) -> Apart[I, T]:
    """Do *work* for all *items* in one transaction; if it fails, halve them until the items at fault stand alone.

    A database or a Redis that is away fails the whole: it raises.
    """
    found: Apart[I, T] = Apart()
    waiting = deque([list(items)])
    while waiting:
        some = waiting.popleft()
        try:
            found.done.append(await work(some))
        except (OperationalError, TryAgain):
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, the others are not to wait for it)
            if len(some) > 1 and len(found.failed) < BOUND:
                middle = len(some) // 2
                waiting.extendleft([some[middle:], some[:middle]])
                continue
            why = words(error)
            log.error("%s: not handled: %s", ", ".join(name(one) for one in some[:BOUND]), why)
            found.failed += [(one, why) for one in some]
    return found


PUT_BACK = "PutBack"
"""The name of the state of a run that handled nothing: its messages went back to the inbox."""
