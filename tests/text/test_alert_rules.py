"""Each alert rule leads to a part of the runbook that is there, and has a sister for the time that it hears nothing."""

import json
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it carries no types

from lectern.page import runbook

ROOT = Path(__file__).parents[2]
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "dashboards/alerts.yml").read_text(encoding="utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
HEADINGS = re.findall(r"^## (.+)$", (ROOT / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
NOT_ALWAYS_THERE = {
    "lectern_transcodes_total": "lectern_info",  # before the first transcoding
    "lectern_waiting_slack_seconds": "lectern_waiting_classes",  # while no class waits
}


def test_each_rule_leads_to_a_part_of_the_runbook() -> None:
    wrong = []
    for rule in RULES:
        told = rule["annotations"]
        anchor = runbook.anchor(told["runbook"])
        is_there = told["runbook"] in HEADINGS and f'id="{anchor}"' in runbook.rendered()
        wrong += [] if is_there and told["runbook_url"].endswith(f"/runbook#{anchor}") else [rule["alert"]]
    assert wrong == []


def test_a_rule_that_hears_nothing_has_a_sister_that_says_so() -> None:
    names = r"(?:lectern_[a-z_]+|\bup)(?![a-z_(])"
    absent = {name for rule in RULES for name in re.findall(names, rule["expr"]) if "absent(" in rule["expr"]}
    used = {name for rule in RULES for name in re.findall(names, rule["expr"]) if "absent(" not in rule["expr"]}
    assert {name for name in used if NOT_ALWAYS_THERE.get(name, name) not in absent} == set()


def test_each_panel_of_the_dashboard_says_what_it_shows_and_when_it_matters() -> None:
    panels = json.loads((ROOT / "dashboards/lectern.json").read_text(encoding="utf-8"))["panels"]
    said = [one.get("description", "") for one in panels]
    assert all(len(one) > 40 for one in said)
    assert len(set(said)) == len(panels)
