"""Whatever a host writes into its log as a warning or an error, RUNBOOK.md says what it means and what to do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8").split("\n# What a log line means\n")[1].split("\n# ")[0]
FIRST_CELLS = re.findall(r"^\| (`.+?) \|", CHAPTER, re.MULTILINE)
SENTENCES = [sentence for cell in FIRST_CELLS for sentence in re.findall("`([^`]+)`", cell)]
LOUD = {"warning", "error", "exception", "critical"}

CARRIES_ANOTHER = {
    "%s": "the sentence of an alarm 324",
    "%s: %s": "a class's, a rendition's or a host's own error, which has its code or says what to type",
}
"""Formats that have no words of their own; the chapter's head says where to look."""


def said(folder: str) -> Iterator[tuple[str, str]]:
    """Place and format of each loud line in the log."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        if "demo" in file.parts:  # it has no operator
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOUD:
                logger = node.func.value
                if isinstance(logger, ast.Name) and logger.id in {"log", "_log", "logger"}:
                    assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}: its words are not to be read"
                    yield f"{file.name}:{node.lineno}", str(node.args[0].value)


def words(text: str, gap: str) -> list[str]:
    """What is fixed in a sentence."""
    return [part for one in re.split(gap, text) if re.search("[A-Za-z]{2}", part := one.strip())]


def said_by_the_playout() -> Iterator[tuple[str, str]]:
    """Place and format of each line that the playout writes, which has no logging."""
    for file in sorted((ROOT / "lib/lectern/playout").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                form = "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in parts)
                yield f"{file.name}:{node.lineno}", form


LINES = [*said("flows"), *said("lib/lectern"), *said_by_the_playout()]


def is_explained(form: str) -> bool:
    """Whether a sentence of the chapter has all the fixed words of *form*, in their order."""
    wanted = ".*".join(map(re.escape, words(form, r"%[\d.]*[sdrf]")))
    return any(re.search(wanted, sentence) for sentence in SENTENCES)


def test_there_are_lines_to_be_explained() -> None:
    """Else the search has lost sight of them."""
    assert len(LINES) > 40


@pytest.mark.parametrize(("place", "form"), LINES, ids=[place for place, _ in LINES])
def test_each_warning_and_error_is_explained(place: str, form: str) -> None:
    assert form in CARRIES_ANOTHER or is_explained(form), f"RUNBOOK.md, What a log line means: {form!r} is missing"


def test_a_sentence_that_nobody_explains_is_found() -> None:
    assert not is_explained("%s: the moon has fallen: %s")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_nothing_is_explained_that_nobody_says(sentence: str) -> None:
    """A sentence that was changed in the code is changed in the book."""
    fixed = words(sentence, "…")
    forms = [words(form, r"%[\d.]*[sdrf]") for _, form in LINES]
    assert any(set(form) and all(any(part in one for one in fixed) for part in form) for form in forms), sentence


def test_a_row_names_what_is_to_be_done() -> None:
    rows = [row for row in CHAPTER.splitlines() if row.startswith("| `")]
    assert [row for row in rows if len(row.split(" | ")) != 3] == []


def test_a_heading_that_a_row_names_is_there() -> None:
    runbook = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
    last_cells = [row.rsplit(" | ", 1)[1] for row in CHAPTER.splitlines() if row.startswith("| `")]
    named = {name for cell in last_cells for name in re.findall(r"\*([^*]{12,})\*", cell)}
    codes = {code for cell in last_cells for code in re.findall(r"\b[2-5]\d\d\b", cell)}
    headings = re.findall("^## (.+)$", runbook, re.MULTILINE)
    assert named - set(headings) == set()
    assert {code for code in codes if not any(one.startswith(f"{code}: ") for one in headings)} == set()
