"""Notes that a cached rendition was made a plain FLV file: its size changes, and its origin's CRC-64 no longer fits."""

from pathlib import Path

from sqlalchemy import Connection, update

from lectern.effects.rows import airings, cache
from lectern.model.tables.streamer import files


def remade(connection: Connection, root: Path, stem: str, size_bytes: int, mtime: float) -> None:
    """Note the new size and mtime of the file, forget its CRC-64 and ETag, and set the sums of the cache anew."""
    values = {"size_bytes": size_bytes, "mtime": mtime, "crc64": None, "etag": None}
    connection.execute(update(files).where(files.c.id == stem).values(**values))
    cache.recount(connection, root, airings.citations(connection))
