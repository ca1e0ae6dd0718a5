"""What copies of databases of either kind have in common: what is known of a copy, and how a row becomes JSON."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

Row = dict[str, Any]
"""A row of any table: its values by column, in types that JSON can hold."""


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


def jsonable(value: object) -> object:
    """*value* in a type that JSON can hold; bytes become ``{"base64": …}``."""
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
