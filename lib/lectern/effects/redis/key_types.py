"""Looks whether the keys that a host uses in Redis are of the type that it needs."""

from collections.abc import Mapping

from lectern.commands import PUBLISHED
from lectern.effects.redis.bus import Bus
from lectern.settings import Settings, StreamerSettings


def wanted(settings: Settings) -> Mapping[str, str]:
    """The keys that a host of these *settings* uses, and the type of each."""
    hashes = [settings.streamers_key, f"{settings.streamers_key}:lease", f"{settings.streamers_key}:claims"]
    streams = [settings.alarm_channel, settings.report_stream, settings.dead_letter_stream]
    if isinstance(settings, StreamerSettings):
        streams.append(settings.streamer_stream.format(name=settings.name))
    else:
        streams += [settings.order_result_channel, settings.change_result_channel]
        streams += [getattr(settings, one.comes_by) for one in PUBLISHED.values()]
    return dict.fromkeys(hashes, "hash") | dict.fromkeys(streams, "stream")


async def faults(bus: Bus, settings: Settings) -> list[str]:
    """A sentence for each key of a wrong type, because Redis would refuse what is sent to it."""
    keys = wanted(settings)
    found = await bus.types(list(keys))
    return [
        f"Redis: the key {name} is a {found[name]}, but must be a {kind}: 505 in RUNBOOK.md. Rename it "
        f"(redis-cli RENAMENX {name} {name}.old), or give the setting of that name another value."
        for name, kind in keys.items()
        if found[name] not in {kind, "none"}
    ]
