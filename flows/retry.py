"""Which failures of a task are tried again: passing trouble is, a no is final."""

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from lectern.errors import TryAgain


def passing(_task: "Task[..., object]", _run: TaskRun, state: "State[object]") -> bool:
    """For ``retry_condition_fn``: whether the task ended with TryAgain."""
    return isinstance(getattr(state.data, "exception", state.data), TryAgain)
