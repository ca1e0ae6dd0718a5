"""Log lines: one an event, the thing's id first, no secret of a URL in them; JSON on request."""

import json
import logging
import sys
from typing import Literal

from lectern.shown import masked


def without_secrets(record: logging.LogRecord) -> bool:
    """A filter that drops no line, but writes each URL in it, and in its traceback, as people may see it."""
    said = record.getMessage()
    if "://" in said:
        record.msg, record.args = masked(said), None
    if record.exc_info and not record.exc_text:
        record.exc_text = masked(logging.Formatter().formatException(record.exc_info))
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
    """Write the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(without_secrets)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("lectern")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
