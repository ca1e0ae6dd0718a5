"""What goes out to people is in the units that they use."""

import pytest

from lectern.effects import outgoing


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(86400, "24 h"), (3600, "1 h"), (5400, "90 min"), (7200, "2 h"), (9000, "2.5 h"), (60, "1 min"), (45, "45 s")],
)
def test_a_length_of_time_is_told_in_the_unit_of_people(seconds: float, said: str) -> None:
    assert outgoing.span(seconds) == said
