"""What can go wrong, sorted by what the caller should do; `codes` has the error codes."""

from lectern.codes import *  # noqa: F403 (whoever raises or catches an error names its code, too)
from lectern.codes import MALFORMED, ErrorCode
from lectern.shown import masked


class Caught:
    """A context in which an error harms nothing behind it: it is kept in *error*. Errors of *through* are raised."""

    def __init__(self, *through: type[BaseException]) -> None:
        self.error: Exception | None = None
        self._through = through

    def __enter__(self) -> "Caught":
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep *error*, unless it must end more than this: a cancel, and what *through* names."""
        if not isinstance(error, Exception) or isinstance(error, self._through):
            return False
        self.error = error
        return True


class LecternError(Exception):
    """Anything that went wrong: the thing, what happened, what was found.

    The text goes to logs, alarms and answers, so user, password and query are removed from each URL in it.
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
    """It cannot be done: tell whoever asked, with the code."""

    def __init__(self, message: str, code: ErrorCode) -> None:
        super().__init__(message, code)
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
        super().__init__(f'{thing}: may not go from "{old}" to "{new}"')
