"""The Redis of a rollout: the old program's keys get their new names, and back."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from lectern.effects.redis import rekey
from lectern.effects.redis.rekey import Renamed, Rule
from lectern.errors import CallAPerson
from lectern.rollout.wanted import Wanted


@contextmanager
def opened(wanted: Wanted) -> Iterator[redis.Redis]:
    """A client, closed at the end."""
    client = rekey.opened(wanted.redis_url)
    try:
        yield client
    finally:
        client.close()


def refuse_silence(wanted: Wanted) -> None:
    """Raise TryAgain or Misuse, in words, where Redis does not answer."""
    with opened(wanted) as client, rekey.in_words(lambda: "Nothing was changed. Start it, or correct redis_url."):
        client.ping()


def rules(wanted: Wanted) -> list[Rule]:
    """The inventory's rules, read; raises Misuse where one is none."""
    return [Rule.parse(rule.old, rule.new) for rule in wanted.rekey]


def rename(wanted: Wanted, *, dry_run: bool = False) -> tuple[int, list[str]]:
    """Give the old keys their new names; returns how many got one, and a sentence.

    Raises CallAPerson where new names are taken.
    """
    if not wanted.rekey:
        return 0, []
    with opened(wanted) as client:
        done = rekey.renamed(
            client, rules(wanted), dry_run=dry_run, journal=None if dry_run else wanted.backup_dir / "keys.tsv"
        )
    if done.clash_count:
        raise CallAPerson(f"{_clashes(done)} Look at both keys, delete the one that is wrong, then run this again.")
    return done.matched if dry_run else done.renamed, [f"{done.lines()[0]}."]


def rename_back(wanted: Wanted) -> list[str]:
    """Give all keys their old names back, also those that were made since; says which could not."""
    if not wanted.rekey:
        return []
    with opened(wanted) as client:
        done = rekey.renamed(client, [rule.inverse for rule in reversed(rules(wanted))])
    said = [f"{done.lines()[0]}, to their old names."]
    return [*said, _clashes(done)] if done.clash_count else said


def _clashes(done: Renamed) -> str:
    return f"{done.clash_count} keys keep their name, as the other is taken: {'; '.join(done.lines()[1:6])}."
