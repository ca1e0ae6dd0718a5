"""Runs ``lectern …`` and writes down every second how many asyncio tasks it has: ``python -m tests.fuzz.counted``."""

import asyncio
import os
import threading
from collections import Counter
from pathlib import Path

FILE = "TEST_TASKS_FILE"
EVERY_S = 1.0
MOST = 6
"""Of so many kinds of tasks it is written how many there are."""


def watch(path: Path) -> None:
    """Write the number of tasks of all loops into *path*, again and again."""
    loops: list[asyncio.AbstractEventLoop] = []
    made = asyncio.events.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        loops.append(made())
        return loops[-1]

    asyncio.events.new_event_loop = noted

    def write() -> None:
        pause = threading.Event()
        while not pause.wait(EVERY_S):
            tasks = [task for loop in loops if not loop.is_closed() for task in asyncio.all_tasks(loop)]
            most = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks).most_common(MOST)
            path.with_suffix(".new").write_text(f"{len(tasks)} {most}")
            path.with_suffix(".new").rename(path)

    threading.Thread(target=write, name="tasks", daemon=True).start()


def main() -> None:
    """Count, and be ``lectern``."""
    if path := os.environ.get(FILE):
        watch(Path(path))
    from lectern.cli import main as lectern

    lectern()


if __name__ == "__main__":
    main()
