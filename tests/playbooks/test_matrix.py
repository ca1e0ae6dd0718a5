"""Some cases of the crash matrix, drawn by the seed; `make test-rollout-matrix` plays all of them."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.playbooks.hosts.scene import opened
from tests.playbooks.matrix import ROLLBACK, ROLLOUT, Share, Tally, play_all
from tests.stage import Town

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]  # each case is a rollout, and what comes after its fault
CASES = 2
"""Fewer than of other matrices: for each, a host is laid out and rolled out on, and a playbook is played twice."""


def test_a_host_ends_wholly_new_or_wholly_old_whatever_fails(
    town: Town, release_file: Path, pytestconfig: pytest.Config
) -> None:
    """A teacher or a streamer, the rollout or its way back, as the seed says: each is listed by a play of its own."""
    seed, tally = pytestconfig.option.seed, Tally(Console(highlight=False, soft_wrap=True))
    name, plan = "teacher1" if seed % 2 else "streamer1", ROLLBACK if seed // 2 % 2 else ROLLOUT
    with opened(town, release_file, name) as scene:
        scene.stage(name)
        play_all(scene, name, plan, Share(draw=CASES, seed=seed), tally)
    assert (tally.done, tally.bad) == (CASES, [])
