"""The RUNBOOK and the glossary as a page, in both languages: sections with anchors, of which a search finds some."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_CODE = re.compile(r"(\d{3}): ")
_SECTIONS = frozenset({"h1", "h2"})
"""The headings that begin a section; deeper ones are parts of it."""


@dataclass(frozen=True)
class Section:
    """A heading of the first or second level, and what stands below it up to the next one."""

    level: int
    anchor: str
    title: str
    html: Markup
    text: str  # in lower case, for a search


def sections(language: str = "en", wanted: str = "") -> Sequence[Section]:
    """The sections of the RUNBOOK and the glossary in a language that have each word of *wanted*; without one, all."""
    words = wanted.lower().split()
    return [one for one in _sections(language) if all(word in one.text for word in words)]


def anchor(heading: str) -> str:
    """The anchor of a heading: ``321`` for the heading of that code."""
    code = _CODE.match(heading)
    return code[1] if code else re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


@lru_cache(maxsize=2)
def _sections(language: str) -> Sequence[Section]:
    """Anchors are the same in each language; raw HTML is only shown."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_books(".zh.md" if language == "zh" else ".md"))
    english = [name for _, name in _headings(parser.parse(_books(".md")))]
    anchors: dict[str, str] = {}
    for (heading, name), original in zip(list(_headings(tokens)), english, strict=True):
        heading.attrSet("id", anchor(original))
        slug = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")  # so code hosts name it in a link
        anchors[slug] = anchor(original)
    for link in (child for token in tokens for child in token.children or () if child.type == "link_open"):
        target = str(link.attrGet("href"))
        if target.startswith("#"):
            link.attrSet("href", f"#{anchors.get(unquote(target[1:]), target[1:])}")
    begins = [at for at, token in enumerate(tokens) if token.type == "heading_open" and token.tag in _SECTIONS]
    found = []
    for part in (tokens[first:end] for first, end in pairwise([*begins, len(tokens)])):
        html = Markup(parser.renderer.render(part, parser.options, {}))  # noqa: S704 (raw HTML is escaped)
        text = "\n".join(token.content for token in part).lower()
        found.append(Section(int(part[0].tag[1]), str(part[0].attrGet("id")), part[1].content, html, text))
    return found


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, str]]:
    return ((token, inner.content) for token, inner in pairwise(tokens) if token.type == "heading_open")


def _books(suffix: str) -> str:
    texts = []
    for name in (f"RUNBOOK{suffix}", f"docs/glossary{suffix}"):
        packed = files("lectern") / name
        file = packed if packed.is_file() else Path(__file__).parents[3] / name  # not installed, but checked out
        texts.append(file.read_text(encoding="utf-8"))
    return "\n".join(texts)
