"""Calls the adoption of what the old program left, as part of the window, and its undoing."""

from dataclasses import dataclass, field

from lectern.rollout.wanted import Wanted


@dataclass
class Nothing:
    """What is planned where nothing is."""

    said: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


def planned(_wanted: Wanted) -> Nothing:
    """What would be taken over."""
    return Nothing()


def adopt(_wanted: Wanted) -> list[str]:
    """Take over the old program's bookings and files."""
    return []


def undo_adoption(_wanted: Wanted) -> list[str]:
    """Put the files of a streamer back to where they were."""
    return []
