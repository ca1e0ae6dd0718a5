"""Classes that are aired in the test's own process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.playout.receiver import Receiver
from tests.playout.turned import READS_A_CLOCK, Air


@pytest.fixture
async def air(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Air]:
    with Receiver() as receiver:
        found = Air(tmp_path, receiver)
        for module in READS_A_CLOCK:
            monkeypatch.setattr(module, "time", found.clock)
        yield found
        for one in found.made:
            one.end()
