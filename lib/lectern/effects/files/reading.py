"""Tells what is wrong with a file from what this process or machine lacks to read it."""

import errno
from pathlib import Path

from lectern.errors import TryAgain

OURS = frozenset({errno.EMFILE, errno.ENFILE})
"""The numbers of the errors that say only that too many other files are open, and nothing of this one."""


def fault(path: Path, error: OSError) -> str:
    """What *error* says of the file *path*; raises TryAgain if it says only that too many other files are open."""
    said = error.strerror or str(error)
    if error.errno in OURS:
        raise TryAgain(f"{path}: cannot be read: {said}") from error
    return said
