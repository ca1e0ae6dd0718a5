"""Fixtures of the rollout's tests: a host under a supervisord, and a Redis of a module's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effects.redis_servers import empty_redis, redis_of_a_module
from tests.rollout.host import Host, a_host

__all__ = ["empty_redis", "redis_of_a_module"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A streamer with its old program at work."""
    with a_host(tmp_path) as found:
        yield found
