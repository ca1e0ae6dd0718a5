"""Notes at once a signal that should end a rollout early, and acts on it between two steps."""

import signal
import threading
from types import FrameType

from lectern.errors import TryAgain

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """While it is entered, SIGTERM and SIGINT wait for `check`, and the loss of the terminal or of ssh is ignored."""

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {signal_: signal.signal(signal_, self._hear) for signal_ in _ENDING}
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for signal_, handler in self._before.items():
            signal.signal(signal_, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._asked = signal.Signals(number)

    def check(self) -> None:
        """Raise TryAgain if SIGTERM or SIGINT has arrived."""
        if self._asked is not None:
            raise TryAgain(f"Ended by {self._asked.name}.")
