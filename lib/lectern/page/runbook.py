"""RUNBOOK.md and RUNBOOK.zh.md as a page, with an anchor for each code."""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from lectern.errors import ErrorCode

_CODE = re.compile(r"(\d{3}): ")


@lru_cache(maxsize=2)
def rendered(language: str = "en") -> str:
    """The RUNBOOK in a language as HTML; raw HTML in it is only shown. Anchors are the same in each language."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_text("RUNBOOK.zh.md" if language == "zh" else "RUNBOOK.md"))
    headings = [token for token in tokens if token.type == "heading_open"]
    for heading, name in zip(headings, _headings(parser.parse(_text("RUNBOOK.md"))), strict=True):
        heading.attrSet("id", anchor(name))
    return str(parser.renderer.render(tokens, parser.options, {}))


def _headings(tokens: Sequence[Token]) -> list[str]:
    return [inner.content for token, inner in pairwise(tokens) if token.type == "heading_open"]


def anchor(heading: str) -> str:
    """The anchor of a heading: ``321`` for the heading of that code."""
    code = _CODE.match(heading)
    return code[1] if code else re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def url(base: str, code: ErrorCode) -> str:
    """The URL of the part of the RUNBOOK about *code*."""
    return f"{base}#{code.number}"


def _text(name: str) -> str:
    packed = files("lectern") / name
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    return (Path(__file__).parents[3] / name).read_text(encoding="utf-8")  # not installed, but checked out
