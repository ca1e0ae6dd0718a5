"""What can go wrong, sorted by what the caller should do, and the table of error codes."""

from dataclasses import dataclass, field
from enum import StrEnum

from lectern.i18n import ENGLISH, Text, labelled, masked, msgid, translated
from lectern.playout.sentences import Isolated
from lectern.urls import redact


# The error codes of the wire: one table that holds the words of each. A new code is a row here, its
# Chinese in the catalogue, and a heading in RUNBOOK.md and RUNBOOK.zh.md.
class Severity(StrEnum):
    """How urgent a code is for the operations team."""

    NOTICE = msgid("notice")
    WARNING = msgid("warning")
    CRITICAL = msgid("critical")


@dataclass(frozen=True)
class ErrorCode:
    """A code of the wire: defined once, with what its reader should do."""

    number: int
    severity: Severity
    meaning: Text
    platform_should: Text
    endangers: bool = field(default=False, kw_only=True)  # a class that its alarm names: each new name is sent at once

    @property
    def runbook(self) -> str:
        """The heading in RUNBOOK.md."""
        return f"{self.number}: {self.meaning}"

    def runbook_in(self, language: str) -> str:
        """The heading in the RUNBOOK of *language*."""
        return f"{self.number}: {translated(self.meaning, language)}"


NOTICE, WARNING, CRITICAL = Severity
_MOVE = Text("Move the class, or book it with another resolution and a new class_id.")
_AGAIN = Text("Book it again with a new class_id.")
_CORRECT = Text("Correct the booking and send it with a new class_id.")
_CALL = Text("Call the operations team.")

# Each code in lines of its own: what it is, what it means and what the platform should do, its sentences.
# fmt: off
TRANSCODE_TIMED_OUT = ErrorCode(207, CRITICAL,
    Text("transcoding timed out"), _MOVE)
TRANSCODE_FAILED = ErrorCode(208, CRITICAL,
    Text("transcoding failed"), Text("{first} {second}", first=_AGAIN, second=Text("A new attempt is then made.")))
ATTEMPTS_SPENT = ErrorCode(209, CRITICAL,
    Text("too many transcoding attempts"),
    Text("{first} {second}", first=_MOVE, second=Text("A person can retry the rendition.")))
NO_TRANSCODER = ErrorCode(210, CRITICAL,
    Text("no transcoder can take the rendition"), _MOVE)
ORPHANED_WAITER = ErrorCode(211, CRITICAL,
    Text("a class waits that nobody booked here"), _AGAIN, endangers=True)
HOST_ASIDE = ErrorCode(212, WARNING,
    Text("an ECS host is put aside"), Text("Nothing; the other hosts go on."))
NO_ECS_ROOM = ErrorCode(213, WARNING,
    Text("no room on an ECS host"), Text("Nothing; another host is taken."))
UPLOAD_FAILED = ErrorCode(214, CRITICAL,
    Text("a rendition could not be uploaded"), _CALL)
HALF_A_RECORDING = ErrorCode(215, CRITICAL,
    Text("the recording lacks its picture or its sound"), Text("Replace the recording."))
OSS_REFUSES = ErrorCode(216, WARNING,
    Text("the OSS transcoder refuses this teacher"), Text("Nothing; ECS hosts transcode meanwhile."))
DISK_FULL = ErrorCode(316, CRITICAL,
    Text("disk full"), Text("Move the class; the streamers' caches are full."), endangers=True)
NO_STREAMER = ErrorCode(317, CRITICAL,
    Text("no streamer takes classes"), _AGAIN, endangers=True)
DOWNLOAD_FAILED = ErrorCode(318, CRITICAL,
    Text("the recording could not be downloaded"), Text("Check the URL, then book."), endangers=True)
BAD_RECORDING = ErrorCode(319, CRITICAL,
    Text("the recording is not playable"), Text("Replace the recording."), endangers=True)
FORBIDDEN_ORIGIN = ErrorCode(320, WARNING,
    Text("the recording's origin is not allowed"), _CORRECT)
AIRING_BROKEN = ErrorCode(321, CRITICAL,
    Text("the class could not be aired to its end"), _CALL, endangers=True)
STREAMER_LOST = ErrorCode(322, CRITICAL,
    Text("a streamer is lost"), Text("Nothing; its classes are moved to others."))
NOT_MOVED = ErrorCode(323, CRITICAL,
    Text("a class lost its streamer, and no other can take it"),
    Text("Move the class, it is not aired."), endangers=True)
NOT_READY_FOR_START = ErrorCode(324, CRITICAL,
    Text("a class is not ready for its start"),
    Text("Wait for the operations team, or move the class."), endangers=True)
FORBIDDEN_PUSH_HOST = ErrorCode(325, WARNING,
    Text("the push host is not allowed"), _CORRECT)
