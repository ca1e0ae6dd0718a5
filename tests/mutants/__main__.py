"""``make mutants N=200 SEED=7``: draws single faults of the product, and names those that the nearest tests miss.

A mutant's nearest tests are the files without a mark that import its module; if none does, a module that does. They are
collected once; each mutant is put into a fork, which runs them up to the first failure, a fork for each processor.
Survivors that may live stand in ``known.txt``, each with its reason; another one is a missing test, and the exit code
is 1.
"""

import argparse
import ast
import ctypes
import itertools
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mutants.changes import Mutant, can_be_put_in, mutants, put_in

ROOT = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("known.txt")
ALL_S, EACH_S, SLOWER = 300.0, 60.0, 4.0
"""Seconds for the tests of a module as it is; for a mutant at least, or so many times what they took: one that hangs is
noticed by that, and none because its tests are slow."""

RINGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "decide": ("lib/lectern/decide", ("tests/decide", "tests/flows", "tests/faults")),
    "db": ("lib/lectern/db", ("tests/effects", "tests/flows", "tests/faults")),
    "playout": ("lib/lectern/playout", ("tests/playout",)),
    "teacher": ("flows/teacher", ("tests/flows", "tests/faults", "tests/fundamentals")),
    "streamer": ("flows/streamer", ("tests/flows", "tests/effects", "tests/faults", "tests/fundamentals")),
}
"""Where the product is changed, and where its nearest tests stand."""


@dataclass(frozen=True)
class Run:
    """The nearest tests of a module, with a mutant of it or as it is, and the seconds they may take."""

    module: str
    mutant: Mutant | None
    items: Sequence[pytest.Item]
    within_s: float


class Judge:
    """A plugin of pytest that runs the collected tests once as they are, and once for each mutant."""

    def __init__(self, drawn: Sequence[Mutant], near: Mapping[str, set[Path]]) -> None:
        self._drawn, self._near = drawn, near
        self.survivors: list[Mutant] = []
        self.killed = self.untested = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge each mutant in a fork."""
        items: dict[Path, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            if not any(item.get_closest_marker(name) for name in ("live", "night")):
                items[item.path].append(item)
        modules = dict.fromkeys(mutant.module for mutant in self._drawn)
        whole = [Run(module, None, self._items(items, module), ALL_S) for module in modules]
        took_s = {run.module: took for run, took in _judged(whole, session) if run.items and took is not None}
        for mutant in self._drawn:
            if mutant.module not in took_s:
                self.untested += 1
                _say(f"not judged  {mutant.name}: its tests fail, take longer than {ALL_S:.0f} s, or there are none")
        runs = (
            Run(one.module, one, self._items(items, one.module), max(EACH_S, SLOWER * took_s[one.module]))
            for one in self._drawn
            if one.module in took_s
        )
        for run, took in _judged(runs, session):
            if took is None:
                self.killed += 1
            elif run.mutant:
                self.survivors.append(run.mutant)
                _say(f"SURVIVED    {run.mutant.name}  ({run.mutant.path.relative_to(ROOT)}:{run.mutant.line})")
        return True

    def _items(self, items: Mapping[Path, list[pytest.Item]], module: str) -> list[pytest.Item]:
        return [item for path in sorted(self._near[module]) for item in items.get(path, [])]


def _judged(runs: Iterable[Run], session: pytest.Session) -> Iterator[tuple[Run, float | None]]:
    """Each run with the seconds it took if all its tests passed; as many at once as there are processors."""
    left, going = iter(runs), dict[int, tuple[Run, float]]()  # by process: since when
    while True:
        for run in itertools.islice(left, (os.cpu_count() or 1) - len(going)):
            going[_begun(run, session)] = (run, time.monotonic())
        if not going:
            return
        time.sleep(0.02)
        for pid, (run, began) in list(going.items()):
            took = time.monotonic() - began
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and took > run.within_s:
                os.killpg(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, 0)
            if ended:
                del going[pid]
                yield run, None if status else took


def _begun(run: Run, session: pytest.Session) -> int:
    """Fork a process that does *run*, with its mutant put in, up to the first failure; its exit code is 0 if none."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
        if run.mutant is not None:
            put_in(run.mutant)
        for item, after in zip(run.items, [*run.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                break
        code = 1 if session.testsfailed else 0
    finally:
        os._exit(code)


def _modules(folder: str) -> dict[str, Path]:
    """The modules below a folder, by their names."""
    base = ROOT / "lib" if folder.startswith("lib/") else ROOT
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(base).with_suffix("").parts
        if parts[-1] not in {"__init__", "__main__"}:
            found[".".join(parts)] = path
    return found


def _imported(path: Path) -> set[str]:
    """All that a file imports, as modules or as names of modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found


def _known() -> dict[str, str]:
    """The survivors that may live, with the reason of each."""
    lines = [line for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in (line.partition(" | ") for line in lines)}


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def judged(ring: str, count: int, chance: random.Random) -> Judge:
    """Draw *count* mutants of a ring, and judge them."""
    folder, rooms = RINGS[ring]
    modules = _modules(folder)
    tests = {path: _imported(path) for room in rooms for path in sorted((ROOT / room).rglob("test_*.py"))}
    product = {name: _imported(path) for name, path in (_modules("flows") | _modules("lib/lectern")).items()}
    near: dict[str, set[Path]] = {}
    for name in modules:
        near[name] = {path for path, names in tests.items() if name in names}
        users = {user for user, names in product.items() if name in names}
        near[name] = near[name] or {path for path, names in tests.items() if users & names}
    candidates = [one for name, path in modules.items() if near[name] for one in mutants(name, path)]
    candidates = [one for one in candidates if can_be_put_in(one)]
    drawn = sorted(chance.sample(candidates, min(count, len(candidates))), key=lambda one: (one.module, one.line))
    judge = Judge(drawn, near)
    files = sorted({str(path) for one in drawn for path in near[one.module]})
    _say(f"{ring}: {len(drawn)} of {len(candidates)} mutants, {len(files)} files of tests")
    if files:
        quiet = [f"-pno:{name}" for name in ("terminal", "xdist", "cacheprovider", "anyio")]
        quiet.append("-Wignore::pytest.PytestAssertRewriteWarning")  # flows has imported anyio, which is a plugin, too
        pytest.main([*files, "-x", "-o", "addopts=--import-mode=importlib", *quiet], plugins=[judge])
    return judge


def main() -> int:
    """Judge the mutants of all rings; the exit code is 1 if one survives that is not known."""
    parser = argparse.ArgumentParser(prog="make mutants", description="make mutants [N=mutants] [SEED=seed] [RING=one]")
    parser.add_argument("--n", type=int, default=200, help="how many mutants")
    parser.add_argument("--seed", type=int, default=None, help="what is drawn; at random by default")
    parser.add_argument("--ring", choices=sorted(RINGS), default=None, help="only this part of the product")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    chance, known = random.Random(seed), _known()
    rings = [given.ring] if given.ring else list(RINGS)
    judges = [judged(ring, given.n // len(rings), chance) for ring in rings]
    survivors = [one for judge in judges for one in judge.survivors]
    killed, untested = sum(one.killed for one in judges), sum(one.untested for one in judges)
    new = [one for one in survivors if one.name not in known]
    sys.stdout.write(
        f"seed {seed}: {killed} of {killed + len(survivors)} mutants were noticed, {len(survivors) - len(new)} "
        f"survivors are known, {len(new)} are new, {untested} were not judged\n"
    )
    for one in new:
        sys.stdout.write(f"  {one.path.relative_to(ROOT)}:{one.line}  {one.name}\n")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
