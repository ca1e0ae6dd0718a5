"""Looks at the hosts from outside: whether they live, say that they are ready, and stay as small as they were."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.stage import Stage

READY = "ready"
PROBE_EVERY_S = 0.5
PROBE_TIMEOUT_S = 10.0
GROWTH_BYTES = 200 * 1024**2
"""More memory than after the first messages: what is really kept grows with each message, and would pass this soon."""

TASKS = 1_500
"""More asyncio tasks than after the first messages: each recording of a batch is looked at by a task of its own."""

FILES = 200
"""More open files than after the first messages."""


@dataclass(frozen=True)
class Size:
    """How large a process is."""

    rss_bytes: int
    tasks: int
    files: int
    most: str  # of which tasks there are most

    def outgrew(self, before: "Size") -> str:
        """In words, what grew without bound since *before*; empty if nothing did."""
        grown = (self.rss_bytes - before.rss_bytes, self.tasks - before.tasks, self.files - before.files)
        bounds = (GROWTH_BYTES, TASKS, FILES)
        if all(more <= bound for more, bound in zip(grown, bounds, strict=True)):
            return ""
        return f"grew by {grown[0] / 1024**2:.0f} MiB, {grown[1]} tasks, {grown[2]} open files: {self.most}"


@dataclass
class Watch:
    """Asks each host's /health again and again, in a thread."""

    stage: Stage
    ports: Mapping[str, int]
    probes: int = 0
    not_ready: list[tuple[float, str, str]] = field(default_factory=list)  # when (monotonic), who, what was said
    last: dict[str, str] = field(default_factory=dict)  # what each host said last
    largest: dict[str, Size] = field(default_factory=dict)
    before: dict[str, Size] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=self._probe, name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(PROBE_TIMEOUT_S + 1)

    def was_ready(self, since: float) -> bool:
        """Whether every answer since then was that the host is ready."""
        return not any(at >= since for at, _, _ in self.not_ready)

    def sizes(self) -> dict[str, Size]:
        """How large the processes are now."""
        found = {who: self._size(who) for who in self.ports}
        for who, size in found.items():
            most = self.largest.get(who, size)
            rss_bytes, tasks, files = map(max, _numbers(most), _numbers(size))
            self.largest[who] = Size(rss_bytes, tasks, files, size.most if tasks == size.tasks else most.most)
        return found

    def tasks_file(self, who: str) -> Path:
        """Where the process of *who* writes how many tasks it has."""
        return self.stage.folder / f"{who}.tasks"

    def _size(self, who: str) -> Size:
        process = psutil.Process(self.stage.residents[who].pid)
        file = self.tasks_file(who)
        number, _, most = (file.read_text() if file.exists() else "0").partition(" ")
        return Size(process.memory_info().rss, int(number), process.num_fds(), most)

    def _probe(self) -> None:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            while not self._over.wait(PROBE_EVERY_S):
                for who, port in self.ports.items():
                    at = time.monotonic()
                    said = _asked(client, port)
                    self.probes += 1
                    self.last[who] = said
                    if said != READY:
                        self.not_ready.append((at, who, said))


def _numbers(size: Size) -> tuple[int, int, int]:
    return size.rss_bytes, size.tasks, size.files


def _asked(client: httpx.Client, port: int) -> str:
    try:
        answer = client.get(f"http://127.0.0.1:{port}/health")
    except httpx.HTTPError as error:
        return f"no answer: {error!r}"
    if answer.status_code == httpx.codes.OK:
        return READY
    is_ours = answer.headers.get("content-type") == "application/json"
    return f"{answer.status_code} {answer.json()['wrong'] if is_ours else answer.text[:200]}"
