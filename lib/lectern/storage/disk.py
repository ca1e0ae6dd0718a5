"""Tells a disk that cannot be written (full, over its quota, read-only, broken) from other trouble."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from lectern.errors import DISK_FULL, Refuse

KEEP_FREE_BYTES = 64 * 1024**2
"""Bytes that are kept free for the database and the logs: without them, not even a refusal could be recorded."""

_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_SQLITE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")


def takes_nothing(error: BaseException) -> bool:
    """Whether *error*, of the system or of a database, says that the disk cannot be written."""
    if isinstance(error, BaseExceptionGroup):
        return any(takes_nothing(one) for one in error.exceptions)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorname", "").startswith(_SQLITE)
    return isinstance(cause, OSError) and cause.errno in _ERRORS


def free_bytes(root: Path) -> int:
    """The bytes that may still be written below *root*; 0 if it is read-only."""
    if not os.access(root, os.W_OK):
        return 0
    return max(0, shutil.disk_usage(root).free - KEEP_FREE_BYTES)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Raise Refuse with 316 if the disk cannot be written; other errors stay as they are."""
    try:
        yield
    except OSError as error:
        if takes_nothing(error):
            raise Refuse(
                "{what}: cannot be written: {strerror}", DISK_FULL, what=what, strerror=error.strerror
            ) from error
        raise
