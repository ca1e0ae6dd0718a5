"""What the playout says of its faults: lines in the log of its unit, and a context that keeps one from the rest."""

import sys
import time


class Isolated:
    """A context in which a fault of one class or request harms no other: it is kept. Errors of *through* are raised."""

    def __init__(self, *through: type[Exception]) -> None:
        self.error: Exception | None = None
        self._through = through

    def __enter__(self) -> "Isolated":
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Keep *error*, unless it ends the process, or a task."""
        if not isinstance(error, Exception) or isinstance(error, self._through):
            return False
        self.error = error
        return True

    @property
    def fault(self) -> str:
        """The fault in words; empty if there was none."""
        return f"a fault of the playout: {type(self.error).__name__}: {self.error}" if self.error else ""


def say(text: str) -> None:
    """Write one line to the log, with the time."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} lectern playout: {text}\n")
    sys.stderr.flush()
