"""RUNBOOK.md as an operator uses it: a heading is looked up, and what it says is typed."""

import re
from pathlib import Path

_TEXT = (Path(__file__).parents[2] / "RUNBOOK.md").read_text(encoding="utf-8")
_SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^#).*\n?)*)", _TEXT, flags=re.MULTILINE))


def section(heading: str) -> str:
    """What stands under a heading; a KeyError if there is none."""
    return str(_SECTIONS[heading])


def headings() -> list[str]:
    """All of them, in their order."""
    return list(_SECTIONS)


def lines(heading: str) -> list[str]:
    """What stands under a heading to be typed, or to be seen: the lines of its blocks, and what is set apart in it."""
    text = section(heading)
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    said = [line for block in blocks for line in block.splitlines()] + re.findall("`([^`\n]+)`", plain)
    return list(dict.fromkeys(line for line in said if line.strip()))


def commands(heading: str, program: str) -> list[str]:
    """The lines under a heading that begin with *program*, as they are to be typed."""
    return [line for line in lines(heading) if line.split()[0] == program]
