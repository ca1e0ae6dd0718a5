"""Backups of a host or a database: made, proved, archived, copied away, restored; and what copies have in common."""

from pydantic import BaseModel, ConfigDict


class Copy(BaseModel):
    """A proved copy: its size, its SHA-256, and the rows of each table."""

    model_config = ConfigDict(frozen=True)

    file: str
    size_bytes: int
    sha256: str
    rows: dict[str, int]


def quoted(name: str) -> str:
    """*name* as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
