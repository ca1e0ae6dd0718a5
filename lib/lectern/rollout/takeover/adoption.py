"""What is said of the classes on the old program's waiting lists."""

from dataclasses import dataclass, field

from lectern.rollout.wording import counted

NAMED = 10
"""At most this many classes that cannot simply wait on have a sentence of their own."""


@dataclass
class Adoption:
    """What becomes, or would become, of the classes on old waiting lists that are not known here yet."""

    waiting: int = 0
    """Classes that wait on here."""
    decided: int = 0
    """Classes whose rendition is not under way, or whose booking has its URL: the booking flow decides them."""
    placed: int = 0
    """Bookings on no list: the old program has placed them already."""
    bounded: int = 0
    """Other transcodings of the old program that got a deadline."""
    named: list[str] = field(default_factory=list)
    """A sentence for each class that cannot simply wait on."""

    @property
    def said(self) -> list[str]:
        """All of it in sentences; none where there is nothing to adopt."""
        said, more = self.named[:NAMED], len(self.named) - NAMED
        if more > 0:
            said.append(f"... and {more} more like these.")
        if self.waiting:
            said.append(f"{counted(self.waiting, 'class', 'classes')} of the old waiting lists wait on here.")
        if self.bounded:
            said.append(f"{counted(self.bounded, 'old transcoding')} without a waiting class got a deadline.")
        if self.placed:
            said.append(
                f"{counted(self.placed, 'booking')} of the old program, not over yet and on no waiting list: "
                f"placed already, and left alone."
            )
        return said
