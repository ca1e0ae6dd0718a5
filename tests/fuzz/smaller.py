"""Finds the message that hurts among many, by playing halves of them again to hosts that are new."""

from collections.abc import Callable, Sequence

TRIES = 14


def smaller(indices: Sequence[int], hurts: Callable[[Sequence[int]], bool], tries: int = TRIES) -> list[int]:
    """The fewest of *indices* that still hurt, as far as halves of them and so many *tries* tell."""
    found = list(indices)
    while len(found) > 1 and tries > 0:
        middle = len(found) // 2
        for half in (found[:middle], found[middle:]):
            tries -= 1
            if hurts(half):
                found = half
                break
        else:
            break  # it takes more than one of them
    return found
