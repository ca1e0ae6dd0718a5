"""The host's disk: whether it cannot be written, what is free on it, and which proved backups lie there."""

import errno
import json
import math
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


MANIFEST = "manifest.json"


def backups(folder: Path, name: str) -> tuple[dict[Path, dict[str, object]], list[Path]]:
    """The manifests of the finished backups of *name*, the newest first, and the backups whose manifest is damaged.

    Raises OSError if the folder cannot be read.
    """
    found: dict[Path, dict[str, object]] = {}
    damaged: list[Path] = []
    for one in sorted(one for one in folder.iterdir() if one.name.startswith(f"{name}-")):
        try:
            told = json.loads((one / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):  # the former of one that another user has made by hand
            told = None
        if not isinstance(told, dict):
            damaged.append(one)
        elif told.get("name") == name:
            found[one] = told
    return dict(sorted(found.items(), key=lambda item: _seconds(item[1], "made_at"), reverse=True)), damaged


def backup_ages_s(folder: Path, name: str, now: float) -> dict[str, float]:
    """Seconds since the newest backup of *name* was made ("here"), and since one was copied off the host ("away").

    Infinite if there is none, or the folder cannot be read; empty if this host makes no backups, and without "away" if
    no copy of them is wanted. A time that lies ahead was noted before the clock was set back: so far off it is.
    """
    if not folder.exists():
        return {}
    try:
        told = list(backups(folder, name)[0].values())
    except OSError:
        return {"here": math.inf}
    ages = {"here": min((abs(now - _seconds(one, "made_at")) for one in told), default=math.inf)}
    away = [abs(now - _seconds(one, "copied_at")) for one in told if one.get("copied_at")]
    is_wanted = bool(away) or any(one.get("copy_to") for one in told)
    return ages | ({"away": min(away, default=math.inf)} if is_wanted else {})


def _seconds(told: dict[str, object], field: str) -> float:
    value = told.get(field)
    return float(value) if isinstance(value, int | float) else 0.0
