"""Which streamers can take classes; while that cannot be known, messages wait."""

import time

from flows.host import Teacher
from lectern.effects.redis.address import asking
from lectern.effects.rows import leases
from lectern.errors import TryAgain

ASKED_S = 5.0
"""Seconds that Redis has to answer: not longer, because another teacher could handle the messages meanwhile."""

FIRST_STREAMER_S = 300.0
"""Seconds for which a teacher that never had a streamer keeps bookings: a rollout starts streamers after it."""

BEATS = 2
"""Number of heartbeat intervals after which every living streamer has been heard, once Redis is there (again)."""

SEEN_S = 1.0
"""Seconds for which the list of living streamers is reused; their heartbeats are farther apart than that."""


async def living(host: Teacher) -> list[str]:
    """The streamers that were heard of lately, by name.

    Raises TryAgain if that cannot be known: while Redis is away or takes no writes, in the first seconds after it came
    back, while the last streamer is being started again, and for some minutes if there was never a streamer yet.
    """
    settings, now = host.settings, time.monotonic()
    seen_at, found = host.seen
    if not found or now - seen_at > SEEN_S:
        try:
            async with asking(ASKED_S):
                found = tuple(await host.bus.alive(settings.streamers_key, settings.streamer_lost_after_s))
        except TryAgain as error:
            host.redis_away = True
            raise TryAgain(f"the streamers' heartbeats cannot be read: {error.message}") from error.__cause__
        host.seen = now, found
    # A Redis that was started anew has forgotten the beats; we have not.
    alive = sorted({*found, *host.living_now()})
    listened_s = now - host.listens_since
    if not alive and listened_s < BEATS * settings.heartbeat_interval_s:
        raise TryAgain("no streamer was heard of yet")
    since = time.monotonic() - settings.streamer_lost_after_s
    if not alive and (leaving := sorted(name for name, at in host.left.items() if at > since)):
        raise TryAgain(f"{', '.join(leaving)} has just been stopped, and may be about to be started again")
    if not alive and host.redis_away:
        raise TryAgain("Redis takes no heartbeats, so no streamer can be heard of")
    if not alive:
        await _refuse_to_know(host, listened_s)
    return alive


async def _refuse_to_know(host: Teacher, listened_s: float) -> None:
    """Raise TryAgain while a streamer is about to be heard of for the first time."""
    holders = await host.look(leases.holders)
    if not holders and listened_s < FIRST_STREAMER_S:
        raise TryAgain("no streamer of this release has ever been leased here; is one about to be rolled out?")
    now, lately_s = time.time(), host.settings.streamer_lost_after_s
    leased = [one for one in holders.values() if one.session is not None]
    if new := sorted(one.name for one in leased if one.granted_s_ago(now) < lately_s):
        raise TryAgain(f"{', '.join(new)} has just been given its lease, and was not heard of yet")
