"""What the playout writes for people who read the unit's log."""

import sys
import time


def say(text: str) -> None:
    """Write a line."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} lectern playout: {text}\n")
    sys.stderr.flush()
