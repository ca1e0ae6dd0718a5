"""docs/settings.md has each setting, with its default."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from benchmarks.figures import met, number
from benchmarks.page import REASONS, SUMMARY, reason
from lectern.settings import Common, StreamerSettings, TeacherSettings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
ROLES: list[type[Common]] = [Common, TeacherSettings, StreamerSettings]
MEANT = {"ALLOWED_ORIGINS": "public", "ALLOWED_PUSH_HOSTS": "public"}
"""What an empty setting means, where the table says it instead."""


def quoted(text: str) -> list[str]:
    return re.findall("`([^`]+)`", text)


def rows(part: str) -> list[list[str]]:
    found = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in part.splitlines() if line[:1] == "|"
    ]
    return found[2:]  # below the head and its line


TABLES = list(zip(ROLES, [rows(part) for part in TEXT.split("\n## ")[1:]], strict=True))


def test_each_setting_is_there_once_in_the_table_of_its_role() -> None:
    for kind, table in TABLES:
        fields = kind.model_fields.keys() - (Common.model_fields.keys() if kind is not Common else set())
        assert sorted(name.lower() for row in table for name in quoted(row[0])) == sorted(fields)


def default(kind: type[Common], name: str) -> str:
    """The program's default as the table writes it: empty if there is none, or if it is found out."""
    field = kind.model_fields[name.lower()]
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if value is None or value is PydanticUndefined:
        return "required" if field.is_required() else ""
    return MEANT.get(name, "") if value == "" else f"{value:.12g}" if isinstance(value, float) else str(value)


def test_each_row_has_the_program_s_default_and_what_a_change_costs() -> None:
    """Defaults that are found out are told in words, in both languages; a cost holds for one setting or all."""
    wrong = []
    for kind, row in [(kind, row) for kind, table in TABLES for row in table]:
        names, costs = quoted(row[0]), row[2].split(", ")
        said = row[1].split(", ") if ", " in row[1] else [row[1]] * len(names)
        for name, cell in zip(names, said, strict=True):
            is_literal = cell in {"none", "required"} or re.fullmatch("`[^`]+`|[0-9.]+", cell)
            in_words = " / " in cell and re.search("[\u4e00-\u9fff]", cell)
            is_so = default(kind, name) == (cell.strip("`").replace("none", "") if is_literal else "")
            wrong += [] if is_so and (is_literal or in_words) else [f"{name}: {cell}, not {default(kind, name)}"]
        wanted = [str(kind.cost(name.lower())) for name in names]
        wrong += [] if wanted == (costs * len(names) if len(costs) == 1 else costs) else [f"{row[0]}: {wanted}"]
    assert wrong == []


def test_the_page_is_made_of_a_report_of_one_commit_and_one_machine() -> None:
    """Figures of two machines, or of two releases, cannot be compared; the page's first table has the report's.

    By how much a goal is not met is on the page; why, a person has to find out. A reason that stays reads as a fault.
    """
    report: dict[str, Any] = json.loads((ROOT / "docs/benchmarks/bench-report.json").read_text(encoding="utf-8"))
    machines = [{name: value for name, value in one["machine"].items() if name != "load"} for one in report.values()]
    assert all(one == machines[0] for one in machines)
    assert machines[0]["commit"]
    assert not machines[0]["commit"].endswith("-dirty")
    said = (ROOT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
    for row, what in SUMMARY.items():
        assert f"| {what} | **{number(report[row]['ours'])} {report[row]['unit']}** |" in said
    short = [row for row, one in report.items() if met(one) is False]
    assert [row for row in short if not reason(row)] == []
    assert [one for one in REASONS if not any(row.startswith(one) for row in short)] == []
