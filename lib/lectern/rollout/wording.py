"""How the rollout's sentences name things: any file name readably, any number of things within a line."""

import os
import time
from collections.abc import Iterable

MOST = 5
"""Greatest number of things of one kind that a sentence names."""

_ESCAPED = {"'": "\\'"}


def shown(name: str | os.PathLike[str]) -> str:
    r"""*name* in quotes; what cannot be read is written as ``\n`` or ``\xff``."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "'" + "".join(_ESCAPED.get(c) or (c if c.isprintable() else ascii(c)[1:-1]) for c in text) + "'"


def some(things: Iterable[str]) -> str:
    """The first of *things*, and how many more there are."""
    named = list(things)
    return f"{', '.join(named[:MOST])} and {len(named) - MOST} more" if len(named) > MOST else ", ".join(named)


def at(seconds: float) -> str:
    """Epoch seconds for people, in the host's local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
