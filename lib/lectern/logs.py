"""Log lines: one an event, the thing's id first, no secret of a URL in them; JSON on request."""

import json
import logging
import sys
from typing import Literal

from lectern.errors import Caught, LecternError
from lectern.urls import redact


def without_secrets(record: logging.LogRecord) -> bool:
    """A filter that drops no line, but removes the secrets from each URL in a line and its traceback."""
    said = ""
    with Caught() as unfit:
        said = record.getMessage()
    if unfit.error is not None:  # the arguments of a library's line do not fit its text; its work goes on
        record.msg, record.args = f"{record.msg} {record.args!r}", None
        said = record.msg
    if "://" in said:
        record.msg, record.args = redact(said), None
    if record.exc_info and not record.exc_text:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "at": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def set_up(form: Literal["text", "json"], level: str) -> None:
    """Write the log to standard error; the handler that passes the lines of runs on to Prefect stays."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(without_secrets)
    handler.addFilter(_expected)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lectern")
    logger.handlers[:] = [handler, *(one for one in logger.handlers if type(one) is not logging.StreamHandler)]
    logger.setLevel(level)
    logger.propagate = False
    _take_over(handler)


def all_alike() -> None:
    """Let the loggers of libraries write to the terminal in our format; call it when they are loaded."""
    ours = [one for one in logging.getLogger("lectern").handlers if type(one) is logging.StreamHandler]
    if ours:
        _take_over(ours[0])


def _take_over(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for logger in [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]:
        streams = [one for one in logger.handlers if isinstance(one, logging.StreamHandler) and one is not handler]
        console = [one for one in streams if one.stream in (sys.stderr, sys.stdout)]
        for one in console:
            logger.removeHandler(one)
        if console and not logger.propagate and handler not in logger.handlers:
            logger.addHandler(handler)
    if handler not in root.handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)  # noqa: FBT003 (its only argument)


def _expected(record: logging.LogRecord) -> bool:
    """A filter that drops the traceback when a library logs a LecternError: the error's own text is enough."""
    if record.exc_info and isinstance(record.exc_info[1], LecternError) and record.name != "lectern":
        record.exc_info = record.exc_text = None
    return True
