"""What a teacher knows of a streamer that may push: its lease, and whether it is lost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Holder:
    """A streamer that ever held a lease; *session* is None if it was taken. Times are epoch seconds."""

    name: str
    session: str | None
    lease_s: float
    granted_at: float
    lost_at: float | None
    withdrawn_at: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether it has its lease, and was heard of lately."""
        return self.session is not None and self.lost_at is None
