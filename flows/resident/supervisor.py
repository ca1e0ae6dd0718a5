"""Runs the services of a host side by side: it restarts one that fails, and the others and what is on air go on."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from flows import failures
from flows.failures import FatalError
from flows.host import Host, log
from lectern.errors import Caught
from lectern.i18n import Text
from lectern.timing import backoff_s

Service = Callable[[], Coroutine[Any, Any, object]]
MOST_S = 3.0  # most seconds until a service that failed begins again: what is published until then, no channel keeps
STEADY_S = 60.0  # seconds of success after which the pause before the next restart is the shortest again
CANCEL_AGAIN_S = 0.5  # seconds until a service that has swallowed its cancel is cancelled once more


class Supervisor:
    """Runs what a host does beside its runs, each service in a task of its own."""

    def __init__(self, host: Host[Any]) -> None:
        self._host = host
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._ending: set[str] = set()
        self.must_end = asyncio.Event()
        self.why: FatalError | None = None  # why this process cannot go on, if a service has raised FatalError

    def begin(self, works: Mapping[Text, Service]) -> None:
        """Run the services *works*, by the names that people read, until `end`."""
        for name, work in works.items():
            self._tasks[name] = asyncio.create_task(self._keep(name, work), name=name)

    async def end(self, names: Collection[str] | None, within_s: float) -> None:
        """Cancel the services of these *names*, or all, until they have ended, for at most *within_s* seconds."""
        names = self._tasks.keys() if names is None else names
        self._ending |= set(names)
        left = {self._tasks[name] for name in names if name in self._tasks}
        until = time.monotonic() + within_s
        while left and time.monotonic() < until:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for task in left:
            log.error("%s: does not end", task.get_name())

    async def _keep(self, name: str, work: Service) -> object:
        tries, since = 0, 0.0
        while True:
            began = time.monotonic()
            steady = asyncio.get_running_loop().call_later(STEADY_S, self._host.watchdog.works, name)
            pause_s, failed = backoff_s(0), Caught(FatalError)
            try:
                with failed:
                    done = await work()
                    self._host.watchdog.works(name)
                    return done
                await asyncio.sleep(0)  # a cancel that a library has left behind comes here, and cuts off no report
            except FatalError as error:
                self.why = self.why or error
                self.must_end.set()
                return None
            except asyncio.CancelledError:
                if name in self._ending:
                    raise
                task = asyncio.current_task()
                while task is not None and task.cancelling():  # a library's leftover cancel
                    task.uncancel()
                log.error("%s: was cancelled by nobody; it begins again", name, exc_info=failed.error)
            else:
                now = time.monotonic()
                tries = 0 if now - began > STEADY_S else tries + 1
                since = now if tries <= 1 else since
                self._host.watchdog.fails(name, since)
                pause_s = backoff_s(tries, most_s=MOST_S)
                assert failed.error is not None
                await failures.report(self._host, name, failed.error, pause_s, lasts=now - since > STEADY_S)
            finally:
                steady.cancel()
            if name in self._ending:  # it swallowed its cancel, and failed then
                return None
            await asyncio.sleep(pause_s)
