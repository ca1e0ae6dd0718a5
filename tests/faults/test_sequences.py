"""Random sequences of booking, change, move and cancel about one class, while its streamer's processes are killed."""

import random

import pytest

from tests.faults.sequences import played
from tests.stage import Town

pytestmark = [pytest.mark.night, pytest.mark.timeout(1200)]


def test_what_was_answered_is_what_is_aired_and_told(town: Town, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The receiver, the rows of both hosts, `explain` and the report say the same of each of twenty classes."""
    seed = random.SystemRandom().randrange(1_000_000)
    found = played(town, tmp_path_factory.mktemp("sequences"), 20, seed)
    assert found == [], f"play it again: python -m tests.faults.sequences --n 20 --seed {seed}"