NO_RECORDING = ErrorCode(326, CRITICAL,
    Text("a class is on air without its recording"), _CALL, endangers=True)
PLAYOUT_AWAY = ErrorCode(327, CRITICAL,
    Text("the playout of a streamer is not there"), _CALL)
DEAD_AIR = ErrorCode(328, WARNING,
    Text("a recording is black, frozen, silent or too short"), Text("Look at the recording; replace a bad one."))
AIRED_WITH_GAPS = ErrorCode(329, WARNING,
    Text("a class was aired with gaps"), Text("Have the class repeated if what is missing matters."))
MALFORMED = ErrorCode(400, WARNING,
    Text("malformed booking"), Text("Correct the booking and send it again."))
NOT_BOOKED = ErrorCode(404, WARNING,
    Text("a change of a class that is not booked"), Text("Book the class."))
CONFLICT = ErrorCode(409, WARNING,
    Text("the booking contradicts another booking"),
    Text("Cancel the other booking, or change this one; then use a new class_id."))
ENDED = ErrorCode(410, WARNING,
    Text("the class has already ended"), _CORRECT)
CANCELLED = ErrorCode(411, NOTICE,
    Text("the class was cancelled"), _AGAIN)
URL_MISSING = ErrorCode(501, CRITICAL,
    Text("transcoded already, but the booking lacks the URL"), Text("Add the URL to video_url_list."))
UNKNOWN_RENDITION = ErrorCode(502, WARNING,
    Text("a result for a rendition nobody asked for"), Text("Check the transcoder."))
STALE_WAITING = ErrorCode(503, CRITICAL,
    Text("a class waits longer than it may"), _CALL, endangers=True)
DEAD_LETTER = ErrorCode(504, WARNING,
    Text("a message could not be read"), Text("Check the producer."))
REFUSED_BY_REDIS = ErrorCode(505, CRITICAL,
    Text("Redis refuses a key or a channel"), _CALL)
NOT_HANDLED = ErrorCode(506, CRITICAL,
    Text("a booking could not be handled"), Text("{first} {second}", first=_AGAIN, second=_CALL))
WORK_FAILED = ErrorCode(507, CRITICAL,
    Text("a part of a host does not work"), Text("Nothing; the part is tried again."))
REDIS_AWAY = ErrorCode(508, CRITICAL,
    Text("Redis is away"), Text("Nothing; it is handled when Redis is back."))
WEBHOOK_REFUSES = ErrorCode(509, CRITICAL,
    Text("the webhook does not take messages"), Text("Repair the receiver; read what it lacks over HTTP."))
# fmt: on

CODES: dict[int, ErrorCode] = {one.number: one for one in list(globals().values()) if isinstance(one, ErrorCode)}
"""All of them, by their numbers."""


def alarm_in(language: str, code: int, message: str) -> str:
    """The *message* of an alarm in *language*: behind what its code means, because words of programs stay English."""
    if language == ENGLISH or code not in CODES:
        return translated(message, language)
    return translated(labelled(CODES[code].meaning, message), language)


class Caught(Isolated):
    """A context in which an error harms nothing behind it: it is kept in *error*. Errors of *through* are raised."""


class LecternError(Exception):
    """Anything that went wrong: the thing, what happened, what was found.

    It is given a `Text`, or the sentence and its *values*. The text goes to logs, alarms and answers, so user, password
    and query are removed from each URL in it, and in each value.
    """

    def __init__(self, message: str, code: ErrorCode | None = None, /, **values: object) -> None:
        message = masked(Text(message, **values) if values else message, redact)
        super().__init__(message)
        self.message = message
        self.code = code


class TryAgain(LecternError):
    """Passing trouble (network, a busy server): the same call can succeed later."""


class FallBack(LecternError):
    """This way is closed for now: take the next one of the ladder."""


class Refuse(LecternError):
    """It cannot be done: tell whoever asked, with the code."""

    def __init__(self, message: str, code: ErrorCode, /, **values: object) -> None:
        super().__init__(message, code, **values)
        self.code: ErrorCode = code


class CallAPerson(LecternError):
    """A state that no program can repair; nothing was changed."""


class Misuse(LecternError):
    """A wrong setting or command line: the text says what to type. Exit code 2."""


class Malformed(LecternError):
    """A message that cannot be read; *class_id* is set if at least that could be read."""

    def __init__(self, message: str, class_id: str | None = None) -> None:
        super().__init__(message, MALFORMED)
        self.class_id = class_id


class ForbiddenMove(CallAPerson):
    """A state change that the tables of states.py do not have."""

    def __init__(self, thing: str, old: str, new: str) -> None:
        super().__init__(Text('{thing}: may not go from "{old}" to "{new}"', thing=thing, old=Text(old), new=Text(new)))
