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
    """A larger case of what the day claims, too, is the night's alone."""
    matrix, larger = "tests/rollout/test_killed.py", "tests/flows/test_http_live.py"
    assert not any("[50-1000]" in one for one in collected("--depth", "ci", larger))
    first, second = (collected("--depth", "ci", "--seed", seed, matrix) for seed in "12")
    functions = [line.partition("[")[0] for line in first]
    assert {functions.count(one) for one in functions} == {DRAWN}
    assert len(first) == len(second)
    assert first != second
