"""``lectern …``: what the operations team types."""

import gc
import os
import sys

LOOKS = ("status", "explain")
"""Commands that only look, and that people wait for: they end without taking a million objects apart one by one."""


def main() -> None:
    """The entry point of the command."""
    gc.disable()  # while a million objects are made and none of them is garbage: a quarter of every start
    from lectern.cli import app  # noqa: PLC0415 (what costs is this import)

    gc.freeze()
    gc.enable()
    try:
        app.main()
    except SystemExit as end:
        if sys.argv[1:2] and sys.argv[1] in LOOKS:
            _leave(end.code)
        raise


def _leave(code: object) -> None:
    """End at once: Python's own end takes a fifth of the command, and nothing of it is left to be done."""
    if code is not None and not isinstance(code, int):
        return  # a text, which Python prints
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads on, or the disk is full: that was said when it was written
        code = code or 1
    sys.stderr.flush()
    os._exit(code or 0)
