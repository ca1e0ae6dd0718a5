"""Which tests run when is said in their files, and a test that says it wrongly fails."""

from pathlib import Path

import pytest

from tests.stage import Child


def test_an_unmarked_test_that_starts_a_program_fails_in_words(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"starts sleep 60: mark it live"):
        Child(["sleep", "60"], {}, tmp_path / "sleep.log")
