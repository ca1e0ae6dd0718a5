"""Whether a goal of the benchmarks is met is told by its figure, or by its ratio."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reasons
from benchmarks.figures import met, number
from benchmarks.page import SUMMARY, page
from benchmarks.reasons import REASONS, reason

ROOT = Path(__file__).parents[2]

FIGURE: dict[str, Any] = {"unit": "s", "ours": 2.0, "peers": {"du": 0.5}, "limit": None, "more_is_better": False}
FIGURE |= {"ratio_to_limit": None, "ratio_to_best_peer": 4.0, "note": "", "machine": {"load": 0.0}}
MACHINE = {"cores": 2, "memory_gib": 1, "system": "Linux", "python": "3.11", "load": 0.0, "commit": "c"}


def test_a_goal_is_met_by_the_figure_or_by_its_ratio() -> None:
    is_met = {"": None, "<= 2": True, "<= 1.9": False, ">= 1,000": False, "< 2": False}
    is_met |= {"<= 5 x du": True, "<= 3 x du": False}
    assert {goal: met({**FIGURE, "goal": goal}) for goal in is_met} == is_met


def test_the_page_names_the_goals_that_are_not_met_and_no_others() -> None:
    rows = {
        "good": {**FIGURE, "goal": "<= 2", "machine": MACHINE},
        "bad": {**FIGURE, "goal": "<= 1", "machine": MACHINE},
    }
    said = page(rows, {}, {}).partition("## Goals that are not met")[2].partition("## All rows")[0]
    assert said.strip() == "- bad: 2 s; the goal is <= 1."


def test_goals_with_one_reason_are_followed_by_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "REASONS", {"storm": "One core."})
    rows = {name: {**FIGURE, "goal": "<= 1", "machine": MACHINE} for name in ("storm, 10", "other", "storm, 20")}
    said = page(rows, {}, {}).partition("## Goals that are not met")[2].partition("## All rows")[0]
    goal = "2 s; the goal is <= 1."
    assert said.split("\n") == [
        *("", "", f"- storm, 10: {goal}", f"- storm, 20: {goal}", "", "One core."),
        *("", f"- other: {goal}", "", ""),
    ]


def test_the_reason_of_a_goal_is_the_one_that_fits_its_row_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "REASONS", {"storm": "One core.", "storm, cached": "Two hosts."})
    assert [reasons.reason(row) for row in ("storm, cached, 10,000", "storm, refused, 10,000", "cache")] == [
        "Two hosts.",
        "One core.",
        "",
    ]


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
