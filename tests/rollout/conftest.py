"""Fixtures of the rollout's tests: a host under a supervisord, and a Redis of a module's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effects.redis_servers import empty_redis, redis_of_a_module
from tests.playbooks.hosts.places import Role
from tests.rollout.host import Host, a_host

__all__ = ["empty_redis", "redis_of_a_module"]


@pytest.fixture
def role() -> Role:
    """That of `host`, if the test has no other."""
    return "streamer"


@pytest.fixture
def host(tmp_path: Path, role: Role, request: pytest.FixtureRequest) -> Iterator[Host]:
    """With its old program at work; an unmarked test, which starts none, has a host on which nothing changes."""
    is_live = any(map(request.node.get_closest_marker, ("live", "night")))
    with a_host(tmp_path, role, start=is_live) as found:
        yield found
