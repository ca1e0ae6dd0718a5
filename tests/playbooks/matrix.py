"""Plays the whole crash matrix, which takes half a working day; ``make test-rollout-matrix`` starts it.

A fault at every task of the playbooks and at every change that a step makes on the host, then the rollout again, and in
a case of its own the rollback: each must end in a host that is wholly new or wholly old.
"""

import argparse
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from playbooks.release import Target, built
from tests.playbooks.hosts import engine
from tests.playbooks.hosts.faults import Case, Ground, Kind, Only, Playbook, listed, play
from tests.playbooks.hosts.fleet import raised
from tests.playbooks.hosts.scene import opened
from tests.stage import Town
from tests.stage.leases import granting

ROOT = Path(__file__).parents[2]
CONTAINER = "container"
Plan = tuple[tuple[Playbook, tuple[Kind, ...]], ...]
HOSTS = f"streamer1,teacher1,{CONTAINER}"
ROLLOUT: Plan = (("rollout", ("kill", "middle", "fail", "step", "step alone")),)
ROLLBACK: Plan = (("rollback", ("kill", "middle", "fail", "step")),)
WHOLE: Plan = ROLLOUT + ROLLBACK


@dataclass
class Tally:
    """What has come of the cases so far."""

    console: Console
    total: int = 0
    done: int = 0
    bad: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, number: int, case: Case, wrong: list[str], seconds: float) -> None:
        """One case is over."""
        with self.lock:
            self.done += 1
            told = f"[{self.done}/{self.total}] {name}:{number}: {case} ({seconds:.0f} s)"
            self.console.print(f"{told}: {'BAD' if wrong else 'good'}", markup=False)
            for one in wrong:
                self.console.print(f"    {one}", markup=False)
            if wrong:
                self.bad.append(told)


def main() -> int:
    """Play; the exit code is 1 if any case is bad, and if there was none."""
    parser = argparse.ArgumentParser(prog="make test-rollout-matrix", description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose description matches")
    parser.add_argument(
        "--hosts",
        default=HOSTS,
        help="the hosts, side by side; names begin with the role; NAME:300 begins with that case, as after an end",
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th case")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    tally = Tally(console)
    with tempfile.TemporaryDirectory(prefix="matrix-") as name:
        folder = Path(name)
        with Town(folder / "town") as town:
            _side_by_side(given, town, folder, tally)
    for one in tally.bad:
        console.print(one, markup=False)
    console.print(f"{tally.done} cases, {len(tally.bad)} bad")
    return 1 if tally.bad or not tally.done or tally.done != tally.total else 0


def _side_by_side(given: argparse.Namespace, town: Town, folder: Path, tally: Tally) -> None:
    """One thread a host: most of a case's time is waiting."""
    firsts = {name: int(first or 0) for name, _, first in (one.partition(":") for one in given.hosts.split(","))}
    names = list(firsts)
    absent = engine.absent()
    if CONTAINER in names and absent is not None:
        tally.console.print(f"{absent}: no network is cut", markup=False)
        names.remove(CONTAINER)
    elif CONTAINER in names:
        engine.have_base()
    pythons = {"3.13" if name == CONTAINER else None for name in names}
    releases = {python: built(Target.parse(python, None), folder, tally.console) for python in pythons}
    ready = threading.Barrier(len(names))

    def work(name: str) -> None:
        share = Share(given.only, firsts[name], given.every)
        try:
            with ExitStack() as stack:
                if name == CONTAINER:
                    fleet = stack.enter_context(raised(folder))
                    fleet.use(releases["3.13"])
                    fleet.controller.cut = fleet.hosts["streamer1"].container.cut
                    # No teacher is rolled out; without a lease, a streamer is not well for longer than a minute.
                    stack.enter_context(granting(fleet.redis, ["streamer1"], key="streamers", stream="streamer:{}"))
                    cuts: Plan = (("rollout", ("cut",)), ("rollback", ("cut",)))
                    play_all(prepared(Only(fleet, "streamer1")), "streamer1", cuts, share, tally, ready.wait)
                else:
                    scene = stack.enter_context(opened(town, releases[None], name))
                    play_all(prepared(scene), name, WHOLE, share, tally, ready.wait)
        except BaseException:
            ready.abort()
            raise

    with ThreadPoolExecutor(len(names)) as threads:
        for one in as_completed([threads.submit(work, name) for name in names]):
            one.result()


@dataclass(frozen=True)
class Share:
    """Which of a host's cases are played."""

    only: str = ""
    first: int = 0
    every: int = 1
    draw: int | None = None
    seed: int = 0

    def of(self, cases: Sequence[Case]) -> list[tuple[int, Case]]:
        """The cases with their numbers."""
        numbers = range(self.first, len(cases), self.every)
        found = [(number, cases[number]) for number in numbers if re.search(self.only, str(cases[number]))]
        return found if self.draw is None else random.Random(self.seed).sample(found, min(self.draw, len(found)))


def prepared(ground: Ground) -> Ground:
    """Its hosts as the old programs left them, with the release beside them."""
    ground.reset()
    ground.run("rollout", "--tags", "prepare").assert_ok()
    return ground


def play_all(
    ground: Ground, name: str, kinds: Plan, share: Share, tally: Tally, all_listed: Callable[[], object] = lambda: None
) -> None:
    """Play the *share* of the cases of *kinds* on the prepared host *name*, after *all_listed* returned."""
    host = ground.hosts[name]
    if kinds == ROLLBACK:
        ground.reset()
        ground.run("rollout").assert_ok()
        host.learn()
    chosen = share.of([case for playbook, some in kinds for case in listed(ground, host, playbook, some)])
    with tally.lock:
        tally.total += len(chosen)
    all_listed()
    for number, case in chosen:
        began = time.monotonic()
        wrong = play(ground, host, case)
        tally.add(name, number, case, wrong, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
