"""Which tests run when is said in their files, and a test that says it wrongly fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import DRAWN, ROOT
from tests.stage import Child


def test_an_unmarked_test_that_starts_a_program_fails_in_words(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"starts sleep 60: mark it live"):
        Child(["sleep", "60"], {}, tmp_path / "sleep.log")


def collected(*arguments: str) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.live
def test_the_ci_draws_a_few_cases_of_each_night_matrix_by_the_seed() -> None:
    """As many as its mark says; a larger case of what the day claims, too, is the night's alone."""
    drawn = {"tests/rollout/test_killed.py": 3, "tests/faults/test_changes.py": DRAWN}
    first, second = (
        collected("--depth", "ci", "--seed", seed, *drawn, "tests/flows/test_examples.py") for seed in "12"
    )
    assert not any("[50-1000]" in one for one in first)
    of_matrices = [line.partition("[")[0] for line in first if line.partition("::")[0] in drawn]
    assert {(one.partition("::")[0], of_matrices.count(one)) for one in of_matrices} == {*drawn.items()}
    assert len(first) == len(second)
    assert first != second
