"""The units for hosts that are set up by hand say what provision.yml writes on the others."""

import json
import re
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import jinja2
import yaml  # type: ignore[import-untyped]  # it carries no types

from lectern.page import runbook

ROOT = Path(__file__).parents[2]
UNITS, TEMPLATES = ROOT / "examples/units", ROOT / "playbooks/roles/provision/templates"


def parsed(text: str) -> dict[str, str]:
    """The service's lines but for those that name places and users."""
    found = RawConfigParser(strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    found.read_string(text)
    return {
        name: value
        for name, value in found["Service"].items()
        if name not in {"User", "WorkingDirectory", "ExecStart", "StateDirectory", "EnvironmentFile"}
    }


def test_the_playout_and_the_prefect_server_have_the_settings_of_a_busy_day() -> None:
    template = jinja2.Template((TEMPLATES / "lectern-playout.service.j2").read_text())
    assert parsed((UNITS / "lectern-playout.service").read_text()) == parsed(template.render())
    line = re.compile(r"^PREFECT_SERVER_SERVICES_\w+='.*'$", re.MULTILINE)
    example, template = (UNITS / "prefect.env").read_text(), (TEMPLATES / "prefect.env.j2").read_text()
    assert set(line.findall(example)) == set(line.findall(template)) != set()


def test_a_playout_is_started_again_however_often_it_has_ended() -> None:
    """It is after 100 ms, and systemd would give it up for ever after five starts in 10 s: no class would be aired."""
    for path in (UNITS / "lectern-playout.service", TEMPLATES / "lectern-playout.service.j2"):
        unit, _, service = path.read_text().partition("[Service]")
        assert "\nStartLimitIntervalSec=0\n" in unit
        assert "\nRestart=always\n" in service


def test_a_worker_that_is_killed_for_its_memory_takes_no_session_along() -> None:
    """Its supervisor hands them on; systemd's default is to stop a unit of which one process is killed so."""
    for path in (UNITS / "lectern-playout.service", TEMPLATES / "lectern-playout.service.j2"):
        assert "\nOOMPolicy=continue\n" in path.read_text().partition("[Service]")[2]


def test_each_program_that_a_unit_starts_is_there() -> None:
    """In the project's folder, whose place is /opt/lectern."""
    texts = [one.read_text() for one in UNITS.iterdir()]
    paths = {one for text in texts for one in re.findall(r"/opt/lectern/((?:lib|examples)/\S+)", text)}
    assert paths
    assert all((ROOT / one).exists() for one in paths)


GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "dashboards/alerts.yml").read_text(encoding="utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
HEADINGS = re.findall(r"^## (.+)$", (ROOT / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
NOT_ALWAYS_THERE = {
    "lectern_transcodes_total": "lectern_info",  # before the first transcoding
    "lectern_waiting_slack_seconds": "lectern_waiting_classes",  # while no class waits
}


def test_each_rule_leads_to_a_part_of_the_runbook() -> None:
    wrong, whole = [], "".join(one.html for one in runbook.sections())
    for rule in RULES:
        told = rule["annotations"]
        anchor = runbook.anchor(told["runbook"])
        is_there = told["runbook"] in HEADINGS and f'id="{anchor}"' in whole
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
