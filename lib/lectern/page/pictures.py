"""Stacked bars as SVG, which a browser shows in the page without asking anybody."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, FOOT = 720, 180, 44, 22
OF_A_CACHE = ("#2fa36b", "#8aa9f5", "#c8c8c8")
COLOURS = ("#2fa36b", "#8aa9f5", "#e0a030", "#d64545", "#c8c8c8")


def bars(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    colours: Sequence[str] = COLOURS,
) -> Markup:
    """One bar a label, each of *series* a part of it; its numbers are in the tooltips."""
    sums = [sum(values[at] for values in series.values()) for at in range(len(labels))]
    top = max([*sums, 1])
    step = (WIDTH - LEFT) / max(len(labels), 1)
    scale = (HEIGHT - FOOT - 10) / top
    drawn: list[str] = []
    for at, label in enumerate(labels):
        x, y = LEFT + at * step, float(HEIGHT - FOOT)
        for (name, values), colour in zip(series.items(), colours, strict=False):
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
    legend = " ".join(
        f'<span class="key"><svg width="10" height="10"><rect width="10" height="10" fill="{colour}"/></svg> '
        f"{escape(name)}</span>"
        for name, colour in zip(series, colours, strict=False)
    )
    head = f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return Markup(f"{head}{''.join(drawn)}</svg><p>{legend}</p></figure>")  # noqa: S704 (each text in it is escaped)
