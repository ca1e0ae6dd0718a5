"""RUNBOOK.md as a page, with an anchor for each code."""

import re
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

from lectern.errors import ErrorCode

_CODE = re.compile(r"(\d{3}): ")


@lru_cache(maxsize=1)
def rendered() -> str:
    """Its HTML; raw HTML in it is shown, not obeyed."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_text())
    for token, inner in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(inner.content))
    return str(parser.renderer.render(tokens, parser.options, {}))


def anchor(heading: str) -> str:
    """What leads to a heading: ``321`` for that of a code."""
    code = _CODE.match(heading)
    return code[1] if code else re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def url(base: str, code: ErrorCode) -> str:
    """Where the part of *code* is read."""
    return f"{base}#{code.number}"


def _text() -> str:
    packed = files("lectern") / "RUNBOOK.md"
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / "RUNBOOK.md").read_text(encoding="utf-8")  # not installed, but checked out
