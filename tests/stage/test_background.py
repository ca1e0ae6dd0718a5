"""The servers that tests share go on by the real clock, whatever a test does to its own."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.stage.town import Background
from town.origin import Origin


def test_a_server_ends_though_a_test_turned_the_clock_while_it_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server sleeps a tenth of a second at a time, and the one that begins while the clock is ahead ends, too."""
    real = time.monotonic
    with closing(Background()) as background:
        origin = Origin(tmp_path)
        background.run(origin.start())
        monkeypatch.setattr(time, "monotonic", lambda: real() + 3600)
        time.sleep(0.3)
        monkeypatch.undo()
        background.run(origin.stop(), timeout_s=20)
