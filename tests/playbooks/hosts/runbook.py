"""The commands of RUNBOOK.md, word for word, for the hosts of the tests."""

import re
import shlex
from pathlib import Path

RUNBOOK = Path(__file__).parents[3] / "RUNBOOK.md"
_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
_COMMAND = re.compile(r"```console\n(.*?)```|`(ansible-playbook [^`\n]+)`", re.DOTALL)


def commands(heading: str) -> list[str]:
    """What the section under *heading* says is to be typed, in its order: each line of a block, each playbook."""
    sections = dict(_SECTION.findall(RUNBOOK.read_text(encoding="utf-8")))
    found = [line for block, inline in _COMMAND.findall(sections[heading]) for line in (block or inline).splitlines()]
    assert found, f"RUNBOOK.md, {heading}: nothing is to be typed"
    return found


def playbook(heading: str, *words: str) -> str:
    """The one command of a section that has *words* and is a playbook's."""
    fitting = [
        one for one in commands(heading) if one.startswith("ansible-playbook") and all(word in one for word in words)
    ]
    return min(fitting, key=len)  # the others are the same with something added


def typed(command: str, inventory: Path, **names: str) -> list[str]:
    """The words of a playbook's command, with the tests' inventory, no vault, and *names* for the capitals."""
    for capital, name in names.items():
        command = re.sub(rf"\b{capital}\b", name, command)
    command = command.replace(" --ask-vault-pass", "")
    command = command.replace("-i inventory/production", f"-i {shlex.quote(str(inventory))}")
    assert "inventory/production" not in command, command
    assert not re.search(r"\b(VERSION|HOST)\b", command), command
    return shlex.split(command)
