"""Looks at the hosts from outside: whether they live, say that they are ready, and stay as small as they were."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
import psutil

from tests.stage import Stage

READY = "ready"
PROBE_EVERY_S, PROBE_TIMEOUT_S = 0.5, 10.0
GROWTH_BYTES, FILES = 200 * 1024**2, 200
"""More memory, and more open files, than after the first messages: what is really kept would pass this soon."""


@dataclass
class Watch:
    """Asks each host's /health again and again, in a thread."""

    stage: Stage
    ports: Mapping[str, int]
    not_ready: list[tuple[float, str, str]] = field(default_factory=list)  # when (monotonic), who, what was said
    last: dict[str, str] = field(default_factory=dict)  # what each host said last
    before: dict[str, tuple[int, int]] = field(default_factory=dict)
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

    def size(self, who: str) -> tuple[int, int]:
        """The memory of a host's process in bytes, and its open files."""
        process = psutil.Process(self.stage.residents[who].pid)
        return process.memory_info().rss, process.num_fds()

    def outgrown(self) -> list[str]:
        """Who has grown without bound since *before*, in words."""
        grown = {who: (self.size(who), before) for who, before in self.before.items()}
        return [
            f"{who} grew from {before[0] / 1024**2:.0f} to {now[0] / 1024**2:.0f} MiB, and to {now[1]} open files"
            for who, (now, before) in grown.items()
            if now[0] - before[0] > GROWTH_BYTES or now[1] - before[1] > FILES
        ]

    def _probe(self) -> None:
        with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            while not self._over.wait(PROBE_EVERY_S):
                for who, port in self.ports.items():
                    at = time.monotonic()
                    self.last[who] = said = _asked(client, port)
                    if said != READY:
                        self.not_ready.append((at, who, said))


def _asked(client: httpx.Client, port: int) -> str:
    try:
        answer = client.get(f"http://127.0.0.1:{port}/health")
    except httpx.HTTPError as error:
        return f"no answer: {error!r}"
    return READY if answer.status_code == httpx.codes.OK else f"{answer.status_code} {answer.text[:200]}"
