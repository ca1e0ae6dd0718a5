"""What the tests of renaming Redis keys share."""

from typing import Any

import redis

from lectern.redis.rename import Rule
from lectern.states import Resolution

WAITING = ("waiting:{record_id}:{resolution}", "{record_id}_{resolution}")
CLASSES = ("class/{class_id}", "order:{class_id}:[of*2019?]")
LECTERN = "from lectern.cli import main; main()"


def new_name(rule: Rule, name: bytes) -> bytes | None:
    """The new name of *name*, or None if it does not fit the rule."""
    values = rule.old.values(name)
    return None if values is None else rule.new.name(**values).encode()


def names_of(client: redis.Redis) -> set[bytes]:
    return set(client.scan_iter(count=1000))


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Every key, its value and when it expires, as Redis itself writes them down."""
    found: dict[bytes, bytes] = {}
    for name in client.scan_iter(count=1000):
        expires: Any = client.pexpiretime(name)
        value: Any = client.dump(name)
        found[name] = f"{expires} ".encode() + value
    return found


def fill(client: redis.Redis, number: int) -> set[bytes]:
    """So many waiting lists under their old names."""
    names = {f"waiting:{at}:{list(Resolution)[at % 4]}".encode() for at in range(number)}
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.rpush(name, b"c-of-" + name)
        pipe.execute()
    return names
