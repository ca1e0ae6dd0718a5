"""Bare Debian containers on a network of their own, reached by SSH at their own addresses."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.playbooks.hosts import engine
from tests.playbooks.hosts.container import Container
from tests.playbooks.hosts.fleet import Keys, composed
from tests.stage import wait_until

COMPOSE = Path(__file__).parent / "compose.yml"
SERVICES = ("teacher", "streamer", "ecs", "stranger")


class BareHosts:
    """The services of compose.yml, up already."""

    def __init__(self, project: str, keys: Keys, folder: Path) -> None:
        self.keys = keys
        self.containers = {name: Container(project, name) for name in SERVICES}
        self.addresses = {name: self._address(one) for name, one in self.containers.items()}
        self.known_hosts = folder / "known_hosts"
        for one in self.containers.values():
            wait_until(lambda one: bool(one.host_key()), one, description="its SSH host key is made")
        lines = [f"{self.addresses[name]} {one.host_key()}\n" for name, one in self.containers.items()]
        self.known_hosts.write_text("".join(lines))

    @staticmethod
    def _address(container: Container) -> str:
        wanted = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        argv = ["docker", "inspect", "--format", wanted, container.name]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def run(self, host: str, *argv: str, check: bool = True, timeout_s: float = 120.0) -> str:
        done = self.containers[host].run(argv, check=check, timeout_s=timeout_s)
        return (done.stdout + done.stderr).decode()

    def reaches(self, host: str, address: str, port: int) -> bool:
        argv = ["timeout", "3", "bash", "-c", f"echo >/dev/tcp/{address}/{port}"]
        return self.containers[host].run(argv, check=False).returncode == 0


@contextmanager
def bare_hosts(folder: Path) -> Iterator[BareHosts]:
    """Them, gone at the end; the engine must be there."""
    engine.have_base()
    keys, project = Keys(folder), f"lecternbare{os.getpid()}"
    with composed(COMPOSE, project, keys):
        yield BareHosts(project, keys, folder)
