"""A teacher and streamers in folders of this machine, with a Redis of their own, and a controller for them."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import redis

from tests.playbooks.hosts.controller import REDIS_PASSWORD, Controller, Fault, Played, variables
from tests.playbooks.hosts.local import LocalHost
from tests.playbooks.hosts.old_world import fill_redis
from tests.playbooks.hosts.wholly import Before
from tests.stage import Child, Town, wait_until
from tests.stage.leases import granting
from town import programs
from town.ports import HOST, free_port


class Scene:
    """Old programs at work, ready to be rolled out onto."""

    def __init__(self, town: Town, folder: Path, release: Path, names: Sequence[str]) -> None:
        self.town, self.folder, self.release = town, folder, release
        self.port = free_port()
        self.redis_url = f"redis://:{REDIS_PASSWORD}@{HOST}:{self.port}/0"
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        options = {"port": self.port, "bind": HOST, "save": "", "appendonly": "no", "requirepass": REDIS_PASSWORD}
        argv = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._redis = Child([town.programs.redis_server, *argv], town.environment, folder / "redis.log")
        wait_until(self._pings, description="Redis answers")
        self.hosts = {name: self._host(name) for name in names}
        self.before: dict[str, Before] = {}
        self.leased = [] if any(name.startswith("teacher") for name in names) else list(names)
        """Streamers that are granted the leases that they ask for, as by the teacher that is rolled out before them."""
        self._always: Mapping[str, Mapping[str, Any]] = {}
        self.controller = Controller(folder, self.inventory(), programs.path(town.programs))

    def _pings(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    # -- the hosts ---------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> LocalHost:
        role: Literal["teacher", "streamer"] = "teacher" if name.startswith("teacher") else "streamer"
        recording, wget = self.town.folder / "master.flv", shutil.which("wget", path=programs.path(self.town.programs))
        assert wget is not None
        return LocalHost(self.folder, name, role, self.redis_url, recording, self.town.environment, wget)

    def inventory(self, **hosts: Mapping[str, Any]) -> dict[str, Any]:
        """The inventory; *hosts* have some variables differently."""
        groups: dict[str, Any] = {"teachers": {"hosts": {}}, "streamers": {"hosts": {}}}
        for name, host in self.hosts.items():
            groups[f"{host.places.role}s"]["hosts"][name] = {
                **variables(host.places, allowed_origins=HOST, allowed_push_hosts=HOST, more_settings=_settings(host)),
                **({"streamer_lease_timeout_s": 90} if host.places.role == "streamer" else {}),
                **self._always.get(name, {}),
                **hosts.get(name, {}),
            }
        groups["all"] = {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": next(iter(self.hosts.values())).places.python,
                "ansible_become": False,
                "release": "2.0.0",
                "release_file": str(self.release),
                "release_python": next(iter(self.hosts.values())).places.python,
                "lectern_redis_url": self.redis_url,
                "lectern_prefect_api_url": str(self.town.api.base_url).rstrip("/"),
            }
        }
        return groups

    def vary(self, **hosts: Mapping[str, Any]) -> None:
        """From now on, *hosts* have some variables differently."""
        self._always = hosts
        self.controller.write(self.inventory())

    def meanwhile(self, **hosts: Mapping[str, Any]) -> AbstractContextManager[None]:
        """*hosts* have some variables differently within the block."""
        return self._inventory_is(self.inventory(**hosts))

    def without_vault(self) -> AbstractContextManager[None]:
        """Within the block, the inventory has no value that comes from the vault, as if nobody opens it."""
        inventory = self.inventory()
        inventory["all"]["vars"].pop("lectern_redis_url")
        for variables_of_one in inventory["teachers"]["hosts"].values():
            variables_of_one.pop("teacher_transcode_sign_key")
        return self._inventory_is(inventory)

    @contextmanager
    def _inventory_is(self, inventory: Mapping[str, Any]) -> Iterator[None]:
        self.controller.write(inventory)
        try:
            yield
        finally:
            self.controller.write(self.inventory())

    @contextmanager
    def unleased(self, name: str) -> Iterator[None]:
        """Nobody grants the streamer *name* a lease within the block, as where no teacher runs."""
        self.leased.remove(name)
        self.host(name).end_lease()
        try:
            yield
        finally:
            self.leased.append(name)

    def host(self, name: str) -> LocalHost:
        """One of them."""
        return self.hosts[name]

    def reset(self, *names: str, keep_release: bool = True) -> None:
        """The hosts *names*, or all, as the old programs left them."""
        if any(host.places.role == "teacher" for host in self.hosts.values()):
            fill_redis(self.redis, "t")
        else:
            self.redis.flushdb()
            self.redis.script_flush()
        for name in names or self.hosts:
            host = self.hosts[name]
            host.reset(keep_release=keep_release)
            self.before[name] = Before(host, self.redis if host.places.role == "teacher" else None)

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        """Run a playbook for all of them, or as *arguments* say."""
        return self.controller.run(playbook, *arguments, fault=fault)

    def close(self) -> None:
        """End and clear everything."""
        for host in self.hosts.values():
            host.close()
        self.redis.close()
        self._redis.end()


class Many(Protocol):
    """A scene, or a fleet of containers."""

    before: dict[str, Before]
    controller: Controller

    def reset(self, *names: str) -> None:
        """The hosts *names* as the old programs left them."""

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        """Run a playbook."""


class Only:
    """One host of many."""

    def __init__(self, scene: Many, name: str) -> None:
        self.before, self.controller = scene.before, scene.controller
        self._scene, self._name = scene, name

    def reset(self) -> None:
        """The host as the old programs left it."""
        self._scene.reset(self._name)

    def run(self, playbook: str, *arguments: str, fault: Fault | None = None) -> Played:
        """Run a playbook for this host."""
        return self._scene.run(playbook, "--limit", self._name, *arguments, fault=fault)


SETTINGS = {"BROADCAST_LEAD_S": "3", "SWEEP_INTERVAL_S": "2", "HEARTBEAT_INTERVAL_S": "2", "DRAIN_TIMEOUT_S": "1"}


def _settings(host: LocalHost) -> dict[str, str]:
    playout = {"PLAYOUT_DIR": str(host.playout_dir)} if host.places.role == "streamer" else {}
    return {**SETTINGS, **playout}


@contextmanager
def opened(town: Town, release: Path, *names: str) -> Iterator[Scene]:
    """A scene with the hosts *names*; a teacher's name begins with ``teacher``."""
    folder = Path(tempfile.mkdtemp(prefix="lt-"))
    scene = Scene(town, folder, release, names)
    try:
        # Without a lease, they are not well for long.
        with granting(scene.redis, scene.leased, key="streamers", stream="streamer:{}"):
            yield scene
    finally:
        scene.close()
        shutil.rmtree(folder)
