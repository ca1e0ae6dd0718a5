"""How many runs of a flow are at work in this process at once."""

import asyncio
from uuid import UUID


class Slots:
    """The runs at work here. Each handles its messages first, and then only tells Prefect how it went."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], UUID | None] = {}  # and the deployment of each
        self._handling: dict[UUID, tuple[asyncio.Future[None], UUID | None]] = {}

    def take(self, run_id: UUID, deployment_id: UUID | None, task: asyncio.Task[None]) -> None:
        """*task* executes a run of this deployment, until it is done."""
        self._tasks[task] = deployment_id
        self._handling[run_id] = asyncio.get_running_loop().create_future(), deployment_id
        task.add_done_callback(self._tasks.pop)
        task.add_done_callback(lambda _: self.tells(run_id))

    def tells(self, run_id: UUID) -> None:
        """From now on the run only tells how it went."""
        found = self._handling.pop(run_id, None)
        if found is not None:
            found[0].set_result(None)

    def tasks(self) -> set[asyncio.Task[None]]:
        """All that is at work."""
        return set(self._tasks)

    async def room(self, deployment_id: UUID | None, at_work: int, telling: int, patience_s: float) -> None:
        """Wait until fewer than *at_work* runs of this deployment are at work, but not for longer than *patience_s*.

        Those that only tell Prefect how they went count, too, but for *telling* of them.
        """
        handling = [over for over, its in self._handling.values() if its == deployment_id]
        all_ = [task for task, its in self._tasks.items() if its == deployment_id]
        if len(all_) >= at_work + telling:
            await asyncio.wait(all_, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        elif len(handling) >= at_work:
            await asyncio.wait(handling, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
