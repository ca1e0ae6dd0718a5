"""``lectern …``: what the operations team types."""

import gc
import os
import sys

LOOKS = ("status", "explain")
"""Commands that only look, while people wait: they end without freeing a million objects one by one."""


def main() -> None:
    """Run the command: the entry point of ``lectern``."""
    gc.disable()  # until a command is loaded: of the objects that are made, none is garbage; a quarter of every start
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look for some in all that is installed
    from lectern.cli import app  # noqa: PLC0415 (`lectern --help` takes as long as its imports)

    try:
        app.main()
    except SystemExit as end:
        if sys.argv[1:2] and sys.argv[1] in LOOKS:
            _leave(end.code)
        raise


def _leave(code: object) -> None:
    """Exit at once: Python's own exit takes a fifth of the command's time, and has nothing left to do."""
    if code is not None and not isinstance(code, int):
        return  # a text, which Python prints
    try:
        sys.stdout.flush()
    except OSError:  # the reader has gone, or the disk is full: that was reported when it was written
        code = code or 1
    sys.stderr.flush()
    os._exit(code or 0)
