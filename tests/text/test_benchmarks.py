"""Whether a goal of the benchmarks is met is told by its figure, or by its ratio."""

from typing import Any

import pytest

from benchmarks import reasons
from benchmarks.figures import met
from benchmarks.page import page

FIGURE: dict[str, Any] = {"unit": "s", "ours": 2.0, "peers": {"du": 0.5}, "limit": None, "more_is_better": False}
FIGURE |= {"ratio_to_limit": None, "ratio_to_best_peer": 4.0, "note": "", "machine": {"load": 0.0}}
MACHINE = {"cores": 2, "memory_gib": 1, "system": "Linux", "python": "3.11", "load": 0.0, "commit": "c"}


@pytest.mark.parametrize(
    ("goal", "is_met"),
    [
        ("", None),
        ("<= 2", True),
        ("<= 1.9", False),
        (">= 1,000", False),
        ("< 2", False),
        ("<= 5 x du", True),
        ("<= 3 x du", False),
    ],
)
def test_a_goal_is_met_by_the_figure_or_by_its_ratio(goal: str, is_met: bool | None) -> None:
    assert met({**FIGURE, "goal": goal}) is is_met


def test_the_page_names_the_goals_that_are_not_met_and_no_others() -> None:
    rows = {
        "good": {**FIGURE, "goal": "<= 2", "machine": MACHINE},
        "bad": {**FIGURE, "goal": "<= 1", "machine": MACHINE},
    }
    said = page(rows, {}, {}).partition("## Goals that are not met")[2].partition("## All rows")[0]
    assert said.strip() == "- bad: 2 s; the goal is <= 1."


def test_the_reason_of_a_goal_is_the_one_that_fits_its_row_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons, "REASONS", {"storm": "One core.", "storm, cached": "Two hosts."})
    assert [reasons.reason(row) for row in ("storm, cached, 10,000", "storm, refused, 10,000", "cache")] == [
        "Two hosts.",
        "One core.",
        "",
    ]
