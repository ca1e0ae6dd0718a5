"""Draws what a table does not show at a glance: how a figure grows with the size, and who is how quick."""

import re
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

GREEN, BLUE = "#2fa36b", "#8aa9f5"
COLOURS = (GREEN, BLUE, "#e0a030", "#d64545", "#7b5ea7", "#4aa3b5", "#8c6d46")
STYLE = Style(background="white", plot_background="white", colors=COLOURS, title_font_size=14)
AT_LEAST = 3
"""Two points make no curve, and two bars no comparison that the table does not make."""

Rows = list[dict[str, Any]]


def draw(report: dict[str, Any], folder: Path) -> dict[str, str]:
    """Draw into *folder* what is worth it; returns the files by their titles, relative to the folder above."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    drawn: dict[str, str] = {}
    for title, rows in _groups(report).items():
        picture = _picture(title, rows)
        if picture is None:
            continue
        file = folder / f"{re.sub('[^a-z0-9]+', '-', title.lower())}.svg"
        file.write_bytes(picture.render())
        drawn[title] = f"{folder.name}/{file.name}"
    return drawn


def _groups(report: dict[str, Any]) -> dict[str, Rows]:
    """The lines that are one row at several sizes, smallest first."""
    groups: dict[str, Rows] = {}
    for row, one in report.items():
        if one.get("size") is not None:
            groups.setdefault(row.replace(f", {one['size']:,}", ""), []).append(one)
    return {title: sorted(rows, key=lambda one: int(one["size"])) for title, rows in groups.items()}


def _picture(title: str, rows: Rows) -> Any:
    unit = rows[0]["unit"]
    common = {"width": 760, "height": 300, "style": STYLE, "js": [], "title": f"{title} ({unit})"}
    if len(rows) >= AT_LEAST:
        lines = pygal.Line(**common, logarithmic=True, x_title="size")
        lines.x_labels = [f"{one['size']:,}" for one in rows]
        for name in _names(rows[0]):
            lines.add(name, [_value(one, name) for one in rows])
        return lines
    largest = rows[-1]
    if len(largest["peers"]) < AT_LEAST:
        return None
    bars = pygal.HorizontalBar(**common, show_legend=False)
    shown = [name for name in _names(largest) if name != "limit"]  # beside it all others are as nothing
    names = sorted(shown, key=lambda name: _value(largest, name))
    bars.x_labels = names
    values = [{"value": _value(largest, name), "color": GREEN if name == "ours" else BLUE} for name in names]
    bars.add(unit, values)
    return bars


def _names(one: dict[str, Any]) -> list[str]:
    return ["ours", *one["peers"], *([] if one["limit"] is None else ["limit"])]


def _value(one: dict[str, Any], name: str) -> float:
    return float(one[name] if name in ("ours", "limit") else one["peers"][name])
