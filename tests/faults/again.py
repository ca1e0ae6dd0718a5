"""What is played by hand from a seed, and once more from it if anything is wrong."""

import os
import random
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path


def say(words: str) -> None:
    """Say it at once: it takes long."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def played(module: str, play: Callable[[Namespace, Path], list[str]], **options: tuple[object, str]) -> int:
    """Play as the command line asks, which has *options* with their defaults; 1 if *play* says what is wrong."""
    parser = ArgumentParser(prog=f"python -m {module}")
    options["seed"] = None, "what is played again; a random one by default"
    for name, (default, what) in options.items():
        parser.add_argument(f"--{name}", type=str if isinstance(default, str) else int, default=default, help=what)
    given = parser.parse_args()
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1_000_000)
    folder, began = Path(tempfile.mkdtemp(prefix="lectern-test-")), time.monotonic()
    again = " ".join(f"--{name} {value!r}" for name, value in vars(given).items() if value not in {None, ""})
    say(f"python -m {module} {again}, in {folder}")
    wrong = play(given, folder)
    load = os.getloadavg()[2] / (os.cpu_count() or 1)
    say("\n".join([*wrong, f"{len(wrong)} complaints ({time.monotonic() - began:.0f} s, load {load:.1f})"]))
    if wrong:
        say(f"Play it again: python -m {module} {again}. Logs and databases: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0
