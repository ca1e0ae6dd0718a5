"""How the rollout's sentences name things: any file name readably, any number of things within a line."""

import os
import time
from collections.abc import Iterable, Sequence
from itertools import islice

MOST = 5
"""Number of things of a kind that one sentence names."""

_ESCAPED = {"'": "\\'"}


def shown(name: str | os.PathLike[str]) -> str:
    r"""*name* in quotes; what cannot be read is written as ``\n`` or ``\xff``."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "'" + "".join(_ESCAPED.get(c) or (c if c.isprintable() else ascii(c)[1:-1]) for c in text) + "'"


def some(things: Sequence[str] | Iterable[str], number: int | None = None) -> str:
    """The first of *things*, and how many more there are; *number* is how many there are in all."""
    if number is None:
        things = list(things)
        number = len(things)
    named = ", ".join(islice(things, MOST))
    return f"{named} and {number - MOST} more" if number > MOST else named


def counted(number: int, one: str, several: str | None = None) -> str:
    """``1 class``, ``2 classes``."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def at(seconds: float) -> str:
    """Epoch seconds for people, in the host's local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
