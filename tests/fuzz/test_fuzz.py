"""Odd messages hurt nobody but themselves."""

from pathlib import Path

import pytest

from tests.fuzz.session import living
from tests.stage import Town

pytestmark = pytest.mark.night
SEED = 1
MESSAGES = 300


def test_every_good_booking_among_odd_messages_is_answered_its_one_way(town: Town, tmp_path: Path) -> None:
    """No process ends, and no host says that it is ready while it takes nothing."""
    with living(town, tmp_path / "fuzz", SEED) as session:
        assert session.play(MESSAGES) == [], f"make fuzz N={MESSAGES} SEED={SEED} does it again"
        assert session.letters > MESSAGES / 3
