"""A playout that is patient: on a machine that is busy with other tests a worker may take seconds to start.

It is started by its path, as the product's program is, and starts workers of itself.
"""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "lib"))

from lectern.playout import __main__ as program
from lectern.playout import demuxer, publisher, source, supervisor, worker_process

PROGRAM = Path(__file__)

if __name__ == "__main__":
    changed: list[tuple[object, str, object]] = [
        (worker_process, "PROGRAM", PROGRAM),
        *((one, "BEHIND_MS", 60_000) for one in (source, publisher)),
        *((one, "STALL_S", 60.0) for one in (source, demuxer)),
        (supervisor, "HUNG_S", float(os.environ.get("HUNG_S", "60"))),
    ]
    if "ABSOLUTE" in os.environ:  # a session's times are those of the class, whenever it begins
        changed.append((publisher, "FROM_THE_START_MS", float("inf")))
    for thing, name, value in changed:
        setattr(thing, name, value)
    program.main()
