"""Puts together what several hosts know of a class, before its account is given."""

from collections.abc import Mapping
from dataclasses import replace

from lectern import words
from lectern.told import Found, Word

NO_REDIS = "Redis does not answer"
"""The reason why no streamer was heard of."""


def joined(teacher: Found | None, streamer: Found | None) -> Found:
    """What a host knows of a class as a teacher, as a streamer, or as both; at least one of the two is given."""
    if teacher is None or streamer is None:
        known = teacher or streamer
        assert known is not None  # the caller has looked into at least one of the databases
        return known
    events, booked, cited = (*teacher.events, *streamer.events), teacher.booked, streamer.cited
    is_here = cited is not None and (booked is None or booked.streamer == streamer.streamer)
    if not is_here:
        since = teacher.kept_since if teacher.kept_since is not None else streamer.kept_since
        return replace(teacher, events=events, kept_since=since)
    alarms = tuple(dict.fromkeys((*teacher.alarms, *streamer.alarms)))
    known = replace(teacher, cited=cited, streamer=streamer.streamer, sending=streamer.sending, check=streamer.check)
    known = replace(known, dead_air=streamer.dead_air)
    return replace(known, alarms=alarms, as_run=teacher.as_run or streamer.as_run, events=events)


def with_word(found: Found, said: Mapping[str, Word] | None) -> Found:
    """*found* with the last heartbeat of the class's streamer; the streamer's own rows, if they are here, come first.

    *said* are the last heartbeats by streamer; None if Redis does not answer.
    """
    name = found.streamer or (found.booked.streamer if found.booked else None)
    if name is None:
        return found
    if said is None:
        return found if found.cited is not None else replace(found, unheard=NO_REDIS)
    word = said.get(name)
    if word is None or word.silent_s is not None:
        silent = f"has been silent for {words.span(word.silent_s or 0)}" if word else "has said nothing yet"
        return replace(found, unheard=f"{name} {silent}")
    if found.cited is not None:
        return found
    alarms = [one for one in word.alarms if found.class_id in one.classes]
    known = replace(found, sending=word.sendings.get(found.class_id), alarms=(*found.alarms, *alarms))
    return replace(known, check=word.checks.get(found.class_id), dead_air=word.dead_air.get(found.class_id, ""))
