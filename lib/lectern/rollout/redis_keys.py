"""Redis in a rollout: renames the old program's keys to their new names, and back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

import redis

from lectern.errors import CallAPerson
from lectern.i18n import Text, joined, msgid
from lectern.redis import rename as redis_rename
from lectern.redis.key_patterns import Pattern
from lectern.redis.rename import Rule
from lectern.rollout import files
from lectern.rollout.result import punctuated
from lectern.rollout.spec import Spec

EARLIER = "keys-before.txt"
"""The file, in the backup, of the keys that had new names before the first rename."""
SLICE = 200
"""Number of keys that are renamed, or of classes that are looked at, together: each booking can have 64 KiB."""


@contextmanager
def opened(wanted: Spec, progress: Callable[[], str] = str) -> Iterator[redis.Redis]:
    """A Redis client, which is closed at the end; its errors are raised in words, with those of *progress*."""
    client = redis_rename.opened(wanted.redis_url)
    with closing(client), redis_rename.in_words(progress):
        yield client


def slices_of(client: redis.Redis, pattern: Pattern) -> Iterator[list[tuple[bytes, dict[str, str]]]]:
    """The keys that match, with the values of their fields, in slices of at most SLICE."""
    scanned = ((name, pattern.values(name)) for name in client.scan_iter(match=pattern.glob, count=1000))
    fitting = ((name, values) for name, values in scanned if values is not None)
    while keys := list(islice(fitting, SLICE)):
        yield keys


def rules(wanted: Spec) -> list[Rule]:
    """The inventory's rules, parsed; raises Misuse if one is invalid."""
    return [Rule.parse(rule.old, rule.new) for rule in wanted.rekey]


def rename(wanted: Spec, *, dry_run: bool = False) -> tuple[int, list[str]]:
    """Give the old keys their new names; returns how many got one, and sentences about it.

    Raises CallAPerson if new names are taken.
    """
    if not wanted.rekey:
        return 0, []
    with opened(wanted, lambda: Text("Nothing was renamed.")) as client:
        sentences = [] if dry_run else _noted_earlier(wanted, client)
        done = redis_rename.renamed(client, rules(wanted), dry_run=dry_run)
    if done.clash_count:
        clashes = _clashes(done.clash_count, done.lines()[1:6])
        raise CallAPerson(
            "{clashes} Look at both keys, delete the one that is wrong, then run this again.", clashes=clashes
        )
    return done.matched if dry_run else done.renamed, [done.lines()[0], *sentences]


def _noted_earlier(wanted: Spec, client: redis.Redis) -> list[str]:
    """Note, before the first rename, which keys have new names already; returns a sentence if any has.

    Those keys are not this rollout's, so a rollback leaves them alone.
    """
    file = wanted.backup_dir / EARLIER
    if file.exists():
        return []  # a resumed window: by now, it may have renamed some keys itself
    names = {name for rule in rules(wanted) for keys in slices_of(client, rule.new) for name, _ in keys}
    files.write(file, b"".join(b"%s\n" % name for name in sorted(names)), files.PRIVATE)
    text = msgid("Keys that had such names before, and keep them in a rollback: {n:,}.")
    return [Text(text, n=len(names))] if names else []


def rename_back(wanted: Spec) -> list[str]:
    """Give all keys their old names, also keys made since the rollout; returns sentences, also about those that failed.

    Keys that had a new name before the rollout keep it. Safe to repeat: if it is killed, the next call goes on.
    """
    file = wanted.backup_dir / EARLIER
    if not wanted.rekey or not file.exists():
        return []  # the window renamed nothing
    earlier, number, clashes = frozenset(file.read_bytes().splitlines()), 0, list[str]()
    with opened(wanted, lambda: Text("{sentence} so far.", sentence=_back(number))) as client:
        for rule in reversed(rules(wanted)):
            for keys in slices_of(client, rule.new):
                pairs = [(name, rule.old.name(**values).encode()) for name, values in keys if name not in earlier]
                answers = _renamed(client, pairs)
                number += answers.count(1)
                clashes += [
                    Text("{new} stays as it is, {old} is there already", new=new.decode(), old=old.decode())
                    for (new, old), answer in zip(pairs, answers, strict=True)
                    if answer == 0
                ]
    return punctuated([_back(number)]) + ([_clashes(len(clashes), clashes[:5])] if clashes else [])


def _renamed(client: redis.Redis, pairs: Sequence[tuple[bytes, bytes]]) -> list[int | None]:
    """Rename each pair's first to its second: 1 if done, 0 if the second is taken, None if the first does not exist."""
    with client.pipeline(transaction=False) as pipe:
        for name, wanted in pairs:
            pipe.renamenx(name, wanted)
        answers = pipe.execute(raise_on_error=False)
    for reply in answers:
        if isinstance(reply, Exception) and "no such key" not in str(reply):
            raise reply
    return [None if isinstance(reply, Exception) else int(reply) for reply in answers]


def _clashes(number: int, first: Sequence[str]) -> str:
    return Text.many(
        "{n:,} key keeps its name, because the other is taken: {first}.",
        "{n:,} keys keep their name, because the other is taken: {first}.",
        n=number,
        first=joined(first),
    )


def _back(number: int) -> str:
    return Text.many("{n:,} key got the old name back", "{n:,} keys got the old name back", n=number)
