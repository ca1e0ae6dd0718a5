"""Fixtures of the rollout's tests: a Redis of a module's own, an old teacher's database."""

from tests.effects.redis_servers import empty_redis, redis_of_a_module
from tests.rollout.old_teacher import a_database, a_file

__all__ = ["a_database", "a_file", "empty_redis", "redis_of_a_module"]
