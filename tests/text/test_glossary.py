"""The glossary names places in the code that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_term_of_the_glossary_is_where_it_says() -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| ")]
    places = [place for row in rows for place in re.findall(r"`([\w/.]+)`", row.rsplit("|", 2)[1])]
    assert len(places) > 40
    missing = [one for one in places if not ((ROOT / one).exists() or (ROOT / "lib/lectern" / one).exists())]
    assert not missing
