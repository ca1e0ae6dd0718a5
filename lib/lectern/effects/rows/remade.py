"""A cached rendition that was made a plain FLV file: it has another size, and no sum that its origin knows."""

from pathlib import Path

from sqlalchemy import Connection, update

from lectern.effects.rows import airings, cache
from lectern.effects.rows.tables.streamer import files


def remade(connection: Connection, root: Path, stem: str, size_bytes: int, mtime: float) -> None:
    """Note what the file is now."""
    values = {"size_bytes": size_bytes, "mtime": mtime, "crc64": None, "etag": None}
    connection.execute(update(files).where(files.c.id == stem).values(**values))
    cache.recount(connection, root, airings.citations(connection))
