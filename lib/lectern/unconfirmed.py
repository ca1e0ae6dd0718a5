"""A cancel that its streamer has not confirmed yet, and when it is sent again."""

from dataclasses import dataclass

TOLD_AGAIN_S = 60.0
TOLD_AGAIN_WITHIN_S = 3600.0
"""Least and most seconds until a cancel is sent again; in between, the pause is as long as it has waited so far."""


@dataclass(frozen=True)
class Unconfirmed:
    """A class that *streamer* was told to release but has not confirmed; times are epoch seconds."""

    class_id: str
    streamer: str
    cancelled_at: float
    told_at: float

    @property
    def told_again_at(self) -> float:
        """When to tell the streamer again if it has not confirmed by then (epoch seconds)."""
        return self.told_at + min(max(self.told_at - self.cancelled_at, TOLD_AGAIN_S), TOLD_AGAIN_WITHIN_S)
