"""States and the moves between them, as tables; a move that is not in its table is an error."""

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import Literal, TypeVar

from lectern.errors import ForbiddenMove
from lectern.i18n import msgid

Role = Literal["teacher", "streamer"]
"""The role of a host."""


class Resolution(StrEnum):
    """A wanted picture size, smallest first; bookings of the old kind name none (``video_resolution`` on the wire)."""

    P240 = "240P"
    P480 = "480P"
    P720 = "720P"
    P1080 = "1080P"

    @property
    def box(self) -> tuple[int, int]:
        """Width and height in pixels that its picture is fitted into."""
        return _BOXES[self]


_BOXES = {"240P": (320, 240), "480P": (640, 480), "720P": (1280, 720), "1080P": (1920, 1080)}


class RenditionState(StrEnum):
    """The status column of the teacher's ``video_list``."""

    TRANSCODING = msgid("transcoding")
    SUCCESS = msgid("success")
    FAILED = msgid("failed")
    TIMED_OUT = msgid("timed out")

    @classmethod
    def _missing_(cls, value: object) -> "RenditionState":
        """A word that we do not know, as an old program's database can hold: such a rendition is of no use.

        So it is read as *failed*: the next booking asks for it again.
        """
        return cls.FAILED


class Backend(StrEnum):
    """Who makes a rendition; the ``type`` of a result on the wire."""

    OSS = "oss"
    ECS = "ecs"


class BookingState(StrEnum):
    """The state column of the teacher's ``order_list``."""

    RECEIVED = msgid("received")
    WAITING = msgid("waiting")  # for a rendition
    PLACED = msgid("placed")  # a streamer was told to prepare it
    READY = msgid("ready")  # the streamer has the rendition; the platform was answered with success
    REFUSED = msgid("refused")
    CANCELLED = msgid("cancelled")
    AIRED = msgid("aired")
    AIRED_WITH_GAPS = msgid("aired with gaps")  # minutes or seconds of it were not sent
    BROKEN = msgid("broken")  # was ready, but could not be aired


class AiringState(StrEnum):
    """The state of a class on its streamer (``class_list.state``)."""

    WAITING = msgid("waiting")  # for the rendition's download
    READY = msgid("ready")
    ON_AIR = msgid("on air")
    AIRED = msgid("aired")
    AIRED_WITH_GAPS = msgid("aired with gaps")
    REFUSED = msgid("refused")
    CANCELLED = msgid("cancelled")
    BROKEN = msgid("broken")


class FileState(StrEnum):
    """The state of a rendition in a streamer's cache (``video_list.state``)."""

    DOWNLOADING = "downloading"  # size and place reserved
    READY = "ready"
    EVICTING = "evicting"  # no longer counted; its file is about to be deleted
    BAD = "bad"  # the last download failed; kept for the reason only, takes no room

    @classmethod
    def _missing_(cls, value: object) -> "FileState":
        """None, as a row of the old program has, or a word of a newer release that was rolled back.

        The file is taken as here: the start compares it with its row, and downloads it again if it is not.
        """
        return cls.READY


class Right(StrEnum):
    """What the holder of a token may do."""

    LOOK = "look"  # at the page
    READ = "read"  # classes and events over HTTP
    BOOK = "book"  # book, change and cancel over HTTP


class InboxState(StrEnum):
    """The state of a message in the inbox."""

    NEW = "new"
    DONE = "done"
    DEAD = "dead"


S = TypeVar("S", bound=StrEnum)


_R, _B, _A, _F = RenditionState, BookingState, AiringState, FileState
RENDITION_MOVES: Mapping[RenditionState, Set[RenditionState]] = {
    _R.TRANSCODING: {_R.SUCCESS, _R.FAILED, _R.TIMED_OUT},
    _R.FAILED: {_R.TRANSCODING},
    _R.TIMED_OUT: {_R.SUCCESS, _R.TRANSCODING},
    _R.SUCCESS: {_R.TRANSCODING},  # asked for again, because its file is gone
}
BOOKING_MOVES: Mapping[BookingState, Set[BookingState]] = {
    _B.RECEIVED: {_B.WAITING, _B.PLACED, _B.REFUSED, _B.CANCELLED},
    _B.WAITING: {_B.PLACED, _B.REFUSED, _B.CANCELLED},
    _B.PLACED: {_B.READY, _B.REFUSED, _B.CANCELLED, _B.BROKEN},
    _B.READY: {_B.AIRED, _B.AIRED_WITH_GAPS, _B.CANCELLED, _B.BROKEN, _B.PLACED},  # the last: moved to another
    _B.REFUSED: set(),
    _B.CANCELLED: set(),
    _B.AIRED: set(),
    _B.AIRED_WITH_GAPS: {_B.AIRED},  # another streamer reported its part late
    _B.BROKEN: {_B.AIRED, _B.AIRED_WITH_GAPS, _B.CANCELLED},  # its streamer reported late
}
AIRING_MOVES: Mapping[AiringState, Set[AiringState]] = {
    _A.WAITING: {_A.READY, _A.REFUSED, _A.CANCELLED},
    _A.READY: {_A.ON_AIR, _A.CANCELLED, _A.BROKEN, _A.WAITING},  # the last: its file is lost
    _A.ON_AIR: {_A.AIRED, _A.AIRED_WITH_GAPS, _A.CANCELLED, _A.BROKEN, _A.WAITING},  # as above
    _A.AIRED: set(),
    _A.AIRED_WITH_GAPS: set(),
    _A.REFUSED: set(),
    _A.CANCELLED: set(),
    _A.BROKEN: {_A.ON_AIR, _A.CANCELLED},
}
FILE_MOVES: Mapping[FileState, Set[FileState]] = {
    _F.DOWNLOADING: {_F.READY, _F.BAD},
    _F.READY: {_F.EVICTING},
    _F.EVICTING: set(),
    _F.BAD: set(),  # the row is deleted before the next download
}

BOOKING_OVER = frozenset(
    {BookingState.REFUSED, BookingState.CANCELLED, BookingState.AIRED, BookingState.AIRED_WITH_GAPS}
)
"""States of a class that will not be pushed any more."""

ON_STREAMER = frozenset({BookingState.PLACED, BookingState.READY})
"""States in which a streamer has the class, and counts it as load."""

IN_HAND = ON_STREAMER | {BookingState.WAITING}
"""States of a class that can be changed, and of a revision that is neither in force nor refused: it is *ready* when
its streamer is to apply it."""

OPEN = IN_HAND | {BookingState.RECEIVED}
"""States of a class for which work is left to do."""

LIVE_AIRINGS = frozenset({AiringState.WAITING, AiringState.READY, AiringState.ON_AIR, AiringState.BROKEN})
"""States in which a class cites its rendition (``num_cite``)."""


def check_move(moves: Mapping[S, Set[S]], thing: str, old: S, new: S) -> None:
    """Raise ForbiddenMove unless *thing* may go from *old* to *new*; it may always stay in its state."""
    if new != old and new not in moves[old]:
        raise ForbiddenMove(thing, old, new)
