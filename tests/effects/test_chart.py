"""A chart is a picture that a browser shows by itself: nothing is loaded, nothing is run."""

import base64
import sys
from xml.etree import ElementTree

from lectern.effects import chart


def drawn(**series: list[float]) -> ElementTree.Element:
    labels = [str(one) for one in range(len(next(iter(series.values()))))]
    kind, _, body = chart.bars("What became of them", labels, series, (chart.GREEN, chart.RED)).partition(";base64,")
    assert kind == "data:image/svg+xml"
    return ElementTree.fromstring(base64.b64decode(body))


def test_there_is_a_bar_for_each_number_that_is_not_zero() -> None:
    root = drawn(ready=[3, 0, 2], refused=[0, 0, 1])
    bars = [one for one in root.iter() if one.get("class", "").startswith("rect reactive")]
    assert len(bars) == 3
    assert {"What became of them", "ready", "refused"} <= {text.strip() for text in root.itertext()}


def test_nothing_is_loaded_and_nothing_run() -> None:
    root = drawn(ready=[1])
    names = {str(one.tag).rpartition("}")[2] for one in root.iter()}
    assert names.isdisjoint({"script", "image", "foreignObject", "link"})
    links = [value for one in root.iter() for name, value in one.items() if name.endswith("href")]
    assert [one for one in links if not one.startswith("#")] == []


def test_a_full_day_of_all_parts_is_small() -> None:
    parts = {f"part {one}": [float(one + hour) for hour in range(24)] for one in range(5)}
    colours = (chart.GREEN, chart.BLUE, chart.ORANGE, chart.RED, chart.GREY)
    assert len(chart.bars("A day", [str(one) for one in range(24)], parts, colours)) < 64_000


def test_whoever_draws_imports_everything_else_as_before() -> None:
    """The library would answer each import in a way that is warned of."""
    found = [one for one in sys.meta_path if not hasattr(one, "find_spec")]
    assert found == []


def test_a_day_without_anything_has_its_title_and_no_bar() -> None:
    root = drawn(ready=[0, 0, 0])
    assert [one for one in root.iter() if one.get("class", "").startswith("rect reactive")] == []
    assert "What became of them" in {text.strip() for text in root.itertext()}
