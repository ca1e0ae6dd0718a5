"""Copies what a host logs while a run is at work into the log of that run in the UI."""

import logging

from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from lectern.logs import all_alike, without_secrets

log = logging.getLogger("lectern")


def _of_a_run(_record: logging.LogRecord) -> bool:
    return FlowRunContext.get() is not None


def _no_crash(record: logging.LogRecord) -> bool:
    """A filter that drops the engine's report of a crash: we end such runs ourselves, for a cancel or at the end."""
    return "Execution was cancelled by the runtime environment" not in record.getMessage()


def _tried_again(details: RetryDetails) -> None:
    """Log a retry with its subject and its reason, both of which the library's own line lacks."""
    log.warning("%s; it is tried again in %.1f s", details.caused_by, details.wait_for)


def set_up() -> None:
    """Pass the lines of runs on to Prefect, whose thread sends them in batches."""
    all_alike()
    set_on_retry_hooks([_tried_again])
    logging.getLogger("prefect.flow_runs").addFilter(_no_crash)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(without_secrets)
    logger = logging.getLogger("lectern")
    if any(isinstance(one, APILogHandler) for one in logger.handlers):
        return
    handler = APILogHandler()
    handler.addFilter(_of_a_run)
    handler.addFilter(without_secrets)
    logger.addHandler(handler)
