"""A short day with faults, always the same one, and one that nobody has seen before."""

import sys
from collections.abc import Iterator

import pytest

from tests.faults.__main__ import suffer
from tests.stage import Town

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

KNOWN = 11
CLASSES = 10


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town of its own: its servers are killed and stopped."""
    with Town(tmp_path_factory.mktemp("frail"), durable=True) as found:
        yield found


@pytest.mark.parametrize(("seed", "losses"), [(KNOWN, 1), (None, 0)], ids=["known", "random"])
def test_a_day_with_faults_loses_no_class(
    frail: Town,
    seed: int | None,
    losses: int,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    """Each is answered one way and pushed once at a time; all citations are right, no cache is over its bound.

    On the known day a streamer is cut off alone, and stops before another takes over.
    """
    played = pytestconfig.option.seed if seed is None else seed
    verdict = suffer(frail, tmp_path_factory.mktemp("day"), played, CLASSES, losses=losses)
    with capsys.disabled():
        sys.stdout.write(f" [{verdict.line()}] ")
    again = f"play it again: python -m tests.faults --classes {CLASSES} --losses {losses} --seed {played}"
    assert verdict.complaints() == [], again
    assert verdict.numbers["taken over on air"] == losses, again
