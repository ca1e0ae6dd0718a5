"""What can go wrong, sorted by what the caller should do, and the error codes of the wire."""

from dataclasses import dataclass
from enum import StrEnum

from lectern.shown import masked


class Severity(StrEnum):
    """How urgent a code is for the operations team."""

    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class ErrorCode:
    """A code of the wire: defined once, with what its reader should do."""

    number: int
    meaning: str
    severity: Severity
    platform_should: str
    endangers: bool = False  # a class that its alarm names: each new name is told at once

    @property
    def runbook(self) -> str:
        """The heading in RUNBOOK.md."""
        return f"{self.number}: {self.meaning}"


_MOVE = "Move the class, or book it with another resolution and a new class_id."
_AGAIN = "Book it again with a new class_id."
_CORRECT = "Correct the booking and send it with a new class_id."

TRANSCODE_TIMED_OUT = ErrorCode(207, "transcoding timed out", Severity.CRITICAL, _MOVE)
TRANSCODE_FAILED = ErrorCode(208, "transcoding failed", Severity.CRITICAL, f"{_AGAIN} A new attempt is then made.")
ATTEMPTS_SPENT = ErrorCode(
    209, "too many transcoding attempts", Severity.CRITICAL, f"{_MOVE} A person can retry the rendition."
)
NO_TRANSCODER = ErrorCode(210, "no transcoder can take the rendition", Severity.CRITICAL, _MOVE)
HOST_ASIDE = ErrorCode(212, "an ECS host is put aside", Severity.WARNING, "Nothing; the other hosts go on.")
NO_ECS_ROOM = ErrorCode(213, "no room on an ECS host", Severity.WARNING, "Nothing; another host is taken.")
UPLOAD_FAILED = ErrorCode(214, "a rendition could not be uploaded", Severity.CRITICAL, "Call the operations team.")
HALF_A_RECORDING = ErrorCode(
    215, "the recording lacks its picture or its sound", Severity.CRITICAL, "Replace the recording."
)
DISK_FULL = ErrorCode(
    316, "disk full", Severity.CRITICAL, "Move the class; the streamers' caches are full.", endangers=True
)
NO_STREAMER = ErrorCode(317, "no streamer is alive", Severity.CRITICAL, _AGAIN, endangers=True)
DOWNLOAD_FAILED = ErrorCode(
    318, "the recording could not be downloaded", Severity.CRITICAL, "Check the URL, then book.", endangers=True
)
BAD_RECORDING = ErrorCode(
    319, "the recording is not playable", Severity.CRITICAL, "Replace the recording.", endangers=True
)
FORBIDDEN_ORIGIN = ErrorCode(320, "the recording's origin is not allowed", Severity.WARNING, _CORRECT)
AIRING_BROKEN = ErrorCode(
    321, "the class could not be aired to its end", Severity.CRITICAL, "Call the operations team.", endangers=True
)
STREAMER_LOST = ErrorCode(322, "a streamer is lost", Severity.CRITICAL, "Nothing; its classes are moved to others.")
NOT_MOVED = ErrorCode(
    323,
    "a class lost its streamer, and no other can take it",
    Severity.CRITICAL,
    "Move the class, it is not aired.",
    endangers=True,
)
NOT_READY_FOR_START = ErrorCode(
    324,
    "a class is not ready for its start",
    Severity.CRITICAL,
    "Wait for the operations team, or move the class.",
    endangers=True,
)
FORBIDDEN_PUSH_HOST = ErrorCode(325, "the push host is not allowed", Severity.WARNING, _CORRECT)
NO_RECORDING = ErrorCode(
    326, "a class is on air without its recording", Severity.CRITICAL, "Call the operations team.", endangers=True
)
PLAYOUT_AWAY = ErrorCode(327, "the playout of a streamer is not there", Severity.CRITICAL, "Call the operations team.")
DEAD_AIR = ErrorCode(
    328,
    "a recording is black, frozen or silent",
    Severity.WARNING,
    "Look at the recording, and replace it if it is bad.",
)
MALFORMED = ErrorCode(400, "malformed booking", Severity.WARNING, "Correct the booking and send it again.")
NOT_BOOKED = ErrorCode(404, "a change of a class that is not booked", Severity.WARNING, "Book the class.")
ENDED = ErrorCode(410, "the class has already ended", Severity.WARNING, _CORRECT)
CONFLICT = ErrorCode(
    409,
    "the booking contradicts another booking",
    Severity.WARNING,
    "Cancel the other booking, or change this one; then use a new class_id.",
)
CANCELLED = ErrorCode(411, "the class was cancelled", Severity.NOTICE, _AGAIN)
ORPHANED_WAITER = ErrorCode(211, "a class waits that nobody booked here", Severity.CRITICAL, _AGAIN, endangers=True)
URL_MISSING = ErrorCode(
    501, "transcoded already, but the booking lacks the URL", Severity.CRITICAL, "Add the URL to video_url_list."
)
UNKNOWN_RENDITION = ErrorCode(
    502, "a result for a rendition nobody asked for", Severity.WARNING, "Check the transcoder."
)
STALE_WAITING = ErrorCode(
    503, "a class waits longer than it may", Severity.CRITICAL, "Call the operations team.", endangers=True
)
DEAD_LETTER = ErrorCode(504, "a message could not be read", Severity.WARNING, "Check the producer.")
REFUSED_BY_REDIS = ErrorCode(505, "Redis refuses a key or a channel", Severity.CRITICAL, "Call the operations team.")
NOT_HANDLED = ErrorCode(506, "a booking could not be handled", Severity.CRITICAL, f"{_AGAIN} Call the operations team.")
WORK_FAILED = ErrorCode(507, "a part of a host does not work", Severity.CRITICAL, "Nothing; the part is tried again.")

OK = 0
"""The code of an answer with result *success*."""

CODES: dict[int, ErrorCode] = {one.number: one for one in list(globals().values()) if isinstance(one, ErrorCode)}
"""All of them, by their numbers."""


class LecternError(Exception):
    """Anything that went wrong: the thing, what happened, what was found.

    Its text goes to logs, alarms and answers, so no URL in it has its user, password or query.
    """

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.code = code


class TryAgain(LecternError):
    """Passing trouble (network, a busy server): the same call can succeed later."""


class FallBack(LecternError):
    """This way is closed for now: take the next one of the ladder."""


class Refuse(LecternError):
    """It cannot be done: tell who asked, with the code."""

    def __init__(self, message: str, code: ErrorCode) -> None:
        super().__init__(message, code)
        self.code: ErrorCode = code


class CallAPerson(LecternError):
    """A state that no program mends; nothing was changed."""


class Misuse(LecternError):
    """A wrong setting or command line: the text says what to type. Exit code 2."""


class Malformed(LecternError):
    """A message that cannot be read; *class_id* if one could be."""

    def __init__(self, message: str, class_id: str | None = None) -> None:
        super().__init__(message, MALFORMED)
        self.class_id = class_id


class ForbiddenMove(CallAPerson):
    """A state change that the tables of states.py do not have."""

    def __init__(self, thing: str, old: str, new: str) -> None:
        super().__init__(f'{thing}: may not go from "{old}" to "{new}"')
