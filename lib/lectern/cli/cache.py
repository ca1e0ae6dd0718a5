"""``lectern cache``: what a streamer has cached, and within which bounds; one rendition is evicted by hand."""

import json
from typing import Any

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, say
from lectern.db import cache, cache_check
from lectern.db.engine import open_database
from lectern.settings import StreamerSettings
from lectern.storage import cache_dir

app = typer.Typer(no_args_is_help=True, help="A streamer's cache.")


@app.command("ls")
def cache_ls(as_json: Json = False) -> None:
    """What is cached: size, citations, state, last use; then the sums and their bounds."""
    place = readers.streamer()
    settings = place.settings
    with place.looking() as connection:
        rows = cache_check.cached(connection)
        used = cache.used(connection, settings.video_root)
    if as_json:
        print(json.dumps(rows))
        return
    _table(rows)
    pinned = sum(one["num_cite"] > 0 for one in rows if one["state"] in {"ready", "downloading"})
    print(
        f"{used.num:,} of {formatting.counted(settings.max_video_num, 'rendition')} (MAX_VIDEO_NUM), "
        f"{formatting.size(used.size_bytes)} of {formatting.size(settings.max_bytes)} (MAX_VIDEO_SIZE); "
        f"{formatting.counted(pinned, 'rendition')} needed by booked classes"
    )
    aside = cache_dir.quarantined(settings.video_root)
    if aside:
        size = formatting.size(sum(one.size_bytes for one in aside))
        number = formatting.counted(len(aside), "file")
        print(f"quarantine: {number}, {size}, beside the cache, in {settings.video_root}")


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415 (it takes long to load)
    from rich.table import Table  # noqa: PLC0415

    table = Table("rendition", "state", "size", "needed by", "last used")
    for row in rows:
        needed = formatting.counted(row["num_cite"], "class", "classes") if row["num_cite"] else ""
        table.add_row(row["stem"], str(row["state"]), formatting.size(row["size_bytes"]), needed, row["last_used"])
    Console().print(table)


@app.command("evict")
def cache_evict(stem: str) -> None:
    """Delete one rendition that no class needs."""
    settings = StreamerSettings.load()
    readers.streamer()  # raises Misuse if there is no database
    size = cache_check.evict(open_database(settings.database_url), settings, stem)
    print(f"{stem}: evicted, {formatting.size(size)} are free")


@app.command("reconcile")
def cache_reconcile(as_json: Json = False) -> None:
    """Say what the disk and the database disagree about; the start of `lectern serve streamer` repairs it."""
    place = readers.streamer()
    with place.looking() as connection:
        found = cache_check.differences_in_words(connection, place.settings.video_root)
    say(as_json, {"differences": found}, found or ["The disk and the database agree."])
