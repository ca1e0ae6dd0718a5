"""What copies of databases of either kind have in common: a proved copy, checksums, quoted names."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Copy(BaseModel):
    """A proved copy: its size, its SHA-256, and the rows of each table."""

    model_config = ConfigDict(frozen=True)

    file: str
    size_bytes: int
    sha256: str
    rows: dict[str, int]


def sha256(file: Path) -> str:
    """The SHA-256 of all bytes of *file*."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def quoted(name: str) -> str:
    """*name* as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
