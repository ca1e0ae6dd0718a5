"""A Prefect worker that executes the runs of its queue inside its own process."""

import os
from typing import Any

import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from flows.resident.runs import ResidentRuns


class ResidentResult(BaseWorkerResult):
    """How a run in this process ended; the engine has told the server already."""


class ResidentWorker(BaseWorker[BaseJobConfiguration, BaseVariables, ResidentResult]):
    """Polls its queue for retries, quick runs and schedules, and executes them inside this process."""

    type = "resident"
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Executes runs inside lectern's resident process."
    _display_name = "lectern resident"

    def __init__(self, runs: ResidentRuns, **options: Any) -> None:  # noqa: ANN401 (BaseWorker's own options)
        super().__init__(**options)
        self._runs = runs

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Execute what is due.

        There is no infrastructure to make ready, so none of the ten calls that a stock worker makes for it.
        """
        due = await self._get_scheduled_flow_runs()
        for one in due:
            self._runs.take(one.flow_run)
        return [one.flow_run for one in due]

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ResidentResult:
        """Execute one run as an asyncio task of this process."""
        if task_status is not None:
            task_status.started(os.getpid())
        await self._runs.execute(flow_run)
        return ResidentResult(identifier=str(os.getpid()), status_code=0)
