"""Hosts and a teacher for each file; after each claim nothing is left there."""

from collections.abc import Iterator

import pytest

from tests.flows.ecs.servers import Ecs, Server
from tests.stage import STAGES, Town
from town.oss_transcoder import Behaviour, Rule


@pytest.fixture(scope="module")
def ecs(request: pytest.FixtureRequest, town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecs]:
    """The SETTINGS of a file are its own; those with an empty value are not set."""
    folder = tmp_path_factory.mktemp("ecs")
    first = Server(folder / "a")
    servers = [first, Server(folder / "b", first.client_key)]  # both let the same key in, and each has its own home
    for server in servers:
        town.background.run(server.start())
        town.background.run(server.gate.start())
    (folder / "known_hosts").write_text("".join(server.known for server in servers))
    slow = folder / "ffmpeg"
    slow.write_text('#!/bin/sh\ncase "$*" in *-force_key*) set -- -readrate 4 "$@";; esac\nexec ffmpeg "$@"\n')
    slow.chmod(0o755)
    settings = {
        "ECS_HOSTS": ",".join(server.name for server in servers),
        "ECS_SSH_KEY": str(first.client_key),
        "ECS_KNOWN_HOSTS": str(folder / "known_hosts"),
        "ECS_WORK_ROOT": "~/work",
        "ECS_FFMPEG": str(slow),
        "MAX_ECS_JOBS": "1",
        "ECS_COOLDOWN_S": "5",
        "HTTP_TIMEOUT_S": "30",  # who encodes on this machine leaves little for who asks
        **getattr(request.module, "SETTINGS", {}),
    }
    found = Ecs(town, folder, settings)
    for name in [name for name, value in settings.items() if not value]:
        del found.settings[name]
    found.a, found.b = servers
    STAGES.append(found)
    try:
        found.oss.behave(Rule(Behaviour.FAIL))
        found.up("teacher", "streamer1")
        yield found
    finally:
        STAGES.remove(found)
        found.close()
    for server in servers:
        town.background.run(server.gate.stop())
        town.background.run(server.stop())


@pytest.fixture(autouse=True)
def _whole(ecs: Ecs) -> Iterator[None]:
    """After each claim nothing is left, and the ways are open."""
    yield
    ecs.town.origin.faults.clear()
    for server in (ecs.a, ecs.b):
        ecs.town.background.run(server.gate.start())
    ecs.up("teacher")
    ecs.clean()
