"""Containers ready to be rolled out onto: keys, known hosts, an inventory, a control host with Redis and Prefect."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from lectern.media.ffmpeg import executable
from tests.playbooks.hosts.container import USER, Container, ContainerHost, reached_by
from tests.playbooks.hosts.controller import PREFECT_PASSWORD, REDIS_PASSWORD, Controller, variables
from tests.playbooks.hosts.faults import Ground
from tests.stage import wait_until
from town import recordings

REDIS_URL = f"redis://:{REDIS_PASSWORD}@control:6379/0"
PREFECT_API_URL = "http://control:4200/api"
SERVICES = ("control", "teacher", "streamer1", "streamer2")
PORTS = (*((name, 22) for name in SERVICES), ("control", 6379))
"""What is published on 127.0.0.1."""
COMPOSE = Path(__file__).parent / "compose.yml"
UP = "up -d --build --wait --wait-timeout 120"


class Keys:
    """The session's own SSH key, in a folder that the containers see."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "keys"
        self.shared.mkdir()
        self.private = folder / "id"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.private)]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        (self.shared / USER).write_bytes(self.private.with_suffix(".pub").read_bytes())


class Fleet(Ground):
    """The services of compose.yml, up already; *ports* are those of 127.0.0.1, by service and the container's port."""

    def __init__(self, folder: Path, project: str, keys: Keys, ports: Mapping[tuple[str, int], int]) -> None:
        super().__init__()
        self.folder, self.ports = folder, ports
        recording = folder / "recording.flv"
        asyncio.run(recordings.make(executable(), recording, seconds=30, width=320, height=240))
        self.containers = {name: Container(project, name) for name in SERVICES}
        homes = {"teacher": ("/root", "root"), "streamer1": ("/root", "root"), "streamer2": ("/srv/idc", "idc")}
        self.hosts: dict[str, ContainerHost] = {
            name: ContainerHost(
                self.containers[name], "teacher" if name == "teacher" else "streamer", *home, REDIS_URL, recording
            )
            for name, home in homes.items()
        }
        self._keys, self.known_hosts = keys, folder / "known_hosts"
        self.redis_url = REDIS_URL.replace("control:6379", f"127.0.0.1:{ports['control', 6379]}")
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url, decode_responses=True)

    def mend(self) -> None:
        for one in self.containers.values():
            one.mend()

    def pings(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def meet(self) -> None:
        """Wait until each can be reached, then write down its real host key, read from inside."""
        wait_until(self._greeted, description="every sshd says its SSH- banner")
        lines = [f"[127.0.0.1]:{self.ports[name, 22]} {one.host_key()}\n" for name, one in self.containers.items()]
        self.known_hosts.write_text("".join(lines))

    def _greeted(self) -> bool:
        for name in self.containers:
            try:
                with socket.create_connection(("127.0.0.1", self.ports[name, 22]), timeout=5) as connection:
                    connection.settimeout(5)
                    if not connection.recv(16).startswith(b"SSH-"):
                        return False
            except OSError:
                return False
        return True

    def inventory(self, release: Path, **hosts: Mapping[str, Any]) -> dict[str, Any]:
        groups: dict[str, Any] = {"control": {"hosts": {}}, "teachers": {"hosts": {}}, "streamers": {"hosts": {}}}
        groups["control"]["hosts"]["control1"] = self._reached("control")
        for name, host in self.hosts.items():
            groups[f"{host.places.role}s"]["hosts"][name] = {
                **self._reached(name),
                **variables(host.places, allowed_origins="control", allowed_push_hosts="control"),
                **hosts.get(name, {}),
            }
        shared = {
            "release": "2.0.0",
            "release_file": str(release),
            "lectern_redis_url": REDIS_URL,
            "provision_postgres": False,  # the bare hosts have it
            "lectern_prefect_api_url": PREFECT_API_URL,
            "lectern_prefect_api_auth_string": f"lectern:{PREFECT_PASSWORD}",
        }
        return {**groups, "all": {"vars": shared}}

    def _reached(self, name: str) -> dict[str, Any]:
        return reached_by(self.ports[name, 22], self._keys.private, self.known_hosts)

    def use(self, release: Path) -> None:
        """Provision the hosts, on which the old programs are, and roll out *release* from now on."""
        self.controller = Controller(self.folder, self.inventory(release), os.environ["PATH"])
        for host in self.hosts.values():
            host.reset()
        self.controller.read_out("How do I roll out?", "provision.yml").assert_ok()
        wait_until(self.pings, description="the control host's Redis answers from outside")


@contextmanager
def composed(file: Path, project: str, keys: Keys) -> Iterator[Callable[..., str]]:
    """The services of a compose file, up; yields what runs `docker compose` for them. The engine must be there."""

    def run(*words: str) -> str:
        argv = ["docker", "compose", "-p", project, "-f", str(file), *words]
        environment = {**os.environ, "LECTERN_TEST_KEYS": str(keys.shared)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    try:
        run(*UP.split())
        yield run
    finally:
        run("down", "-v", "--remove-orphans")


@contextmanager
def raised(folder: Path) -> Iterator[Fleet]:
    """A fleet without pytest."""
    keys, project = Keys(folder), f"lectern{os.getpid()}"
    with composed(COMPOSE, project, keys) as run:
        ports = {(name, port): int(run("port", name, str(port)).rpartition(":")[2]) for name, port in PORTS}
        fleet = Fleet(folder, project, keys, ports)
        fleet.meet()
        yield fleet
        fleet.redis.close()
