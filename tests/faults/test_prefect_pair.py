"""Two Prefect servers and their services on one PostgreSQL, each killed in turn while bookings come."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.stage import Child, Gate, Stage, Town, staged, wait_until
from tests.stage.children import UP_S
from tests.stage.postgres import Databases
from town.ports import HOST, free_port

pytestmark = pytest.mark.night
EACH = 12
"""Bookings, half a second apart: in their middle a server is killed."""

ANSWERED_S, SHOWN_S = 30.0, 120.0
RESTART_S = 3.0


class TownOfTwo(Town):
    """A town whose Prefect is two servers behind a balancer, their services apart, and what they share."""

    def __init__(self, folder: Path, database_url: str) -> None:
        super().__init__(folder)
        self._ports = {"prefect1": free_port(), "prefect2": free_port()}
        self.balancer = Gate(*self._ports.values(), port=self.prefect_port)
        shared = f"redis://{HOST}:{self.redis_port}"
        self.more = {  # for the servers alone: the hosts never ask for it
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_URL": f"{shared}/1",
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": f"{shared}/1",
            "PREFECT_SERVER_DOCKET_URL": f"{shared}/2",
        }

    def stop(self) -> None:
        self.background.run(self.balancer.stop())
        super().stop()

    def begin(self, server: str) -> Child:
        """Start one of them; ``prefect`` is all that belongs to it."""
        prefect = [sys.executable, "-m", "prefect", "server"]
        if server in self._ports:
            where = ["--host", HOST, "--port", str(self._ports[server])]
            argv = [*prefect, "start", "--no-services", *where]
        elif server == "services":
            argv = [*prefect, "services", "start"]
        elif server == "prefect":
            super().begin("redis")
            upgrade = [*prefect, "database", "upgrade", "-y"]
            subprocess.run(upgrade, env=self.environment, check=True, capture_output=True, timeout=120)
            self.background.run(self.balancer.start())
            # Two that begin together would both write the types of blocks, and one of them would end.
            other, second = self.begin("prefect2"), f"http://{HOST}:{self._ports['prefect2']}/api/health"

            def is_up() -> bool:
                assert other.exit_code is None, f"the Prefect server ended:\n{other.said()[-2000:]}"
                return self._answers(lambda: httpx.get(second, trust_env=False).is_success, httpx.HTTPError)

            wait_until(is_up, timeout_s=UP_S, description="the second Prefect server answers")
            return [self.begin(one) for one in ("services", "prefect1")][-1]
        else:
            return self.servers[server]  # it began before Prefect, which wants it
        self.servers[server] = Child(argv, self.environment, self.folder / f"{server}.log")
        return self.servers[server]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, postgresql: Databases) -> Iterator[Stage]:
    """A teacher and a streamer whose Prefect is the two servers."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("prefect_redis", reason="rm .venv/.built and make brings it")
    url = make_url(postgresql.fresh()).set(drivername="postgresql+asyncpg")
    with (
        TownOfTwo(tmp_path_factory.mktemp("two"), url.render_as_string(hide_password=False)) as town,
        staged(town, tmp_path_factory.mktemp("stage")) as found,
    ):
        found.up("teacher", "streamer1")
        yield found


KILLS: Mapping[str, tuple[str, ...]] = {
    "one server": ("prefect1",),
    "the services": ("services",),
    "both servers": ("prefect1", "prefect2"),
}


@pytest.mark.parametrize("killed", KILLS.values(), ids=KILLS)
def test_all_are_answered_and_shown_once_whichever_is_killed(stage: Stage, killed: tuple[str, ...]) -> None:
    """The bookings do not wait; what nobody could show meanwhile is shown when the servers are back."""
    record = stage.town.record("480P")
    class_ids = []
    for number in range(EACH):
        booking = stage.booking(record, "480P", listed=("480P",), starts_in_s=90_000)
        class_ids.append(stage.book_on_stream(booking))
        if number == EACH // 2:
            for one in killed:
                stage.town.servers[one].kill()
        time.sleep(0.5)
    for class_id in class_ids:
        assert stage.answer(class_id, timeout_s=ANSWERED_S)["result"] == "success"
    time.sleep(RESTART_S)  # as long as a supervisor takes
    for one in killed:
        stage.town.begin(one)
    shown = dict.fromkeys(class_ids, 0)

    def all_shown() -> bool:
        with suppress(httpx.HTTPError):  # a server that begins, or ends, at this moment
            for class_id in class_ids:
                shown[class_id] = len(stage.runs("teacher", "booking", tags=[f"class:{class_id}"]))
            return all(shown.values())
        return False

    wait_until(all_shown, timeout_s=SHOWN_S, pause_s=1.0, description="each class has a run")
    unshown = "select id from inbox_list where state <> 'new' and recorded_at is null"
    wait_until(lambda: not stage.rows("teacher", unshown), timeout_s=SHOWN_S, description="all is shown")
    wait_until(all_shown, timeout_s=SHOWN_S, description="all are counted once more")
    assert shown == dict.fromkeys(class_ids, 1), "each is shown once"
    assert [len(stage.ear.answers[class_id]) for class_id in class_ids] == [1] * EACH
