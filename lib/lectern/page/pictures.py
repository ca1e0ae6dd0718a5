"""Stacked bars as SVG inside the page, so that a browser needs no other file to show them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, FOOT = 720, 180, 44, 22
COLOURS = ("#2fa36b", "#8aa9f5", "#e0a030", "#d64545", "#8b1a1a", "#c8c8c8")
LIMIT = 'stroke="#d64545" stroke-width="2" stroke-dasharray="6 4"'
SMALL = 4
"""A limit is drawn up to this many times the highest bar; if it were higher, the bars would be flat."""


class Limit(NamedTuple):
    """A value that the bars may not exceed, and its name."""

    name: str
    value: float


def bars(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    limit: Limit | None = None,
) -> Markup:
    """One bar a label, each of *series* a part of it; its numbers are in the tooltips.

    A *limit* is named in the legend, and drawn as a line across the bars unless it is far above them.
    """
    top = max([sum(values[at] for values in series.values()) for at in range(len(labels))], default=0) or 1
    is_near = limit is not None and 0 < limit.value <= SMALL * top
    top = max(top, limit.value) if limit is not None and is_near else top
    step = (WIDTH - LEFT) / max(len(labels), 1)
    scale = (HEIGHT - FOOT - 10) / top
    drawn: list[str] = []
    for at, label in enumerate(labels):
        x, y = LEFT + at * step, float(HEIGHT - FOOT)
        for (name, values), colour in zip(series.items(), COLOURS, strict=False):
            if not values[at]:
                continue
            y -= values[at] * scale
            place = f'x="{x + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{values[at] * scale:.1f}"'
            tip = f"{escape(label)}: {values[at]:g} {escape(name)}"
            drawn.append(f'<rect {place} fill="{colour}"><title>{tip}</title></rect>')
        if at % 3 == 0:
            drawn.append(f'<text x="{x + step / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>')
    drawn.append(f'<text x="{LEFT - 6}" y="18" text-anchor="end">{top:,.6g}</text>')
    drawn.append(f'<line x1="{LEFT}" y1="{HEIGHT - FOOT}" x2="{WIDTH}" y2="{HEIGHT - FOOT}" stroke="#999"/>')
    if limit is not None and is_near:
        y = HEIGHT - FOOT - limit.value * scale
        line = f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}" {LIMIT}>'
        drawn.append(f"{line}<title>{escape(limit.name)}</title></line>")
    legend = " ".join(
        f'<span class="key"><svg width="10" height="10"><rect width="10" height="10" fill="{colour}"/></svg> '
        f"{escape(name)}</span>"
        for name, colour in zip(series, COLOURS, strict=False)
    )
    if limit is not None:
        dashes = f'<svg width="10" height="10"><line x1="0" y1="5" x2="10" y2="5" {LIMIT}/></svg> ' if is_near else ""
        legend += f' <span class="key">{dashes}{escape(limit.name)}</span>'
    head = f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return Markup(f"{head}{''.join(drawn)}</svg><p>{legend}</p></figure>")  # noqa: S704 (each text in it is escaped)
