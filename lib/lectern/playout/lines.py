"""What the playout writes to the log of its unit, for people."""

import sys
import time


def say(text: str) -> None:
    """Write one line to the log, with the time."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} lectern playout: {text}\n")
    sys.stderr.flush()
