"""Whether a goal of the benchmarks is met is told by its figure, or by its ratio."""

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import met, number
from benchmarks.page import SUMMARY
from benchmarks.reasons import REASONS, reason

ROOT = Path(__file__).parents[2]

FIGURE: dict[str, Any] = {"unit": "s", "ours": 2.0, "peers": {"du": 0.5}, "limit": None, "more_is_better": False}
FIGURE |= {"ratio_to_limit": None, "ratio_to_best_peer": 4.0, "note": "", "machine": {"load": 0.0}}


REPORT: dict[str, Any] = json.loads((ROOT / "bench-report.json").read_text(encoding="utf-8"))


def test_the_report_is_of_one_commit_and_one_machine() -> None:
    """Figures of two machines, or of two releases, cannot be compared."""
    machines = [{name: value for name, value in one["machine"].items() if name != "load"} for one in REPORT.values()]
    assert all(one == machines[0] for one in machines)
    assert machines[0]["commit"]
    assert not machines[0]["commit"].endswith("-dirty")


def test_each_goal_that_is_not_met_has_its_reason_and_no_other_has_one() -> None:
    """By how much is on the page; why, a person has to find out. A reason that stays reads as a fault."""
    short = [row for row, one in REPORT.items() if met(one) is False]
    assert [row for row in short if not reason(row)] == []
    assert [one for one in REASONS if not any(row.startswith(one) for row in short)] == []


def test_the_page_is_made_of_the_report() -> None:
    """Its first table has the report's figures: a page that was written by hand, or of another run, would not."""
    said = (ROOT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
    for row, what in SUMMARY.items():
        assert f"| {what} | **{number(REPORT[row]['ours'])} {REPORT[row]['unit']}** |" in said
