"""An alarm names a heading of RUNBOOK.md: each code has one, and each has its five parts."""

import re
from pathlib import Path

import pytest

from lectern.errors import CODES

RUNBOOK = (Path(__file__).parents[2] / "RUNBOOK.md").read_text(encoding="utf-8")
PARTS = ["You see", "Make sure", "Do", "Confirm", "Undo"]
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!#).*\n?)*)", RUNBOOK, flags=re.MULTILINE))


def test_the_headings_with_a_number_are_the_codes_and_no_others() -> None:
    assert {heading for heading in SECTIONS if heading[0].isdigit()} == {code.runbook for code in CODES.values()}


def test_the_headings_are_in_the_order_of_the_numbers_and_none_comes_twice() -> None:
    numbers = [int(number) for number in re.findall(r"^## (\d+): ", RUNBOOK, flags=re.MULTILINE)]
    assert numbers == sorted(CODES)


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_section_has_the_five_parts_in_their_order(heading: str) -> None:
    assert re.findall(r"^\*\*(.+?)\*\*", SECTIONS[heading], flags=re.MULTILINE) == PARTS


@pytest.mark.parametrize("what", ["watch a booking", "retry a failed run", "cancel a class", "evict", "start and stop"])
def test_the_daily_work_is_explained(what: str) -> None:
    assert any(heading.startswith("How do I") and what in heading for heading in SECTIONS)


SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for folder in ("flows", "lib/lectern")
    for path in sorted((Path(__file__).parents[2] / folder).rglob("*.py"))
)


@pytest.mark.parametrize("heading", [one for one in SECTIONS if one[0].islower()])
def test_a_heading_that_begins_small_is_what_a_log_says_to_the_letter(heading: str) -> None:
    """The operator searches for the sentence that they see; what differs from time to time is left out."""
    assert heading.removesuffix("AwaitingRetry") in SOURCES
