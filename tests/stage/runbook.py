"""RUNBOOK.md as an operator uses it: a heading is looked up, and what it says is typed."""

import re
from pathlib import Path

_TEXT = (Path(__file__).parents[2] / "RUNBOOK.md").read_text(encoding="utf-8")
_SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^#).*\n?)*)", _TEXT, flags=re.MULTILINE))


def section(heading: str) -> str:
    """What stands under a heading; a KeyError where there is none."""
    return str(_SECTIONS[heading])


def commands(heading: str, program: str) -> list[str]:
    """The lines under a heading that begin with *program*, as they are to be typed."""
    text = section(heading)
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall("`([^`\n]+)`", text)
    return list(dict.fromkeys(line for line in lines if line.split()[0] == program))
