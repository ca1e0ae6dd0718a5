"""A teacher and streamers in folders of this machine, with a Redis of their own, and a controller for them."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.effects.redis_servers import port_of, redis_server
from tests.playbooks.hosts.controller import REDIS_PASSWORD, Controller, variables
from tests.playbooks.hosts.faults import Ground
from tests.playbooks.hosts.local import LocalHost, staged
from tests.playbooks.hosts.places import Role
from tests.stage import Town
from tests.stage.leases import granting
from tests.strategies import booking
from town import programs
from town.ports import HOST


class Scene(Ground):
    """Old programs at work, ready to be rolled out onto."""

    def __init__(self, town: Town, folder: Path, release: Path, names: Sequence[str], port: int) -> None:
        super().__init__()
        self.town, self.folder, self.release = town, folder, release
        self.redis_url = f"redis://:{REDIS_PASSWORD}@{HOST}:{port}/0"
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url, decode_responses=True)
        self.hosts: dict[str, LocalHost] = {name: self._host(name) for name in names}
        self.leased = [] if any(name.startswith("teacher") for name in names) else list(names)
        """Streamers that are granted the leases that they ask for, as by the teacher that is rolled out before them."""
        self._always: Mapping[str, Mapping[str, Any]] = {}
        self.controller = Controller(folder, self.inventory(), programs.path(town.programs))

    # -- the hosts ---------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> LocalHost:
        role: Role = "teacher" if name.startswith("teacher") else "streamer"
        recording, wget = self.town.folder / "master.flv", shutil.which("wget", path=programs.path(self.town.programs))
        assert wget is not None
        host = LocalHost(self.folder, name, role, self.redis_url, recording, self.town.environment, wget)
        host.start()
        return host

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

    def stage(self, *names: str) -> None:
        """Lay the release onto the hosts *names*, as its playbook does with many times the work."""
        for name in names:
            self.hosts[name].lay(staged(self.release))

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
        self.hosts[name].end_lease()
        try:
            yield
        finally:
            self.leased.append(name)

    # -- the platform ------------------------------------------------------------------------------------------------

    def publish(self, channel: str, body: str) -> None:
        assert self.redis.publish(channel, body) > 0, f"nobody listens on {channel}"

    def book(
        self,
        class_id: str,
        record_id: int,
        resolution: str,
        *,
        starts_in_s: float,
        length_s: float = 6,
        is_made: bool = True,
    ) -> None:
        """Book a class whose recording is there in its resolution, or is not made yet."""
        url_for, start = self.town.origin.url_for, time.time() + starts_in_s
        listed = {resolution: url_for(f"{record_id}/{record_id}_{resolution}.flv")} if is_made else {}
        urls = {"video_url": url_for(f"{record_id}/{record_id}.flv"), "push_url": self.town.receiver.url(class_id)}
        what = {"record_id": record_id, "video_resolution": resolution, "video_url_list": listed}
        self.publish("order", booking(class_id, start_time=start, end_time=start + length_s, **urls, **what).to_json())

    def close(self) -> None:
        """End and clear everything."""
        for host in self.hosts.values():
            host.close()
        self.redis.close()


SETTINGS = {"BROADCAST_LEAD_S": "3", "SWEEP_INTERVAL_S": "2", "HEARTBEAT_INTERVAL_S": "2", "DRAIN_TIMEOUT_S": "1"}


def _settings(host: LocalHost) -> dict[str, str]:
    playout = {"PLAYOUT_DIR": str(host.playout_dir)} if host.places.role == "streamer" else {}
    return {**SETTINGS, **playout}


@contextmanager
def opened(town: Town, release: Path, *names: str) -> Iterator[Scene]:
    """A scene with the hosts *names*; a teacher's name begins with ``teacher``."""
    with tempfile.TemporaryDirectory(prefix="lt-") as folder, redis_server(Path(folder)) as server:
        server.config_set("requirepass", REDIS_PASSWORD)
        scene = Scene(town, Path(folder), release, names, port_of(server))
        try:
            # Without a lease, they are not well for long.
            with granting(scene.redis, scene.leased, key="streamers", stream="streamer:{}"):
                yield scene
        finally:
            scene.close()
