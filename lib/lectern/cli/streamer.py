"""``lectern cache`` and ``drain``: what a streamer has cached; its classes are moved away before work on its host."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from lectern import formatting
from lectern.cli import readers
from lectern.cli.options import Json, me, on_bus, say
from lectern.db import airings, cache, cache_check, events, forecast, leases
from lectern.db.engine import open_database, opened, writing
from lectern.errors import LecternError
from lectern.i18n import Text
from lectern.model.facts import Event
from lectern.settings import StreamerSettings
from lectern.storage import cache_dir

app = typer.Typer()
cached = typer.Typer(no_args_is_help=True, help="A streamer's cache.")
app.add_typer(cached, name="cache")
LOOK_S = 2.0
EMPTY_LOOKS = 3
"""Number of looks in a row that find nothing, after which the drain is over: a class may be on its way here that was
placed just before its teacher heard of the drain."""

WITHIN_S = 4 * 3600
NAMED = 5
"""Number of classes of each kind that a line names."""
END = "lectern drain --off"


@dataclass(frozen=True)
class Left:
    """What a streamer still has to air: class_ids by their start; *last_end* is epoch seconds."""

    on_air: list[str]
    waiting: list[str]
    last_end: float | None
    others: list[str] | None  # the other streamers that are alive; None if Redis does not answer
    is_open: bool = False  # it may still get classes, because no heartbeat has said that it is drained

    @property
    def is_empty(self) -> bool:
        """Whether no class is left."""
        return not self.on_air and not self.waiting

    @property
    def is_over(self) -> bool:
        """Whether no class is left, and none comes any more."""
        return self.is_empty and not self.is_open

    def line(self) -> str:
        """What is left, as a line for people."""
        if self.is_empty:
            more = "" if self.is_over else " No heartbeat has said yet that it is drained, so a class may still come."
            return f"Nothing waits here, and nothing is on air.{more}"
        kinds = [("on air", self.on_air), ("waiting", self.waiting)]
        said = [f"{len(ids)} {kind} {_named(ids)}" for kind, ids in kinds if ids]
        assert self.last_end is not None  # something is left, so a class has an end
        why = ""
        if self.waiting and self.others is None:
            why = " Redis does not answer, so nothing is moved."
        elif self.waiting and not self.others:
            why = " No other streamer is alive, so what waits stays here."
        told = f"{formatting.counted(len(self.on_air) + len(self.waiting), 'class', 'classes')} left: {', '.join(said)}"
        return f"{told}; the last one ends at {formatting.when(self.last_end, time.time())}.{why}"


@app.command()
def drain(
    off: Annotated[bool, typer.Option("--off", help="End it: the streamer gets classes again.")] = False,
    within: Annotated[int, typer.Option(min=0, help="Seconds to wait for; 0 drains and does not wait.")] = WITHIN_S,
    as_json: Json = False,
) -> None:
    """Move this streamer's waiting classes to others, and wait until the last one on air has ended.

    No class comes here until `lectern drain --off`. Exit code 1 if something is left when the time is over, or no
    heartbeat has told of the drain by then; Ctrl-C ends the waiting, not the drain.
    """
    place = _by_its_name(readers.streamer())  # raises Misuse if there is no database
    settings = place.settings
    _note(settings, None if off else time.time())
    if off:
        say(as_json, {"drained": False}, [f"{settings.name} is not drained any more: it gets classes again."])
        return
    try:
        left = _waited(place, time.monotonic() + within, quiet=as_json)
    except KeyboardInterrupt:
        print(f"\n{_after(settings.name)}")
        raise typer.Exit(130) from None
    fields = {"drained": True, "empty": left.is_over, "on_air": left.on_air, "waiting": left.waiting}
    say(as_json, {**fields, "last_end": left.last_end, "others": left.others}, [_after(settings.name)])
    raise typer.Exit(0 if left.is_over else 1)


def _by_its_name(place: readers.Place[StreamerSettings]) -> readers.Place[StreamerSettings]:
    """*place* under the name by which others know its program: that of `serve --name` is in no settings."""
    with place.looking() as connection:
        name = leases.last_name(connection) or place.settings.name
    return replace(place, settings=place.settings.model_copy(update={"streamer_name": name}))


def _after(name: str) -> str:
    return f"{name} is drained, and gets no class until you type: {END}"


def _note(settings: StreamerSettings, since: float | None) -> None:
    with opened(settings.database_url) as engine, writing(engine, settings.role) as connection:
        leases.drain(connection, settings.name, since, me())
        done = Event(Text("drain ends") if since is None else Text("drained"), detail=Text("by {who}", who=me()))
        events.note(connection, settings.name, [done], time.time())


def _waited(place: readers.Place[StreamerSettings], until: float, *, quiet: bool) -> Left:
    """Wait until nothing is left or comes, or *until* (time.monotonic); prints what is left, and each change of it."""
    said, empty = "", 0
    while True:
        left = _left(place)
        if not quiet and (line := left.line()) != said:
            print(line, flush=True)
            said = line
        empty = empty + 1 if left.is_over else 0
        if empty == EMPTY_LOOKS or time.monotonic() >= until:
            return left
        time.sleep(LOOK_S)


def _left(place: readers.Place[StreamerSettings]) -> Left:
    now, own = time.time(), place.settings
    with place.looking() as connection:
        live = [one for one in airings.live(connection) if one.end_time > now]
    on_air = [one.class_id for one in live if one.start_time <= now]
    waiting = [one.class_id for one in live if one.start_time > now]
    others: list[str] | None = None
    is_open = True  # while Redis is away, no teacher hears of the drain
    with suppress(LecternError):
        alive = on_bus(own, lambda bus: bus.alive(own.streamers_key, own.silent_after_s), readers.LOOK_S)
        others = [name for name in alive if name != own.name]
        is_open = own.name in alive
    return Left(on_air, waiting, max((one.end_time for one in live), default=None), others, is_open)


def _named(class_ids: list[str]) -> str:
    more = f" and {len(class_ids) - NAMED:,} more" if len(class_ids) > NAMED else ""
    return f"({', '.join(class_ids[:NAMED])}{more})"


@cached.command("ls")
def cache_ls(as_json: Json = False) -> None:
    """What is cached: size (of a download, how much has come), citations, state, last use; then the sums and bounds."""
    place = readers.streamer()
    settings = place.settings
    with place.looking() as connection:
        rows = cache_check.cached(connection)
        coming = forecast.downloads(connection, settings)
        used = cache.used(connection, settings.video_root)
    if as_json:
        print(json.dumps(rows))
        return
    table = [("rendition", "state", "size", "needed by", "last used")]
    for row in rows:
        needed = formatting.counted(row["num_cite"], "class", "classes") if row["num_cite"] else ""
        size = formatting.size(row["size_bytes"])
        if row["stem"] in coming:
            size = f"{formatting.size(coming[row['stem']].came_bytes)} of {size}"
        table.append((row["stem"], str(row["state"]), size, needed, row["last_used"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(f"{text:{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
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


@cached.command("evict")
def cache_evict(stem: str) -> None:
    """Delete one rendition that no class needs."""
    settings = StreamerSettings.load()
    readers.streamer()  # raises Misuse if there is no database
    size = cache_check.evict(open_database(settings.database_url), settings, stem)
    print(f"{stem}: evicted, {formatting.size(size)} are free")


@cached.command("reconcile")
def cache_reconcile(as_json: Json = False) -> None:
    """Say what the disk and the database disagree about; the start of `lectern serve streamer` repairs it."""
    place = readers.streamer()
    with place.looking() as connection:
        found = cache_check.differences_in_words(connection, place.settings.video_root)
    say(as_json, {"differences": found}, found or ["The disk and the database agree."])
