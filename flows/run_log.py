"""What a host writes into its log while a run is at work is in that run's own log, too, where the UI shows it."""

import logging

from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler


def _of_a_run(_record: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None


def set_up() -> None:
    """Pass the lines of runs on; they are sent in batches by a thread of Prefect's, which waits for nobody."""
    logger = logging.getLogger("lectern")
    if any(isinstance(one, APILogHandler) for one in logger.handlers):
        return
    handler = APILogHandler()
    handler.addFilter(_of_a_run)
    logger.addHandler(handler)
